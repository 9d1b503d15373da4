"""Redis commands as typed functions, on the Redis of the live runtime, else on that of REDIS_URL.

Keys are physical: nothing is put before them, so name them apart from ``{CACHE_KEY_PREFIX}:...``. Values go in as text,
bytes or numbers and come out as bytes. Each function is one atomic command or transaction, and raises
:class:`~agent_service.core.errors.RedisOperationError` kinds: an outage never looks like a missing key.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TypeAlias

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.source import get_record_redis
from agent_service.infrastructure.redis.time_to_live import lifetime_of, seconds_left

__all__ = [
    "delete",
    "exists",
    "expire",
    "get",
    "get_many",
    "hash_delete",
    "hash_get",
    "hash_get_all",
    "hash_increment",
    "hash_set",
    "increment",
    "list_append",
    "list_length",
    "list_range",
    "list_trim",
    "set",
    "ttl",
]

Value: TypeAlias = str | bytes | int | float


async def get(key: str) -> bytes | None:
    """Return the string at a key; None where there is none."""
    reply: bytes | None = await (await _client()).execute("GET", key)
    return reply


async def get_many(keys: Sequence[str]) -> list[bytes | None]:
    """Return the strings at the keys in their order; None for what is missing."""
    return await (await _client()).get_many([key.encode() for key in keys])


async def set(  # noqa: A001 - the command's name; callers write ops.set
    key: str, value: Value, *, ttl: float | None = None, only_if_missing: bool = False
) -> bool:
    """Store a string; return False where it was not stored, because the key exists and ``only_if_missing`` is set.

    :param ttl: seconds; None: it does not expire.
    """
    expiry = ("PX", _milliseconds(ttl)) if ttl is not None else ()
    condition = ("NX",) if only_if_missing else ()
    return await (await _client()).execute("SET", key, value, *expiry, *condition) is not None


async def delete(*keys: str) -> int:
    """Delete keys; return how many there were."""
    return await (await _client()).unlink([key.encode() for key in keys])


async def exists(key: str) -> bool:
    """Return whether a key exists."""
    return bool(await (await _client()).execute("EXISTS", key))


async def expire(key: str, seconds: float) -> bool:
    """Set the seconds a key has to live from now on; return False where there is none."""
    return bool(await (await _client()).execute("PEXPIRE", key, _milliseconds(seconds)))


async def ttl(key: str) -> float | None:
    """Return the seconds a key has left: infinity where it does not expire, None where there is no key."""
    return seconds_left(await (await _client()).execute("PTTL", key))


async def increment(key: str, amount: int = 1) -> int:
    """Add to the integer at a key, 0 where it is missing; return the sum."""
    return int(await (await _client()).execute("INCRBY", key, amount))


async def hash_get(key: str, field: str) -> bytes | None:
    """Return a field of a hash; None where there is none."""
    reply: bytes | None = await (await _client()).execute("HGET", key, field)
    return reply


async def hash_get_all(key: str) -> dict[bytes, bytes]:
    """Return all fields of a hash; an empty dict where there is none."""
    reply: list[bytes] = await (await _client()).execute("HGETALL", key)
    return dict(zip(reply[::2], reply[1::2], strict=True))


async def hash_set(key: str, fields: Mapping[str, Value], *, ttl: float | None = None) -> int:
    """Set fields of a hash and leave the others; return how many are new.

    :param fields: at least one.
    :param ttl: seconds the hash lives from now on, set in the same transaction; None: as before.
    """
    command = ("HSET", key, *chain.from_iterable(fields.items()))
    expiry = [] if ttl is None else [("PEXPIRE", key, _milliseconds(ttl))]
    return int((await (await _client()).pipeline([command, *expiry], atomic=True))[0])


async def hash_increment(key: str, field: str, amount: int = 1) -> int:
    """Add to the integer in a field of a hash, 0 where it is missing; return the sum."""
    return int(await (await _client()).execute("HINCRBY", key, field, amount))


async def hash_delete(key: str, *fields: str) -> int:
    """Delete fields of a hash; return how many there were."""
    return int(await (await _client()).execute("HDEL", key, *fields))


async def list_append(key: str, *values: Value) -> int:
    """Append to a list; return its length."""
    return int(await (await _client()).execute("RPUSH", key, *values))


async def list_range(key: str, start: int = 0, end: int = -1) -> list[bytes]:
    """Return the items from ``start`` to ``end``, both included; negative positions count from the end."""
    return list(await (await _client()).execute("LRANGE", key, start, end))


async def list_trim(key: str, start: int, end: int) -> None:
    """Keep only the items from ``start`` to ``end``, both included."""
    await (await _client()).execute("LTRIM", key, start, end)


async def list_length(key: str) -> int:
    """Return the number of items in a list."""
    return int(await (await _client()).execute("LLEN", key))


async def _client() -> RedisClient:
    return (await get_record_redis()).client


def _milliseconds(seconds: float) -> int:
    if not 0 < seconds < float("inf"):
        raise RecordValueError(f"a time to live must be a finite number of seconds above 0, got {seconds!r:.80}")
    return lifetime_of(seconds)
