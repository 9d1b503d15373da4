"""Records as a cache of something else: fills that a write has overtaken are refused, between processes too."""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.lane import Argument
from agent_service.infrastructure.redis.record_fields import write_record
from agent_service.infrastructure.redis.record_sets import lifetime_of
from agent_service.infrastructure.redis.scripts import Script, load_script

__all__ = ["LEASE_SECONDS", "RecordFence"]

LEASE_SECONDS: Final = 10.0
"""How long a writer or reader that never comes back counts as under way."""

_BEGIN = load_script("fence", "fence_begin")
_FINISH = load_script("fence", "fence_finish")
_LEASE = load_script("fence", "fence_lease")
_FILL = load_script("fence", "fence_fill")
_HASH_TAG: Final = re.compile(rb"^[^{]*\{[^}]+\}")
_CHUNK: Final = 1000


class RecordFence:
    """Begins and finishes writes, takes leases and fills, for records by their keys. Holds no state.

    Atomic for each record; many records are one round trip. The fence of a record shares its slot on a cluster, is
    called ``%fence:`` and the record's key, and lives :data:`LEASE_SECONDS` at most.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def begin(self, keys: Collection[bytes]) -> str:
        """Delete the records, break their leases, and give the token of a write that is under way."""
        token = secrets.token_hex(8)
        await self._run(_BEGIN, keys, [(token, lifetime_of(LEASE_SECONDS))] * len(keys))
        return token

    async def finish(self, token: str, records: Mapping[bytes, Mapping[str, Any] | None], ttl: float | None) -> int:
        """Store the records that no other writer was under way with, delete the others, and count the stored."""
        header = (token, lifetime_of(ttl))
        rows = [(*header, *(() if each is None else write_record(each))) for each in records.values()]
        return sum(await self._run(_FINISH, records, rows))

    async def lease(self, keys: Collection[bytes]) -> str:
        """Give the token of a load that is under way; it is worth nothing for records that are being written."""
        token = secrets.token_hex(8)
        await self._run(_LEASE, keys, [(token, lifetime_of(LEASE_SECONDS))] * len(keys))
        return token

    async def fill(self, token: str, records: Mapping[bytes, Mapping[str, Any]], ttl: float | None) -> int:
        """Store the records whose lease stands; give how many did."""
        header = (token, lifetime_of(ttl))
        return sum(await self._run(_FILL, records, [(*header, *write_record(each)) for each in records.values()]))

    async def _run(self, script: Script, keys: Collection[bytes], rows: Sequence[Sequence[Argument]]) -> list[int]:
        calls = [((key, _fence_of(key)), row) for key, row in zip(keys, rows, strict=True)]
        if len(calls) == 1:
            ((names, row),) = calls
            return [await self._client.run_script(script, names, row)]
        replies: list[int] = []
        for start in range(0, len(calls), _CHUNK):
            chunk = calls[start : start + _CHUNK]
            replies += await self._client.pipeline([("EVAL", script.source, 2, *names, *row) for names, row in chunk])
        return replies


def _fence_of(key: bytes) -> bytes:
    # What stands between the first braces is the hash tag, which alone decides the slot.
    return b"%fence:" + (key if _HASH_TAG.match(key) else b"{" + key + b"}")
