"""A record: a Redis hash with one field per top-level key, every change of which is one atomic script or command."""

from collections.abc import Mapping
from typing import Any, Final

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.records.fields import (
    field_name,
    read_record,
    read_value,
    same_value,
    write_item,
    write_record,
    write_value,
)
from agent_service.infrastructure.redis.scripts import LISTING_REMOVE, RECORD_PUT, Script, load_script
from agent_service.infrastructure.redis.time_to_live import lifetime_of, seconds_left
from agent_service.infrastructure.redis.transport.base import Argument

__all__ = ["HashRecord"]

_APPEND = load_script("record_write", "record_append")
_INCREMENT = load_script("record_write", "record_increment")
_DELETE_FIELDS = load_script("record_write", "record_delete_fields")
_COMPARE_AND_SET = load_script("record_write", "record_compare_and_set")
_RENEW = load_script("record_write", "record_renew")

_NO_INDEXES: Final[Mapping[str, bytes]] = {}
_INT64 = range(-(1 << 63), 1 << 63)


class HashRecord:
    """The record at a key. Holds no state: make one per use.

    Values are anything the codec takes and come back with their type: ``1``, ``True``, ``"1"`` and ``1.0`` differ, and
    integers may have any size. A record without fields exists, and differs from one that does not. Every write is
    atomic and costs one round trip; it renews the time to live, which no read does.

    A replica that takes over may lack the latest writes: Redis replicates asynchronously.

    Raises ``RecordValueError`` for arguments that cannot be written, ``UndecodableError`` for a stored field that
    another program wrote, with its key, and ``RedisOperationError`` kinds.

    :param ttl: seconds the record lives after each write; None: writes leave its time to live alone.
    :param name: what the record is called in ``listing`` and ``indexes``.
    :param listing: key of a sorted set that holds the name of every record it lists; see
        :class:`~agent_service.infrastructure.redis.records.listing.RecordListing`.
    :param indexes: by field, what the keys of its index begin with; see
        :func:`~agent_service.infrastructure.redis.records.listing.find_indexed`. On a cluster all these keys must share
        a slot.
    """

    __slots__ = ("_header", "_keys", "_listing", "_name", "client", "key")

    def __init__(
        self,
        client: RedisClient,
        key: bytes,
        *,
        ttl: float | None = None,
        name: bytes = b"",
        listing: bytes | None = None,
        indexes: Mapping[str, bytes] = _NO_INDEXES,
    ) -> None:
        self.client = client
        self.key = key
        self._listing = listing
        self._name = name
        self._keys = [key, *indexes.values()] if listing is None else [key, listing, *indexes.values()]
        self._header: list[Argument] = [lifetime_of(ttl), name, int(listing is not None), *map(field_name, indexes)]

    async def get(self) -> dict[str, Any] | None:
        """Return all fields; None where there is no record."""
        return read_record(await self.client.execute(b"HGETALL", self.key), self.key)

    async def get_field(self, field: str) -> Any:
        """Return one field; None where there is none."""
        name = field_name(field)
        json = await self.client.execute(b"HGET", self.key, name)
        return None if json is None else read_value(json, self.key, name)

    async def exists(self) -> bool:
        """Return whether there is a record."""
        return bool(await self.client.execute(b"EXISTS", self.key))

    async def set(self, data: Mapping[str, Any]) -> None:
        """Replace the record by one with these fields only."""
        await self._write(RECORD_PUT, b"replace", *write_record(data))

    async def upsert(self, data: Mapping[str, Any]) -> None:
        """Set these fields and leave the others; without fields, make an empty record where there is none."""
        await self._write(RECORD_PUT, b"merge", *write_record(data))

    async def merge(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Do what :meth:`upsert` does; return all fields as this write left them."""
        return read_record(await self._write(RECORD_PUT, b"read", *write_record(data)), self.key) or {}

    async def append(self, field: str, value: Any) -> None:
        """Append to the list in a field; a missing field becomes a list. The cost grows with the length of the list.

        :raises RecordValueError: when the field holds something else.
        """
        if not await self._write(_APPEND, field_name(field), write_item(field, value)):
            raise RecordValueError(
                f"field {field!r:.80} holds no list, so nothing can be appended; set it to one first"
            )

    async def increment(self, field: str, by: int | float = 1) -> int | float:
        """Add to the number in a field, 0 where it is missing; return the sum: an int if both are, else a float.

        :raises RecordValueError: when the field holds no number, when ``by`` is none or is infinite, and when the sum
            of integers does not fit in 64 bits, or that of floats in a float.
        """
        amount = _amount(by)
        name = field_name(field)
        sum_ = await self._write(_INCREMENT, name, amount)
        if sum_ == 0:
            raise RecordValueError(
                f"field {field!r:.80} holds no number of 64 bits, so it cannot be incremented; set it to one first"
            )
        if sum_ == 1:
            raise RecordValueError(f"field {field!r:.80} plus {by!r} would not fit in 64 bits; set it lower first")
        return read_value(sum_, self.key, name)  # type: ignore[no-any-return]

    async def delete_fields(self, *fields: str) -> int:
        """Delete fields; return how many there were. A record that loses its last field stays, empty."""
        return int(await self._write(_DELETE_FIELDS, *map(field_name, fields)))

    async def compare_and_set(self, field: str, expected: Any, value: Any) -> bool:
        """Set a field if it holds what is expected, of the same type; return whether it did.

        ``None`` is also expected where the field, or the record, is missing.
        """
        name, wanted, json = field_name(field), write_value(field, expected), write_value(field, value)
        held = await self._write(_COMPARE_AND_SET, name, wanted, json)
        while held != 1 and same_value(held, wanted):  # written differently: other order of members, other exponent
            held = await self._write(_COMPARE_AND_SET, name, held, json)
        return bool(held == 1)

    async def delete(self) -> bool:
        """Delete the record; return whether there was one."""
        if self._listing is None:
            return bool(await self.client.unlink([self.key]))
        return bool(await self.client.run_script(LISTING_REMOVE, [self._listing, self.key], [self._name]))

    async def renew(self) -> bool:
        """Start the record's ``ttl`` again; return whether there is a record."""
        return bool(await self._write(_RENEW))

    async def ttl_left(self) -> float | None:
        """Return the seconds left to live: infinity for a record that does not expire, None where there is none."""
        return seconds_left(await self.client.execute(b"PTTL", self.key))

    async def _write(self, script: Script, *args: Argument) -> Any:
        return await self.client.run_script(script, self._keys, [*self._header, *args])


def _amount(by: int | float) -> bytes:
    if isinstance(by, bool) or not isinstance(by, int | float):
        raise RecordValueError(f"by must be an int or a float, not {type(by).__name__}: {by!r:.80}")
    if isinstance(by, int):
        if not _INT64.start <= by < _INT64.stop:
            raise RecordValueError("by must fit in 64 bits with its sign")
        return b"%d" % by
    if by - by != 0:
        raise RecordValueError(f"by must be finite, got {by!r}")
    return float.__repr__(by).encode()
