"""The fields of a record as Redis holds them: the name in UTF-8, the value as JSON that loses nothing.

Plain values are plain JSON, so ``1``, ``True``, ``"1"`` and ``1.0`` stay apart; see :mod:`agent_service.core.codec`.
"""

from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, Final

import orjson

from agent_service.core.codec import decode, encode
from agent_service.core.errors import CacheSerializationError, RecordValueError, UndecodableError

__all__ = [
    "EMPTY",
    "EncodedRecord",
    "field_name",
    "read_record",
    "read_value",
    "same_value",
    "write_item",
    "write_record",
    "write_value",
]

EMPTY: Final = b"\xff"
"""The field that keeps a record without fields; no name in UTF-8 can be it."""

_INT64: Final = 1 << 63
_TAG: Final = b'"$'
"""Every tag of the codec has this in JSON; values without it need no search for tags."""


def field_name(field: str) -> bytes:
    """Return a field's name in UTF-8.

    :raises RecordValueError: when it is no str or holds a lone surrogate.
    """
    if not isinstance(field, str):
        raise RecordValueError(
            f"field names must be str, not {type(field).__name__}: {field!r:.80}; make them str first"
        )
    try:
        return field.encode()
    except UnicodeEncodeError as exc:
        raise RecordValueError(
            f"field {field!r:.80} holds a lone surrogate at position {exc.start}; it has no UTF-8 form, replace it"
        ) from None


def write_value(field: str, value: Any) -> bytes:
    """Return the JSON of a field's value.

    :raises RecordValueError: for what cannot be written; it names the field and the path within its value.
    """
    kind = type(value)
    if kind is str:
        # The same bytes as orjson's, which takes 2 us for each of many that are kept: it shrinks a buffer of 1 KiB.
        try:
            return encode_basestring(value).encode()
        except UnicodeEncodeError:  # a lone surrogate, which the codec names
            return _encode(field, value)
    if kind is int and -_INT64 <= value < _INT64:
        return b"%d" % value
    return _encode(field, value)


def _encode(field: str, value: Any) -> bytes:
    try:
        return encode(value)[0]
    except CacheSerializationError as exc:
        raise RecordValueError(f"field {field!r:.80} cannot be written: {exc}") from exc


def write_item(field: str, value: Any) -> bytes:
    """Return the JSON of an item for a field's list.

    :raises RecordValueError: like :func:`write_value`.
    """
    return write_value(field, [value])[1:-1]


class EncodedRecord(dict[str, Any]):
    """A record that was encoded before: names and JSON in turn, as :func:`write_record` returns them."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[bytes]) -> None:
        super().__init__()
        self.pairs = pairs


def write_record(data: Mapping[str, Any]) -> list[bytes]:
    """Return the names and values of a record's fields in turn, at least one pair.

    :raises RecordValueError: for data that is no mapping, and for a field that cannot be written.
    """
    if type(data) is EncodedRecord:
        return data.pairs
    if not isinstance(data, Mapping):
        raise RecordValueError(f"data must be a mapping of fields to values, not {type(data).__name__}: {data!r:.80}")
    pairs: list[bytes] = []
    for field, value in data.items():
        pairs += (field_name(field), write_value(field, value))
    return pairs or [EMPTY, b""]


def read_value(json: bytes, key: bytes, field: bytes) -> Any:
    """Return the value that :func:`write_value` wrote.

    :param key: of the record.
    :param field: that holds the value.
    :raises UndecodableError: for anything that it did not write; it names key and field.
    """
    try:
        return decode(json, tagged=_TAG in json)
    except UndecodableError as exc:
        raise _unreadable(key, field, exc) from exc


def _unreadable(key: bytes, field: bytes, exc: Exception) -> UndecodableError:
    return UndecodableError(f"field {field[:80]!r} of the record at {key[:200]!r} cannot be read: {exc}")


def read_record(reply: Sequence[bytes], key: bytes) -> dict[str, Any] | None:
    """Return the fields in the reply to an HGETALL; None for a record that does not exist.

    :param key: of the record.
    :raises UndecodableError: for what :func:`write_record` did not write; it names key and field.
    """
    if not reply:
        return None
    record: dict[str, Any] = {}
    name = b""
    try:
        for name, json in zip(reply[::2], reply[1::2], strict=True):
            if name != EMPTY:
                record[name.decode()] = decode(json, tagged=True) if _TAG in json else orjson.loads(json)
    except (UndecodableError, UnicodeDecodeError, orjson.JSONDecodeError) as exc:
        raise _unreadable(key, name, exc) from exc
    return record


def same_value(one: bytes, other: bytes) -> bool:
    """Return whether two JSON texts mean the same value of the same type, whatever the order of an object's members."""
    return one == other or _canonical(one) == _canonical(other)


def _canonical(json: bytes) -> bytes:
    try:
        return orjson.dumps(orjson.loads(json), option=orjson.OPT_SORT_KEYS)
    except orjson.JSONDecodeError as exc:
        raise UndecodableError(f"stored data is no JSON: {exc}") from exc
