"""The wire format of a cached value, in Redis and in memory.

::

    bare integer   an integer of 64 bits in ASCII decimal digits
    format 1       01 | flags | [created] | [stale] | [tags] | body

    flags          1 tagged, 2 compressed, 4 created, 8 stale, 16 tags, 32 counter, 64 raised; the last bit is unknown
    created, stale unix time in milliseconds, signed 64 bits
    tags           count (16 bits), then for each: length (16), name in UTF-8, length (8), token
    body           when compressed: its length (32 bits), then zlib; of a counter: ASCII digits; else the payload

The part before the body is the head. All numbers are big-endian. The first byte tells the formats apart: digits and
``-`` are a bare integer, ``01`` is format 1, anything else was not written by this version. Whatever was written by any
release must decode for ever (golden tests).
"""

import re
import struct
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from agent_service.core.errors import UndecodableError

__all__ = [
    "LONGEST_TOKEN",
    "MAX_COMPRESSIBLE",
    "MAX_RATIO",
    "NO_TAGS",
    "Head",
    "is_counter",
    "is_sealed",
    "pack_payload",
    "pack_tags",
    "read_head",
    "read_payload",
    "seal",
]

LONGEST_TOKEN: Final = 255
"""Bytes of a token that a head can hold."""
MAX_COMPRESSIBLE: Final = 64 << 20
"""Payloads beyond 64 MiB are stored as they are, so that no stored bytes can inflate to more."""
MAX_RATIO: Final = 64
"""Nor can they inflate to more than this many times their own size: payloads that would are stored as they are."""

_TAGGED, _COMPRESSED, _CREATED, _STALE, _TAGS, _COUNTER, _RAISED = 1, 2, 4, 8, 16, 32, 64
_KNOWN = 127
_PLAIN_HEADER = b"\x01\x00"
_TAGGED_HEADER = b"\x01\x01"
_BARE_STARTS = frozenset(b"-0123456789")
_BARE = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_STAMP = struct.Struct(">q")
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")
_ZLIB_LEVEL = 1  # a cache waits for the processor before it waits for the network

NO_TAGS: Final[Mapping[str, bytes]] = MappingProxyType({})


class Head(NamedTuple):
    """The part before the body."""

    flags: int
    created_at: float | None
    stale_at: float | None
    tags: Mapping[str, bytes]
    end: int
    """Where the body begins."""

    @property
    def raised(self) -> bool:
        """Whether the payload describes an exception that the load raised."""
        return bool(self.flags & _RAISED)


def pack_payload(payload: bytes, *, tagged: bool = False, compress_above: int | None = None) -> bytes:
    """Return the bytes of a payload of which nothing else is known; :func:`seal` adds what is known.

    :param tagged: whether decoding has to look for tagged types (see :mod:`agent_service.core.codec`).
    :param compress_above: compress payloads of more than this many bytes, where that makes them smaller; None: never.
    """
    if not tagged and _is_bare_integer(payload):
        return payload
    if compress_above is not None and compress_above < len(payload) <= MAX_COMPRESSIBLE:
        smaller = zlib.compress(payload, _ZLIB_LEVEL)
        if len(smaller) + _U32.size < len(payload) <= MAX_RATIO * len(smaller):
            return b"".join((bytes((1, _TAGGED * tagged | _COMPRESSED)), _U32.pack(len(payload)), smaller))
    return (_TAGGED_HEADER if tagged else _PLAIN_HEADER) + payload


def seal(
    packed: bytes,
    *,
    created_at: float | None = None,
    stale_at: float | None = None,
    tags: bytes = b"",
    raised: bool = False,
) -> bytes:
    """Add a head to what :func:`pack_payload` gave.

    :param created_at: when the value was loaded, in unix seconds; kept to the millisecond.
    :param stale_at: from when on the value is stale though not expired, in the same way.
    :param tags: what :func:`pack_tags` gave.
    :param raised: whether the payload describes an exception that the load raised.
    """
    flags, head = _RAISED if raised else 0, tags
    if tags:
        flags |= _TAGS
    if stale_at is not None:
        flags |= _STALE
        head = _STAMP.pack(round(stale_at * 1000)) + head
    if created_at is not None:
        flags |= _CREATED
        head = _STAMP.pack(round(created_at * 1000)) + head
    if not flags:
        return packed
    if packed[0] != 1:
        return b"".join((bytes((1, flags | _COUNTER)), head, packed))
    return b"".join((bytes((1, flags | packed[1])), head, packed[2:]))


