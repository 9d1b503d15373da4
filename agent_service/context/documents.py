"""Documents: what a store keeps under a key, as JSON and back."""

from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any, Final, TypeAlias, TypeVar

import orjson

from agent_service.core.codec import decode, encode
from agent_service.core.errors import CacheSerializationError, ContextStoreError, UndecodableError
from agent_service.core.values.json_writer import Writer
from agent_service.core.values.refusal import NotWritable

__all__ = [
    "Document",
    "Documents",
    "EncodedDocument",
    "accepts_encoded",
    "as_document",
    "as_pairs",
    "as_values",
    "encoded",
    "holds",
    "merged",
    "own_document",
    "read_document",
    "takes_encoded",
    "write_document",
]

F = TypeVar("F", bound=Callable[..., Any])

Document: TypeAlias = dict[str, Any]
"""What is stored under a key."""

Documents: TypeAlias = Mapping[Any, Mapping[str, Any]] | Iterable[tuple[Any, Mapping[str, Any]]]
"""Several keys and what is to be stored under them: a mapping, or pairs."""

_TEXT: Final = frozenset({str})
_FLAT: Final = frozenset({str, int, bool, type(None)})
_INT64: Final = 1 << 63


class EncodedDocument(dict[str, Any]):
    """A document that was checked, and its JSON, so that no store on its way encodes it again. Do not change it."""

    __slots__ = ("fields", "whole")

    fields: list[bytes] | None
    """The names and JSON of its entries in turn, as Redis keeps them; None: it was encoded whole."""
    whole: bytes | None
    """Its JSON; None: it was encoded by fields, and the whole was not needed yet."""

    @property
    def json(self) -> bytes:
        """The JSON of the whole, the same bytes as :func:`write_document` returns."""
        if self.whole is None:
            fields = self.fields or []
            entries = [
                b"%b:%b" % (encode_basestring(name).encode(), json)
                for name, json in zip(self, fields[1::2], strict=True)
            ]
            self.whole = b"{%b}" % b",".join(entries)
        return self.whole


def takes_encoded(method: F) -> F:
    """Mark a method of a store that uses what an :class:`EncodedDocument` carries; see :func:`accepts_encoded`."""
    method.takes_encoded = True  # type: ignore[attr-defined]
    return method


def accepts_encoded(store: Any) -> bool:
    """Whether a store may be given an :class:`EncodedDocument`: each of its methods that store is marked.

    A method of a derived class is not, for it may change what it is given, and so part it from its JSON.
    """
    return all(getattr(each, "takes_encoded", False) for each in (store.set, store.set_many, store.compare_and_set))


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


def as_values(pairs: list[tuple[Any, Any]]) -> Documents:
    """Return pairs as a mapping, which every store takes; as pairs where Python holds two of the keys equal."""
    values = dict(pairs)
    return values if len(values) == len(pairs) else pairs


def as_document(value: Any, name: str = "value") -> Document:
    """Return a mapping as a dictionary of its own, top level only.

    :raises ContextStoreError: for what is no mapping, or has top-level keys that are no text.
    """
    if type(value) is dict and _TEXT.issuperset(map(type, value)):
        return value.copy()
    if type(value) is EncodedDocument:
        return dict(value)
    if not isinstance(value, Mapping):
        raise ContextStoreError(f"{name} must be a mapping, not {type(value).__name__}: {value!r:.80}")
    document = dict(value)
    for field in document:
        if not isinstance(field, str):
            raise ContextStoreError(
                f"{name} has the top-level key {field!r:.80}, a {type(field).__name__}; top-level keys are text"
            )
    return document


def encoded(value: Any, *, by_field: bool) -> EncodedDocument:
    """Return a document of its own with its JSON.

    :param by_field: whether a store on its way keeps each entry by itself.
    :raises ContextStoreError: as :func:`as_document` and :func:`write_document`.
    """
    plain = as_document(value)
    document = EncodedDocument(plain)
    document.fields = _encode_fields(plain) if by_field else None
    document.whole = None if document.fields else _encode(plain)
    return document


def write_document(value: Any) -> bytes:
    """Return the JSON of a document.

    :raises ContextStoreError: naming the way to what cannot be stored.
    """
    if type(value) is EncodedDocument:
        return value.json
    return _encode(as_document(value))


def _encode_fields(document: dict[str, Any]) -> list[bytes] | None:
    """Return the names and JSON of a dictionary's entries in turn, with the bytes they have within the whole.

    None where the dictionary must be encoded whole: it is empty, looks like a tag, or holds what JSON refuses.
    """
    if (
        not document
        or not _TEXT.issuperset(map(type, document))
        or (len(document) == 1 and next(iter(document))[:1] == "$")
    ):
        return None
    try:
        is_flat = _FLAT.issuperset(map(type, document.values()))
        fields: list[bytes] = []
        for name, node in (document if is_flat else Writer(False).node(document)).items():
            fields += (name.encode(), _encode_node(node))
    except (NotWritable, RecursionError, UnicodeEncodeError, orjson.JSONEncodeError):
        return None
    return fields


def _encode_node(node: Any) -> bytes:
    kind = type(node)
    if kind is str:
        # The same bytes as orjson's, which takes 2 us for each of many that are kept: it shrinks a buffer of 1 KiB.
        return encode_basestring(node).encode()
    return b"%d" % node if kind is int and -_INT64 <= node < _INT64 else orjson.dumps(node)


def _encode(document: dict[str, Any]) -> bytes:
    try:
        return encode(document)[0]
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


def own_document(value: Any, name: str = "value") -> Document:
    """Return an independent copy of a document that every backend could keep.

    :raises ContextStoreError: as :func:`as_document` and :func:`write_document`.
    """
    return read_document(write_document(value if type(value) is EncodedDocument else as_document(value, name)))


def merged(present: Mapping[str, Any] | None, patch: Mapping[str, Any], *, drop_none: bool) -> Document:
    """Return the present document with the patch's entries set."""
    news = {name: each for name, each in patch.items() if each is not None} if drop_none else patch
    return {**(present or {}), **news}


def holds(present: Mapping[str, Any] | None, expected: Mapping[str, Any] | None) -> bool:
    """Whether the present document has the expected entries, compared as they are written; None: there is none."""
    if present is None or expected is None:
        return present is None and expected is None
    return all(name in present and encode(present[name]) == encode(each) for name, each in expected.items())
