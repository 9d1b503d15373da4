"""The codec: values to JSON and back, losing nothing.

Plain data is plain JSON. Standard types that JSON lacks come back as themselves: datetime, date, time, timedelta,
Decimal, UUID, bytes, bytearray, complex, range, slice, tuple, set, frozenset, deque, OrderedDict, Counter, defaultdict,
dicts with keys that are no str, integers of any size, NaN and the infinities, and the types of :mod:`.text_types`. A
class registered by :func:`register_type` comes back as that class. Unregistered dataclasses, pydantic models, Enum
members and NamedTuples come back as plain data; with ``keep_classes`` they are written whole, so that a reader whose
annotation names their classes gets them as they were (:mod:`.stored`). Everything else is refused by name.

Nothing is imported or called because stored bytes name it. Two things change: a ``tzinfo`` of a foreign kind comes back
as its offset, and objects referred to twice come back as two.
"""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn, Protocol
from uuid import UUID

import orjson

from agent_service.core.errors import CacheSerializationError, UndecodableError
from agent_service.core.json_reader import read
from agent_service.core.json_writer import MAX_DEPTH, Writer
from agent_service.core.refusal import NotWritable
from agent_service.core.registry import register_type
from agent_service.core.standard_types import keeps_zone
from agent_service.core.stored import Stored

__all__ = ["JsonSerializer", "Serializer", "decode", "decode_stored", "encode", "is_immutable", "register_type"]

_SHAREABLE = frozenset({bool, int, float, type(None), bytes, complex, Decimal, UUID, date, timedelta, range})
_WHOLE = b'{"$whole":'
_TOO_DEEP = f"value nests deeper than {MAX_DEPTH} levels; flatten it"


class Serializer(Protocol):
    """How a cache turns values into bytes; give one of your own for values that JSON does not suit."""

    def dumps(self, value: Any) -> bytes:
        """Return the bytes to store, the same for every process that shares the cache.

        :raises CacheSerializationError: when the value cannot be written.
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
        """Return the value of its JSON. Nothing in untagged JSON looks like a tag, so a walk does it no harm."""
        return decode(data, tagged=True)


def encode(value: Any, *, keep_classes: bool = False, annotated: bool = False) -> tuple[bytes, bool]:
    """Return the value's JSON, and whether :func:`decode` has to look for tagged types in it.

    :param keep_classes: write instances of unregistered classes whole, for :func:`decode_stored`; else as plain data.
    :param annotated: whether it will be read with an annotation; then classes need not be hashable as plain data.
    :raises CacheSerializationError: naming the way to what cannot be written, as ``value['a'][3]``, and the remedy.
    """
    for strict in (False, True):
        writer = Writer(strict, keep_classes, annotated)
        try:
            node = writer.whole(writer.node(value))
            return orjson.dumps(node), writer.tagged
        except NotWritable as refused:
            _raise(refused)
        except RecursionError:
            raise CacheSerializationError(_TOO_DEEP) from None
        except orjson.JSONEncodeError as exc:
            reason = exc
    raise CacheSerializationError(f"value cannot be written as JSON: {reason}") from reason


def decode(payload: bytes, tagged: bool) -> Any:
    """Undo :func:`encode`.

    :raises UndecodableError: for anything that :func:`encode` did not write, or that names a type not registered here.
    """
    try:
        node = orjson.loads(payload)
        return read(node) if tagged else node
    except UndecodableError:
        raise
    except Exception as exc:  # stored bytes may be anybody's, and load functions are the caller's code
        raise UndecodableError(f"stored data cannot be read: {type(exc).__name__}: {exc!s:.200}") from exc


def decode_stored(payload: bytes, tagged: bool) -> Any:
    """:func:`decode`, but a value that holds instances of classes is a :class:`Stored`, to be read by who wants it.

    :raises UndecodableError: as :func:`decode` does.
    """
    if tagged and payload.startswith(_WHOLE):
        try:
            return Stored(orjson.loads(payload)["$whole"])
        except Exception as exc:  # stored bytes may be anybody's
            raise UndecodableError(f"stored data cannot be read: {type(exc).__name__}: {exc!s:.200}") from exc
    return decode(payload, tagged)


def is_immutable(value: Any) -> bool:
    """Whether a value may be shared instead of copied: immutable all through, and just what :func:`decode` gives."""
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


def _raise(refused: NotWritable) -> NoReturn:
    reason = str(refused)
    if len(set(refused.containers)) < len(refused.containers):
        reason = "it contains itself; break the cycle"
    steps = "".join(reversed(refused.steps))
    path = steps if len(steps) <= 200 else f"{steps[:200]}..."
    raise CacheSerializationError(f"value{path} cannot be stored: {reason}") from refused.__cause__
