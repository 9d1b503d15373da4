"""State that the tools and agents of one user share: named states, each a record."""

from collections.abc import Mapping
from typing import Any

from agent_service.infrastructure.redis.records.listing import RecordListing
from agent_service.tenants.base import DEFAULT_TTL, Seconds, current_redis
from agent_service.tenants.keys import decode_name, encode_component
from agent_service.tenants.named import NamedRecords
from agent_service.tenants.record import ModelRecord

__all__ = ["RedisSharedState"]


class RedisSharedState(NamedRecords):
    """The shared states of one user, by name."""

    def __init__(self, tenant: str, user_id: str, ttl_default: Seconds = DEFAULT_TTL) -> None:
        super().__init__(tenant, user_id, ttl_default)

    async def upsert(self, name: str, data: Mapping[str, Any], ttl: Seconds | None = None) -> bool:
        """Set these fields and leave the others; return True."""
        await (await self._record(name, ttl)).upsert(data)
        return True

    async def set_field(self, name: str, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Set one field: another name of :meth:`update_field`."""
        return await self.update_field(name, field, value, ttl)

    async def list_states(self) -> list[str]:
        """Return the names of this user's states, sorted. The cost grows with their number."""
        _, keys = await current_redis()
        listing = keys.shared_states(self.tenant, self.user_id)
        return sorted([decode_name(name, listing) for name in await (await self._listing()).names()])

    async def clear_all_states(self) -> int:
        """Delete this user's states and return how many there were. The cost grows with that number."""
        return await (await self._listing()).delete_all()

    async def _record(self, name: str, ttl: Seconds | None = None) -> ModelRecord:
        seconds, entry = self._ttl(ttl), encode_component(name, "state").encode()
        client, keys = await current_redis()
        return ModelRecord(
            client,
            keys.shared_state(self.tenant, self.user_id, name),
            ttl=seconds,
            name=entry,
            listing=keys.shared_states(self.tenant, self.user_id),
        )

    async def _listing(self) -> RecordListing:
        client, keys = await current_redis()
        listing = keys.shared_states(self.tenant, self.user_id)
        return RecordListing(
            client, listing, lambda name: keys.shared_state(self.tenant, self.user_id, decode_name(name, listing))
        )
