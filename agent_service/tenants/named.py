"""The base of repositories that keep several named records for one user."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from agent_service.tenants.base import Seconds, TenantCache
from agent_service.tenants.keys import encode_component
from agent_service.tenants.record import ModelRecord
from agent_service.tenants.serde import Models

__all__ = ["NamedRecords"]


class NamedRecords(TenantCache, ABC):
    """Records of one user by name. Every write is atomic and renews the record's time to live.

    :param user_id: any text that is not empty.
    :param ttl_default: seconds.
    """

    def __init__(self, tenant: str, user_id: str, ttl_default: Seconds) -> None:
        super().__init__(tenant, ttl_default)
        encode_component(user_id, "user_id")
        self.user_id = user_id

    async def get(self, name: str, models: Models | None = None) -> dict[str, Any] | None:
        """Return a state; None if there is none.

        :param models: by field, the type to read it as.
        :raises UndecodableError: if a field does not fit its model.
        """
        return await (await self._record(name)).get(models)

    async def get_field(self, name: str, field: str) -> Any:
        """Return one field; None if there is none."""
        return await (await self._record(name)).get_field(field)

    async def exists(self, name: str) -> bool:
        """Return whether there is such a state; an empty one counts."""
        return await (await self._record(name)).exists()

    async def set(self, name: str, data: Mapping[str, Any], ttl: Seconds | None = None) -> bool:
        """Replace the state; return True."""
        await (await self._record(name, ttl)).set(data)
        return True

    async def update_field(self, name: str, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Set one field; return True."""
        await (await self._record(name, ttl)).upsert({field: value})
        return True

    async def delete_field(self, name: str, field: str, ttl: Seconds | None = None) -> bool:
        """Delete one field; return False if there was none. A state without fields still exists."""
        return bool(await (await self._record(name, ttl)).delete_fields(field))

    async def increment_field(
        self, name: str, field: str, by: int | float = 1, ttl: Seconds | None = None
    ) -> int | float:
        """Add to a number, 0 if it is missing, and return the sum: an int if both are, else a float.

        :raises RecordValueError: if the field holds no number of 64 bits, or the sum would not be one.
        """
        return await (await self._record(name, ttl)).increment(field, by)

    async def append_to_list(self, name: str, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Append to a list, empty if it is missing; return True.

        :raises RecordValueError: if the field holds something else.
        """
        await (await self._record(name, ttl)).append(field, value)
        return True

    async def compare_and_set(
        self, name: str, field: str, expected: Any, value: Any, *, ttl: Seconds | None = None
    ) -> bool:
        """Set a field if it holds the expected value, of the same type; None also matches a missing field."""
        return await (await self._record(name, ttl)).compare_and_set(field, expected, value)

    async def delete(self, name: str) -> int:
        """Delete the state; return 1, or 0 if there was none."""
        return int(await (await self._record(name)).delete())

    async def renew_ttl(self, name: str, ttl: Seconds | None = None) -> bool:
        """Let the state live this many seconds from now on; return False if there is none."""
        return await (await self._record(name, ttl)).renew()

    async def get_ttl(self, name: str) -> float | None:
        """Return the seconds left to live; None if there is no state."""
        return await (await self._record(name)).ttl_left()

    @abstractmethod
    async def _record(self, name: str, ttl: Seconds | None = None) -> ModelRecord:
        """Return the record of this name; ``ttl`` is the caller's."""
