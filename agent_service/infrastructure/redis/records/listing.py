"""Sorted sets of records: listings of all of them, and secondary indexes by the value of a field.

:class:`~agent_service.infrastructure.redis.records.record.HashRecord` adds each record in the script that writes it. So
every record that exists is in its sets, scored by the time at which it expires. Expired members are removed when the
next record is added, and a set expires with its last member. Members whose records were deleted, evicted or changed are
stale; the next reader removes them, in a script that checks again, so that no newer write is undone.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from hashlib import sha1
from typing import Any

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.records.fields import field_name, read_record, same_value, write_value
from agent_service.infrastructure.redis.scripts import LISTING_REMOVE, Script, load_script

__all__ = ["RecordListing", "find_indexed", "find_scanning", "is_indexed"]

_LIVING = load_script("listing_living")
_PRUNE = load_script("index_prune")

_PAGE = 500
"""Records per script: Redis serves other clients in between."""
_CANDIDATES = 10
"""Records read at once while searching for one that holds a value; nearly always the first does."""

_INDEXED_TYPES = frozenset({str, int, bool, type(None)})

RecordKey = Callable[[bytes], bytes]


class RecordListing:
    """The records in a listing.

    :param key: of the sorted set.
    :param record_key: returns the key of a record by its name in the set. On a cluster they all share the set's slot.
    """

    def __init__(self, client: RedisClient, key: bytes, record_key: RecordKey) -> None:
        self._client = client
        self._key = key
        self._record_key = record_key

    async def names(self) -> list[bytes]:
        """Return the names of the records that exist, sorted. Costs what is listed, not what is stored."""
        return sorted([name for page in await self._in_pages(_LIVING) for name in page])

    async def delete_all(self) -> int:
        """Delete the records that are listed now; return how many there were. Costs what is listed."""
        return sum(await self._in_pages(LISTING_REMOVE))

    async def _in_pages(self, script: Script) -> list[Any]:
        names: Sequence[bytes] = await self._client.execute(b"ZRANGE", self._key, 0, -1)
        pages = [names[start : start + _PAGE] for start in range(0, len(names), _PAGE)]
        return [
            await self._client.run_script(script, [self._key, *map(self._record_key, page)], page) for page in pages
        ]


def is_indexed(value: Any) -> bool:
    """Return whether an index can find the value: a str, a 64-bit int, a bool or None, which have one form in JSON."""
    return type(value) in _INDEXED_TYPES and (type(value) is not int or -(1 << 63) <= value < 1 << 63)


async def find_indexed(
    client: RedisClient, index: bytes, field: str, value: Any, record_key: RecordKey
) -> dict[str, Any] | None:
    """Return a record whose indexed field holds the value, of the same type; None where there is none.

    Costs the same however many records there are, plus the stale members that it removes.

    :param index: what the keys of the field's index begin with.
    :param value: one that :func:`is_indexed`.
    """
    json, name = write_value(field, value), field_name(field)
    members = index + sha1(json, usedforsecurity=False).hexdigest().encode()
    cursor: bytes | None = b"0"
    while cursor is not None:
        following, scored = await client.execute(b"ZSCAN", members, cursor, b"COUNT", _CANDIDATES)
        cursor, names = (following if following != b"0" else None), scored[::2]
        for start in range(0, len(names), _CANDIDATES):
            some = names[start : start + _CANDIDATES]
            keys = [record_key(each) for each in some]
            replies = await client.pipeline([(b"HGETALL", key) for key in keys])
            holding = [dict(zip(reply[::2], reply[1::2], strict=True)).get(name) == json for reply in replies]
            if not all(holding):
                await client.run_script(_PRUNE, [members, *keys], [name, json, *some])
            if any(holding):
                found = holding.index(True)
                return read_record(replies[found], keys[found])
    return None


async def find_scanning(client: RedisClient, match: bytes, field: str, value: Any) -> dict[str, Any] | None:
    """Return a record whose field holds the value, of the same type; None where there is none.

    Reads the whole key space of the server, page by page.

    :param match: a Redis glob that matches the keys of the records.
    """
    name, wanted = field_name(field), write_value(field, value)
    async with aclosing(client.scan(match)) as pages:
        async for page in pages:
            held = await client.pipeline([(b"HGET", key, name) for key in page])
            for key, json in zip(page, held, strict=True):
                if json is not None and same_value(json, wanted):
                    reply = await client.execute(b"HGETALL", key)
                    now = dict(zip(reply[::2], reply[1::2], strict=True)).get(name)
                    if now is not None and same_value(now, wanted):  # it may have changed since
                        return read_record(reply, key)
    return None
