"""The codec: values to JSON and back, without loss.

Plain data is plain JSON. Standard types that JSON lacks come back as themselves: datetime, date, time, timedelta,
Decimal, UUID, bytes, bytearray, complex, range, slice, tuple, set, frozenset, deque, OrderedDict, Counter, defaultdict,
dicts with keys that are no str, integers of any size, NaN and the infinities, and the types of
:mod:`.values.text_types`. A class registered by :func:`register_type` comes back as that class. Unregistered
dataclasses, pydantic models, Enum members and NamedTuples come back as plain data; with ``keep_classes`` they are
written whole, so that a reader whose annotation names their classes gets them as they were (:mod:`.values.stored`).
Everything else is refused by name.

Nothing is imported or called because stored bytes name it. Two things change: a ``tzinfo`` of a foreign kind comes back
as its offset, and objects referred to twice come back as two.
"""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

import orjson

from agent_service.core.errors import UndecodableError
from agent_service.core.values.json_reader import read
from agent_service.core.values.json_writer import MAX_DEPTH, encode
from agent_service.core.values.registry import register_type
from agent_service.core.values.standard_types import keeps_zone
from agent_service.core.values.stored import Stored

__all__ = ["JsonSerializer", "Serializer", "decode", "decode_stored", "encode", "is_immutable", "register_type"]

_SHAREABLE = frozenset({bool, int, float, type(None), bytes, complex, Decimal, UUID, date, timedelta, range})
_WHOLE = b'{"$whole":'


class Serializer(Protocol):
    """How a cache turns values into bytes; write your own for values that JSON does not suit."""

    def dumps(self, value: Any) -> bytes:
        """Return the bytes to store, the same for every process that shares the cache.

        :raises CacheSerializationError: if the value cannot be written.
        """
        ...

    def loads(self, data: bytes) -> Any:
        """Return a value equal to the one written, and a new one each time if it is mutable.

        :raises UndecodableError: for bytes that :meth:`dumps` did not write.
        """
        ...


class JsonSerializer:
    """The default serializer: :func:`encode` and :func:`decode`."""

    def dumps(self, value: Any) -> bytes:
        """Return the JSON of a value."""
        return encode(value)[0]

    def loads(self, data: bytes) -> Any:
        """Return the value of its JSON. Nothing in untagged JSON looks like a tag, so reading it as tagged is safe."""
        return decode(data, tagged=True)


def decode(payload: bytes, tagged: bool) -> Any:
    """Return the value that :func:`encode` wrote.

    :raises UndecodableError: for anything that :func:`encode` did not write, or that names a type not registered here.
    """
    try:
        node = orjson.loads(payload)
        return read(node) if tagged else node
    except UndecodableError:
        raise
    except Exception as exc:  # stored bytes may be hostile, and load functions are the caller's code
        raise UndecodableError(f"stored data cannot be read: {type(exc).__name__}: {exc!s:.200}") from exc


def decode_stored(payload: bytes, tagged: bool) -> Any:
    """Return what :func:`decode` does, but a :class:`Stored` for a value that holds instances of classes.

    :raises UndecodableError: as :func:`decode` does.
    """
    if tagged and payload.startswith(_WHOLE):
        try:
            return Stored(orjson.loads(payload)["$whole"])
        except Exception as exc:  # stored bytes may be hostile
            raise UndecodableError(f"stored data cannot be read: {type(exc).__name__}: {exc!s:.200}") from exc
    return decode(payload, tagged)


def is_immutable(value: Any) -> bool:
    """Return whether a value may be shared instead of copied: immutable throughout, and what :func:`decode` gives."""
    return _is_shareable(value, MAX_DEPTH // 2)


def _is_shareable(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return value.isascii() or _has_utf8(value)
    if kind in _SHAREABLE:
        return True
    if kind is datetime or kind is time:
        return keeps_zone(value.tzinfo)
    if kind is tuple or kind is frozenset:
        return depth > 0 and all(_is_shareable(each, depth - 1) for each in value)
    return False


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
