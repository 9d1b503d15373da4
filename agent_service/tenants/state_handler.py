"""The states of conversation handlers: one record per handler and user."""

from collections.abc import Mapping
from typing import Any

from agent_service.tenants.base import Seconds, current_redis
from agent_service.tenants.named import NamedRecords
from agent_service.tenants.record import ModelRecord
from agent_service.tenants.serde import Models, restore_fields

__all__ = ["RedisStateHandler"]


class RedisStateHandler(NamedRecords):
    """The states that handlers keep for one user, by the handler's name.

    Only the given fields are stored: no handler name and no time is added.
    """

    def __init__(self, tenant: str, user_id: str, ttl_default: Seconds = 1800) -> None:
        super().__init__(tenant, user_id, ttl_default)

    async def upsert(
        self, name: str, data: Mapping[str, Any], ttl: Seconds | None = None, models: Models | None = None
    ) -> dict[str, Any]:
        """Set these fields, leave the others, and return the whole state as this write left it."""
        return restore_fields(await (await self._record(name, ttl)).merge(data), models)

    async def _record(self, name: str, ttl: Seconds | None = None) -> ModelRecord:
        seconds = self._ttl(ttl)
        client, keys = await current_redis()
        return ModelRecord(client, keys.state(self.tenant, self.user_id, name), ttl=seconds)
