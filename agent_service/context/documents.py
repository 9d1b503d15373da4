"""Documents: what a store keeps under a key, as JSON and back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from agent_service.context.interface import Document
from agent_service.core.codec import decode, encode
from agent_service.core.errors import AgentServiceError, CacheSerializationError, ContextStoreError, UndecodableError

__all__ = ["as_document", "holds", "merged", "read_document", "store_errors", "write_document"]

_TEXT: Final = frozenset({str})


@contextmanager
def store_errors(action: str) -> Iterator[None]:
    """Turn what the rooms below raise while ``action`` ("read a context") is under way into a ContextStoreError."""
    try:
        yield
    except ContextStoreError:
        raise
    except (AgentServiceError, OSError) as exc:
        raise ContextStoreError(f"could not {action}: {exc}") from exc


def as_document(value: Any, name: str = "value") -> Document:
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


def read_document(data: bytes) -> Document:
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


def merged(present: Mapping[str, Any] | None, patch: Mapping[str, Any], *, drop_none: bool) -> Document:
    """Give the present document with the patch's entries set."""
    news = {name: each for name, each in patch.items() if each is not None} if drop_none else patch
    return {**(present or {}), **news}


def holds(present: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
    """Whether the present document has the expected entries, compared as they are written; None: there is none."""
    if present is None or expected is None:
        return present is None and expected is None
    return all(name in present and encode(present[name]) == encode(each) for name, each in expected.items())