def pack_tags(tags: Mapping[str, bytes]) -> bytes:
    """Return the tags of a head, and nothing for no tags.

    :param tags: by name, the token that each of the value's tags had when its load started; at most
        :data:`LONGEST_TOKEN` bytes each.
    """
    if not tags:
        return b""
    parts = [_U16.pack(len(tags))]
    for name, token in tags.items():
        encoded = name.encode()
        parts += (_U16.pack(len(encoded)), encoded, bytes((len(token),)), token)
    return b"".join(parts)


def is_counter(data: bytes, head: Head) -> bool:
    """Return whether these stored bytes are an integer that can be incremented."""
    return bool(head.flags & _COUNTER) and _is_bare_integer(data[head.end :])


def read_head(data: bytes) -> Head:
    """Return the head; the rest of ``data`` is not read and may be missing.

    :raises UndecodableError: for an unknown format, an unknown flag, and a truncated or damaged head.
    """
    if not data:
        raise UndecodableError("stored bytes are empty")
    if data[0] in _BARE_STARTS:
        return Head(_COUNTER, None, None, NO_TAGS, 0)
    if data[0] != 1:
        raise UndecodableError(f"stored bytes have the unknown format {data[0]:#04x}")
    try:
        return _read_head_1(data)
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise UndecodableError(f"stored bytes of format 1 are truncated or damaged: {exc}") from exc


def _read_head_1(data: bytes) -> Head:
    flags, position = data[1], 2
    if flags > _KNOWN:
        raise UndecodableError(f"stored bytes of format 1 have unknown flags {flags:#04x}")
    created_at = stale_at = None
    tags = NO_TAGS
    if flags & _CREATED:
        created_at = _STAMP.unpack_from(data, position)[0] / 1000
        position += _STAMP.size
    if flags & _STALE:
        stale_at = _STAMP.unpack_from(data, position)[0] / 1000
        position += _STAMP.size
    if flags & _TAGS:
        tags, position = _unpack_tags(data, position)
    return Head(flags, created_at, stale_at, tags, position)


def is_sealed(data: bytes) -> bool:
    """Return whether these bytes are a value in this format, and not just a bare integer."""
    if data[:1] != b"\x01":
        return False
    try:
        head = read_head(data)
        read_payload(data, head.flags, head.end)
    except UndecodableError:
        return False
    return True


def read_payload(data: bytes, flags: int, start: int) -> tuple[bytes, bool, bool]:
    """Return the payload behind a head that ends at ``start``, whether it is tagged, and whether it is a bare integer.

    :raises UndecodableError: for a truncated or damaged body. Never allocates more than the size of ``data`` plus
        :data:`MAX_COMPRESSIBLE`, or :data:`MAX_RATIO` times the size of ``data``.
    """
    if flags & _COUNTER:
        payload = data[start:] if start else data
        if not _is_bare_integer(payload):
            raise UndecodableError(f"stored bytes should be an integer of 64 bits and are none: {payload[:40]!r}")
        return payload, False, True
    if flags & _COMPRESSED:
        try:
            return _inflate(data, start), bool(flags & _TAGGED), False
        except (struct.error, zlib.error) as exc:
            raise UndecodableError(f"stored bytes of format 1 are truncated or damaged: {exc}") from exc
    return data[start:], bool(flags & _TAGGED), False


def _is_bare_integer(payload: bytes) -> bool:
    if not payload or payload[0] not in _BARE_STARTS or len(payload) > 20 or not _BARE.fullmatch(payload):
        return False
    return len(payload) < 19 or _INT64_MIN <= int(payload) <= _INT64_MAX


def _unpack_tags(data: bytes, position: int) -> tuple[Mapping[str, bytes], int]:
    tags: dict[str, bytes] = {}
    (count,) = _U16.unpack_from(data, position)
    position += _U16.size
    for _ in range(count):
        (length,) = _U16.unpack_from(data, position)
        position += _U16.size
        name = data[position : position + length].decode()
        position += length
        length = data[position]
        position += 1
        tags[name] = data[position : position + length]
        position += length
    if position > len(data):
        raise IndexError("tags end beyond the data")
    return tags, position


def _inflate(data: bytes, position: int) -> bytes:
    (length,) = _U32.unpack_from(data, position)
    most = min(MAX_COMPRESSIBLE, MAX_RATIO * (len(data) - position - _U32.size))
    if length > most:
        raise UndecodableError(f"stored bytes claim to inflate to {length} bytes, at most {most} are allowed")
    inflater = zlib.decompressobj()
    payload = inflater.decompress(memoryview(data)[position + _U32.size :], length + 1)
    if len(payload) != length or not inflater.eof or inflater.unused_data:
        raise UndecodableError(f"stored bytes do not inflate to the {length} bytes they claim")
    return payload
