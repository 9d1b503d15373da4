"""Documents: what a store keeps under a key, as JSON and back."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from agent_service.core.codec import decode, encode
from agent_service.core.errors import AgentServiceError, CacheSerializationError, ContextStoreError, UndecodableError
from agent_service.core.store_metrics import STORES

if TYPE_CHECKING:
    from agent_service.context.interface import Document

__all__ = [
    "as_document",
    "as_pairs",
    "holds",
    "merged",
    "own_document",
    "read_document",
    "store_errors",
    "translated",
    "write_document",
]

_TEXT: Final = frozenset({str})


@contextmanager
def store_errors(store: object, action: str) -> Iterator[None]:
    """Measure what ``store`` does while ``action`` ("read a context") is under way, and translate what it raises."""
    name = type(store).__name__
    with translated(name, action), STORES.measured(name):
        yield


@contextmanager
def translated(name: str, action: str) -> Iterator[None]:
    """Turn whatever is raised into a ContextStoreError; an error that is not ours is told with the store's name."""
    try:
        yield
    except ContextStoreError:
        raise
    except AgentServiceError as exc:
        raise ContextStoreError(f"could not {action}: {exc}") from exc
    except Exception as exc:  # the system's, a driver's, or that of somebody else's store
        raise ContextStoreError(f"could not {action}: {name} raised {type(exc).__name__}: {exc}") from exc


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


def as_document(value: Any, name: str = "value") -> "Document":
    """Give a mapping as a dictionary of its own, top level only.

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
    """Give the JSON of a document.

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
    """Give the present document with the patch's entries set."""
    news = {name: each for name, each in patch.items() if each is not None} if drop_none else patch
    return {**(present or {}), **news}


def holds(present: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
    """Whether the present document has the expected entries, compared as they are written; None: there is none."""
    if present is None or expected is None:
        return present is None and expected is None
    return all(name in present and encode(present[name]) == encode(each) for name, each in expected.items())
