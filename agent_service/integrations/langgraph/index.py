"""What of a value searches find: its texts, and their vectors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from langchain_core.embeddings import Embeddings
from langgraph.store.base import IndexConfig, ensure_embeddings, get_text_at_path, tokenize_path

from agent_service.core.errors import ConfigurationError, SessionValueError
from agent_service.infrastructure.database.items.operations import Vectors
from agent_service.infrastructure.database.items.vectors import MAX_DIMENSIONS, require_vector

__all__ = ["TextIndex", "VectorIndex"]

_WHOLE: Final = "$"


class TextIndex:
    """The texts of a value.

    :param index: of a put: None, False or paths.
    """

    @staticmethod
    def of(value: Mapping[str, Any], index: Any) -> Iterable[str] | None:
        """Return the texts that queries look through; None: every text of the value.

        :raises SessionValueError: the index cannot be used.
        """
        _require_index(index)
        if index is None:
            return None
        return [] if index is False else _texts(value, index)


class VectorIndex:
    """Makes vectors of texts.

    :raises ConfigurationError: the configuration cannot be used.
    """

    def __init__(self, config: IndexConfig) -> None:
        dims = config.get("dims")
        if isinstance(dims, bool) or not isinstance(dims, int) or not 1 <= dims <= MAX_DIMENSIONS:
            raise ConfigurationError(f"index has dims {dims!r:.80}; give a number from 1 to {MAX_DIMENSIONS}")
        embed = config.get("embed")
        if embed is None:
            raise ConfigurationError("index has no embed; give Embeddings, a function, or the name of a model")
        self._dims = dims
        self.embeddings: Embeddings = ensure_embeddings(embed)
        fields = config.get("fields")
        self._fields = [_WHOLE] if fields is None else list(fields)
        if isinstance(fields, str) or not all(isinstance(each, str) for each in self._fields):
            raise ConfigurationError(f"index has fields {fields!r:.80}; give a list of paths")

    async def vectors_of(self, puts: Sequence[tuple[Mapping[str, Any] | None, Any]]) -> list[Vectors]:
        """Return the vectors of each value, whose index is None, False or paths. Equal texts are embedded once."""
        wanted = [self._places(value, index) for value, index in puts]
        texts = list(dict.fromkeys(text for places in wanted for _, text in places))
        found = await self.embeddings.aembed_documents(texts) if texts else []
        if len(found) != len(texts):
            raise SessionValueError(f"embed gave {len(found)} vectors for {len(texts)} texts")
        known = {text: require_vector(each, self._dims) for text, each in zip(texts, found, strict=True)}
        return [tuple((place, known[text]) for place, text in places) for places in wanted]

    def _places(self, value: Mapping[str, Any] | None, index: Any) -> list[tuple[str, str]]:
        _require_index(index)
        if value is None or index is False:
            return []
        return [(str(number), text) for number, text in enumerate(_texts(value, index or self._fields))]

    async def vector_of(self, query: str) -> list[float]:
        """Return the vector of a query."""
        return require_vector(await self.embeddings.aembed_query(query), self._dims)


def _require_index(index: Any) -> None:
    if index is not None and index is not False and not _is_paths(index):
        raise SessionValueError(f"index must be None, False or a list of paths, got {index!r:.80}")


def _is_paths(index: Any) -> bool:
    return isinstance(index, list | tuple) and all(isinstance(each, str) for each in index)


def _texts(value: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    found = (get_text_at_path(value, path if path == _WHOLE else tokenize_path(path)) for path in paths)
    return [text for texts in found for text in texts]
