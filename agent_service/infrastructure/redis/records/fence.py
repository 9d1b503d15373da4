"""Records as a cache of something else: fills that a write has overtaken are refused, between processes too."""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from agent_service.core.keys import name_beside
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.former_names import FormerNames, retried_without
from agent_service.infrastructure.redis.records.fields import write_record
from agent_service.infrastructure.redis.records.sets import lifetime_of
from agent_service.infrastructure.redis.scripts import Script, load_script
from agent_service.infrastructure.redis.transport.base import Argument

__all__ = ["FENCE_MARK", "LEASE_SECONDS", "RecordFence"]

FENCE_MARK: Final = b"~%"
"""What follows the common beginning of records in the name of a fence."""

LEASE_SECONDS: Final = 10.0
"""How long a writer or reader that never comes back counts as under way, unless told otherwise."""

_BEGIN = load_script("fence", "fence_begin")
_RENEW = load_script("fence", "fence_renew")
_FINISH = load_script("fence", "fence_finish")
_LEASE = load_script("fence", "fence_lease")
_FILL = load_script("fence", "fence_fill")
_HASH_TAG: Final = re.compile(rb"^[^{]*\{[^}]+\}")
_CHUNK: Final = 1000


class RecordFence:
    """Begins and finishes writes, takes leases and fills, for records by their keys.

    Atomic for each record; many records are one round trip. The fence of a record shares its slot on a cluster, is
    called ``{start}~%fence:`` and the record's key, and lives as long as the latest lease. Beside processes of earlier
    releases it stands under the name they know, too: a writer of either sort counts for the other, and breaks its
    leases.

    :param start: what the keys of all records begin with; none continues with :data:`FENCE_MARK`.
    :param lease: seconds that a writer or reader counts as under way, unless it is renewed.
    """

    def __init__(self, client: RedisClient, start: bytes, lease: float = LEASE_SECONDS) -> None:
        self.client = client
        self._lease = lifetime_of(lease)
        self.former = FormerNames.of(client, _former_name(start), f"{start.decode()}*")
        self._stem = start + FENCE_MARK + b"fence:"

    async def begin(self, keys: Collection[bytes]) -> str:
        """Delete the records, break their leases, and give the token of a write that is under way."""
        token = secrets.token_hex(8)
        await self._run(_BEGIN, keys, [(token, self._lease)] * len(keys))
        return token

    async def renew(self, token: str, keys: Collection[bytes]) -> None:
        """Have a write that is under way count for another lease; one that did not count any more begins again."""
        await self._run(_RENEW, keys, [(token, self._lease)] * len(keys))

    async def finish(self, token: str, records: Mapping[bytes, Mapping[str, Any] | None], ttl: float | None) -> int:
        """Store the records that no other writer was under way with, delete the others, and count the stored."""
        header = (token, lifetime_of(ttl))
        rows = [(*header, *(() if each is None else write_record(each))) for each in records.values()]
        return sum(await self._run(_FINISH, records, rows))

    async def lease(self, keys: Collection[bytes]) -> str:
        """Return the token of a load that is under way; it is worth nothing for records that are being written."""
        token = secrets.token_hex(8)
        await self._run(_LEASE, keys, [(token, self._lease)] * len(keys))
        return token

    async def fill(self, token: str, records: Mapping[bytes, Mapping[str, Any]], ttl: float | None) -> int:
        """Store the records whose lease stands; give how many did."""
        header = (token, lifetime_of(ttl))
        return sum(await self._run(_FILL, records, [(*header, *write_record(each)) for each in records.values()]))

    @retried_without
    async def _run(self, script: Script, keys: Collection[bytes], rows: Sequence[Sequence[Argument]]) -> list[int]:
        calls = [((key, *self._fences_of(key)), row) for key, row in zip(keys, rows, strict=True)]
        if len(calls) == 1:
            ((names, row),) = calls
            return [await self.client.run_script(script, names, row)]
        replies: list[int] = []
        for start in range(0, len(calls), _CHUNK):
            chunk = calls[start : start + _CHUNK]
            replies += await self.client.pipeline(
                [("EVAL", script.source, len(names), *names, *row) for names, row in chunk]
            )
        return replies

    def _fences_of(self, key: bytes) -> list[bytes]:
        name = name_beside(self._stem, key)
        if name is None:  # braces that no name beside it can follow
            return [_former_name(key)]
        return [name, _former_name(key)] if self.former.in_use else [name]


def _former_name(key: bytes) -> bytes:
    # What stands between the first braces is the hash tag, which alone decides the slot.
    return b"%fence:" + (key if _HASH_TAG.match(key) else b"{" + key + b"}")
