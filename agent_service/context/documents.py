"""Documents: what a store keeps under a key, as JSON and back."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from agent_service.core.codec import decode, encode
from agent_service.core.errors import AgentServiceError, CacheSerializationError, ContextStoreError, UndecodableError
from agent_service.core.store_metrics import Measured

if TYPE_CHECKING:
    from agent_service.context.interface import Document, Documents

__all__ = [
    "as_document",
    "as_pairs",
    "as_values",
    "holds",
    "merged",
    "own_document",
    "read_document",
    "store_errors",
    "translated",
    "write_document",
]

_TEXT: Final = frozenset({str})


class translated:  # noqa: N801 - reads as a statement
    """Turns what leaves the block into a ContextStoreError; an error that is not ours is told with the store's name.

    :param name: of the store's class.
    :param action: what is under way, as in "read a context".
    """

    __slots__ = ("_action", "_name")

    def __init__(self, name: str, action: str) -> None:
        self._name = name
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        if exc is not None and isinstance(exc, Exception) and not isinstance(exc, ContextStoreError):
            reason = exc if isinstance(exc, AgentServiceError) else f"{self._name} raised {type(exc).__name__}: {exc}"
            raise ContextStoreError(f"could not {self._action}: {reason}") from exc


class store_errors(translated):  # noqa: N801 - as above
    """Does what :class:`translated` does, and counts the block among the operations of the store."""

    __slots__ = ("_measured",)

    def __init__(self, store: object, action: str) -> None:
        name = type(store).__name__
        super().__init__(name, action)
        self._measured = Measured(name)

    def __enter__(self) -> None:
        self._measured.__enter__()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        self._measured.__exit__(kind)
        if exc is not None:
            super().__exit__(kind, exc, traceback)


def as_pairs(values: Any) -> list[tuple[Any, Any]]:
    """Return the entries of a mapping, or pairs, as a list of pairs; the last of several for one key counts.

    :raises ContextStoreError: for anything else.
    """
    if isinstance(values, Mapping):
        return list(values.items())
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ContextStoreError(
            f"values must be a mapping or pairs of a key and a value, not {type(values).__name__}: {values!r:.80}"
        )
    pairs = []
    for each in values:
        if not isinstance(each, tuple | list) or len(each) != 2:
            raise ContextStoreError(f"values must hold pairs of a key and a value, and holds {each!r:.80}")
        pairs.append((each[0], each[1]))
    return pairs


def as_values(pairs: list[tuple[Any, Any]]) -> "Documents":
    """Return pairs as a mapping, which every store takes; as pairs where Python holds two of the keys equal."""
    values = dict(pairs)
    return values if len(values) == len(pairs) else pairs


def as_document(value: Any, name: str = "value") -> "Document":
    """Return a mapping as a dictionary of its own, top level only.

    :raises ContextStoreError: for what is no mapping, or has top-level keys that are no text.
    """
    if type(value) is dict and _TEXT.issuperset(map(type, value)):
        return value.copy()
    if not isinstance(value, Mapping):
        raise ContextStoreError(f"{name} must be a mapping, not {type(value).__name__}: {value!r:.80}")
    document = dict(value)
    for field in document:
        if not isinstance(field, str):
            raise ContextStoreError(
                f"{name} has the top-level key {field!r:.80}, a {type(field).__name__}; top-level keys are text"
            )
    return document


def write_document(value: Any) -> bytes:
    """Return the JSON of a document.

    :raises ContextStoreError: naming the way to what cannot be stored.
    """
    try:
        return encode(as_document(value))[0]
    except CacheSerializationError as exc:
        raise ContextStoreError(str(exc)) from exc


def read_document(data: bytes) -> "Document":
    """Undo :func:`write_document`.

    :raises ContextStoreError: for bytes that hold no document.
    """
    try:
        document = decode(data, tagged=True)
    except UndecodableError as exc:
        raise ContextStoreError(f"what is stored cannot be read: {exc}") from exc
    if not isinstance(document, dict):
        raise ContextStoreError(f"what is stored is a {type(document).__name__}, no dictionary")
    return document


def own_document(value: Any, name: str = "value") -> "Document":
    """Return an independent copy of a document that every backend could keep.

    :raises ContextStoreError: as :func:`as_document` and :func:`write_document`.
    """
    return read_document(write_document(as_document(value, name)))


def merged(present: Mapping[str, Any] | None, patch: Mapping[str, Any], *, drop_none: bool) -> "Document":
    """Return the present document with the patch's entries set."""
    news = {name: each for name, each in patch.items() if each is not None} if drop_none else patch
    return {**(present or {}), **news}


def holds(present: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
    """Whether the present document has the expected entries, compared as they are written; None: there is none."""
    if present is None or expected is None:
        return present is None and expected is None
    return all(name in present and encode(present[name]) == encode(each) for name, each in expected.items())
