"""Queues of work, per tenant and service: an item stays until a worker acknowledges or trims it.

A replica of Redis that takes over may lack the latest changes: then acknowledged items come back, or items are lost.

All keys of a service share a slot, so that every operation is one script. The script also maintains two indexes: which
queues of a tenant hold items or claims, and which tenants have such queues. Nothing here has a time to live.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from agent_service.core.errors import RecordValueError, UndecodableError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.infrastructure.redis.scripts import Script, load_script
from agent_service.infrastructure.redis.transport.base import Argument
from agent_service.tenants.base import Seconds, TenantCache, check_ttl, current_redis
from agent_service.tenants.keys import decode_name, encode_component
from agent_service.tenants.serde import dumps, loads

__all__ = ["BatchClaim", "RedisBatch"]

logger = logging.getLogger("agent_service.tenants")

_ENQUEUE = load_script("batch", "batch_enqueue")
_CHUNK = load_script("batch", "batch_chunk")
_TRIM = load_script("batch", "batch_trim")
_LENGTH = load_script("batch", "batch_length")
_CLAIM = load_script("batch", "batch_claim")
_ACK = load_script("batch", "batch_ack")
_LEAVE = load_script("batch_leave")

_ID_LENGTH: Final = 32
MAX_CLAIM: Final = 100_000
"""The most items that one call may claim; a script that takes more would block the server for others."""


@dataclass(frozen=True, slots=True)
class BatchClaim:
    """An item that one worker holds until it is acknowledged or its visibility timeout is over."""

    id: str
    payload: Any
    queue: tuple[str, str, str] = field(repr=False)
    """Service, entity key and action."""
    member: bytes = field(repr=False)
    """The claim as stored in Redis."""


class RedisBatch(TenantCache):
    """The queues of one tenant, each named by ``service``, ``entity_key`` and ``action``.

    ``claim`` and ``ack`` are for several workers: one worker at a time gets an item, and another one gets it if it is
    not acknowledged within its visibility timeout (by the clock of Redis). ``get_chunk`` and ``trim`` are for a single
    worker: it reads, works, and drops what it has done. They do not see claimed items.

    A tenant is pending from the first ``enqueue`` until ``remove_from_pending`` finds all its queues of the service
    empty, claims included.

    :raises RecordValueError: if a name, number or payload cannot be used; nothing was changed then.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(tenant)

    async def enqueue(self, service: str, entity_key: str, action: str, payload: Any) -> int:
        """Append an item: any value that :func:`dumps` writes. Return how many unclaimed items there are then."""
        item = dumps(payload)
        return int(await self._run(_ENQUEUE, (service, entity_key, action), item))

    async def get_chunk(self, service: str, entity_key: str, action: str, start: int, end: int) -> list[Any]:
        """Return unclaimed items from position ``start`` to ``end``, both included; -1 is the last one."""
        items = await self._run(_CHUNK, (service, entity_key, action), _index("start", start), _index("end", end))
        return [self._load(item, (service, entity_key, action)) for item in items]

    async def trim(self, service: str, entity_key: str, action: str, start: int, end: int) -> int:
        """Keep unclaimed items from ``start`` to ``end``, both included, and drop the others; return how many."""
        return int(await self._run(_TRIM, (service, entity_key, action), _index("start", start), _index("end", end)))

    async def get_length(self, service: str, entity_key: str, action: str) -> int:
        """Return how many unclaimed items there are."""
        return int(await self._run(_LENGTH, (service, entity_key, action)))

    async def claim(
        self, service: str, entity_key: str, action: str, count: int = 1, visibility: Seconds = 30.0
    ) -> list[BatchClaim]:
        """Claim the first items for this caller; fewer, or none, if there are not so many.

        Items that this package did not write are left out and logged; they return to the head after ``visibility``.

        :param count: the most items to claim, up to 100,000.
        :param visibility: seconds after which what is not acknowledged goes back to the head of the queue.
        :raises UndecodableError: if all claimed items were written by another program; it names the queue.
        """
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_CLAIM:
            raise RecordValueError(f"count must be an int from 1 to {MAX_CLAIM}, got {count!r:.80}")
        milliseconds = to_milliseconds(check_ttl(visibility, "visibility"))
        queue = (service, entity_key, action)
        members = await self._run(_CLAIM, queue, uuid4().hex[:24], count, milliseconds)
        claims: list[BatchClaim] = []
        unreadable: UndecodableError | None = None
        for member in members:
            try:
                payload = self._load(member[_ID_LENGTH:], queue)
            except UndecodableError as exc:
                unreadable = exc
            else:
                claims.append(BatchClaim(member[:_ID_LENGTH].decode(), payload, queue, member))
        if unreadable is not None:
            if not claims:
                raise unreadable
            logger.error("%s; it stays claimed until its visibility timeout is over", unreadable)
        return claims

    def _load(self, item: bytes, queue: tuple[str, str, str]) -> Any:
        try:
            return loads(item)
        except UndecodableError as exc:
            raise UndecodableError(f"an item of the queue {queue!r:.300} of tenant {self.tenant!r:.80}: {exc}") from exc

    async def ack(self, claims: Iterable[BatchClaim]) -> int:
        """Remove claimed items for good; return how many of the claims were still valid.

        An expired claim is still valid if nobody has claimed from its queue since. Otherwise its item is back in the
        queue, or claimed by another worker, and stays.
        """
        queues: dict[tuple[str, str, str], list[bytes]] = {}
        for each in claims:
            queues.setdefault(each.queue, []).append(each.member)
        return sum([int(await self._run(_ACK, queue, *members)) for queue, members in queues.items()])

    async def _run(self, script: Script, queue: tuple[str, str, str], *args: Argument) -> Any:
        service, *names = queue
        client, keys = await current_redis()
        tag, tenant = [("service", service)], ("tenant", self.tenant)
        rest = [tenant, *zip(("entity_key", "action"), names, strict=True)]
        lists = [keys.key(kind, tag, *rest) for kind in ("batch", "batch_claims")]
        books = [keys.key("batch_queues", tag, tenant), keys.key("batch_pending", tag)]
        name = ":".join([encode_component(value, what) for what, value in rest[1:]])
        return await client.run_script(script, [*lists, *books], [name, encode_component(self.tenant, "tenant"), *args])

    @classmethod
    async def get_pending_tenants(cls, service: str) -> set[str]:
        """Return the tenants that may have work for the service. The cost grows with their number."""
        client, keys = await current_redis()
        key = keys.key("batch_pending", [("service", service)])
        return {decode_name(member, key) for member in await client.execute(b"SMEMBERS", key)}

    @classmethod
    async def remove_from_pending(cls, service: str, tenant: str) -> bool:
        """Remove a tenant from the pending ones if none of its queues of the service holds an item or a claim.

        Atomic: an ``enqueue`` at the same time either keeps the tenant pending or makes it pending again.

        :returns: whether the tenant was removed; False: it has work.
        """
        client, keys = await current_redis()
        tag = [("service", service)]
        books = [keys.key("batch_queues", tag, ("tenant", tenant)), keys.key("batch_pending", tag)]
        return bool(await client.run_script(_LEAVE, books, [encode_component(tenant, "tenant")]))


def _index(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise RecordValueError(f"{name} must be an int, a position in the queue, got {value!r:.80}")
    return value
