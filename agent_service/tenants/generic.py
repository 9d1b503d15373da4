"""Any values, one key each; prefer a more specific repository where one fits."""

from typing import Any, TypeVar

from pydantic import BaseModel

from agent_service.core.errors import UndecodableError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.tenants.base import DEFAULT_TTL, Seconds, TenantCache, current_redis
from agent_service.tenants.serde import dumps, loads

__all__ = ["RedisGeneric"]

Model = TypeVar("Model", bound=BaseModel)


class RedisGeneric(TenantCache):
    """Any value under any key of a tenant. A write replaces the value and renews its time to live.

    :param ttl_default: seconds.
    """

    def __init__(self, tenant: str, ttl_default: Seconds = DEFAULT_TTL) -> None:
        super().__init__(tenant, ttl_default)

    async def get(self, key: str, model: type[Model] | None = None) -> Any:
        """Return the value; None if there is none.

        :param model: the type to read it as.
        :raises UndecodableError: if the value does not fit the model.
        """
        client, keys = await current_redis()
        place = keys.generic(self.tenant, key)
        raw = await client.get(place)
        if raw is None:
            return None
        try:
            return loads(raw) if model is None else loads(raw, model)
        except UndecodableError as exc:
            raise UndecodableError(f"the value at {place[:200]!r}: {exc}") from exc

    async def set(self, key: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Store the value; return True."""
        milliseconds = to_milliseconds(self._ttl(ttl))
        client, keys = await current_redis()
        await client.execute(b"SET", keys.generic(self.tenant, key), dumps(value), b"PX", milliseconds)
        return True

    async def exists(self, key: str) -> bool:
        """Return whether there is a value; a stored None is one."""
        client, keys = await current_redis()
        return bool(await client.execute(b"EXISTS", keys.generic(self.tenant, key)))

    async def delete(self, key: str) -> int:
        """Delete the value; return 1, or 0 if there was none."""
        client, keys = await current_redis()
        return await client.unlink([keys.generic(self.tenant, key)])
