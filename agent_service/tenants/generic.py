"""Values of no particular kind, one key each; where a repository fits, prefer it."""

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
        """Return the value; None where there is none.

        :param model: what to read it as.
        :raises UndecodableError: for a value that does not fit the model.
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
        """Store the value; True when done."""
        milliseconds = to_milliseconds(self._ttl(ttl))
        client, keys = await current_redis()
        await client.execute(b"SET", keys.generic(self.tenant, key), dumps(value), b"PX", milliseconds)
        return True

    async def exists(self, key: str) -> bool:
        """Whether there is a value; None is one."""
        client, keys = await current_redis()
        return bool(await client.execute(b"EXISTS", keys.generic(self.tenant, key)))

    async def delete(self, key: str) -> int:
        """Delete the value; give 1, or 0 where there was none."""
        client, keys = await current_redis()
        return await client.unlink([keys.generic(self.tenant, key)])
