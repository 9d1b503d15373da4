"""Whole records: reading and writing many at once, and replacing one on a condition."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.records.fields import read_record, read_value, write_record, write_value
from agent_service.infrastructure.redis.scripts import RECORD_PUT, load_script
from agent_service.infrastructure.redis.time_to_live import lifetime_of
from agent_service.infrastructure.redis.transport.base import Argument

__all__ = ["exchange_record", "lifetime_of", "read_record_with_ttl", "read_records", "withdraw_record", "write_records"]

_EXCHANGE = load_script("record_exchange")
_PUT_MANY = load_script("record_put_many")
_CHUNK: Final = 1000


async def read_records(client: RedisClient, keys: Sequence[bytes]) -> list[dict[str, Any] | None]:
    """Return the records at the keys in their order, a thousand a round trip; None where there is none."""
    records: list[dict[str, Any] | None] = []
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        records += map(read_record, await client.pipeline([(b"HGETALL", key) for key in chunk]), chunk)
    return records


async def write_records(client: RedisClient, records: Mapping[bytes, Mapping[str, Any]], ttl: float | None) -> None:
    """Store records, replacing any others, in one round trip: one transaction, on a cluster one for each record.

    :param ttl: seconds; None: they do not expire.
    :raises RecordValueError: for a record that cannot be written; then none is.
    """
    lifetime = lifetime_of(ttl)
    pairs = {key: write_record(record) for key, record in records.items()}
    if client.is_cluster:
        header = (lifetime, b"", 0, b"replace")
        await client.pipeline([("EVAL", RECORD_PUT.source, 1, key, *header, *each) for key, each in pairs.items()])
        return
    arguments: list[Argument] = [lifetime]
    for each in pairs.values():
        arguments.append(len(each))
        arguments += each
    if pairs:
        await client.run_script(_PUT_MANY, list(pairs), arguments)


async def exchange_record(
    client: RedisClient,
    key: bytes,
    record: Mapping[str, Any],
    *,
    expected: Mapping[str, Any] | None,
    ttl: float | None,
) -> bool:
    """Replace the present record if it is as expected; return whether it was.

    :param expected: fields that the present record must hold, compared as they are written here; None: there must be
        no record.
    :param ttl: seconds; None: it does not expire.
    :raises UndecodableError: for a field to compare that another program wrote.
    """
    return await _exchange(client, key, lifetime_of(ttl), expected, write_record(record))


async def withdraw_record(client: RedisClient, key: bytes, *, expected: Mapping[str, Any]) -> bool:
    """Remove a record if it holds these fields, compared as they are written here; return whether it did.

    :raises UndecodableError: for a field to compare that another program wrote.
    """
    return await _exchange(client, key, 0, expected, [])


async def _exchange(
    client: RedisClient, key: bytes, lifetime: int, expected: Mapping[str, Any] | None, new: Sequence[bytes]
) -> bool:
    wanted = write_record(expected) if expected else []
    header: tuple[int, int] = (lifetime, -1 if expected is None else len(expected))
    held = await client.run_script(_EXCHANGE, [key], [*header, *wanted, *new])
    while isinstance(held, list):  # another program may write the same values differently, with blanks for instance
        names = wanted[::2]
        if not all(map(_means, held, wanted[1::2], names, repeat(key))):
            return False
        wanted = [part for pair in zip(names, held, strict=True) for part in pair]
        held = await client.run_script(_EXCHANGE, [key], [*header, *wanted, *new])
    return bool(held)


def _means(held: bytes, wanted: bytes, name: bytes, key: bytes) -> bool:
    """Return whether what a field holds would be written as wanted."""
    if held == wanted:
        return True
    try:
        return write_value("", read_value(held, key, name)) == wanted
    except RecordValueError:
        return False


async def read_record_with_ttl(client: RedisClient, key: bytes) -> tuple[dict[str, Any], float | None] | None:
    """Return the record at a key and the seconds it has left (None: it does not expire); None where there is none."""
    fields, left = await client.pipeline([(b"HGETALL", key), (b"PTTL", key)], atomic=True)
    record = read_record(fields, key)
    return None if record is None else (record, None if left < 0 else left / 1000)
