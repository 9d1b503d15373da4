"""Users: one record each, found by id or by the value of a field."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.records.listing import find_indexed, find_scanning, is_indexed
from agent_service.tenants.base import Seconds, TenantCache, current_redis
from agent_service.tenants.keys import encode_component
from agent_service.tenants.record import ModelRecord
from agent_service.tenants.serde import Models, restore_fields, to_storable

__all__ = ["RedisUser"]

_ANY = "*"


class RedisUser(TenantCache):
    """The record of a user. Every write is atomic and lets the record live ``ttl`` or ``ttl_default`` seconds more.

    :param user_id: ``"*"`` makes a search handle, which only :meth:`find_by_field` accepts.
    :param ttl_default: seconds.
    :param indexes: fields by which :meth:`find_by_field` searches at a cost that does not grow with the number of
        users. An index only holds what instances that declare it have written, so declare it wherever users are
        written.
    """

    def __init__(self, tenant: str, user_id: str, ttl_default: Seconds = 3600, *, indexes: Sequence[str] = ()) -> None:
        super().__init__(tenant, ttl_default)
        encode_component(user_id, "user_id")
        if isinstance(indexes, str):
            raise RecordValueError(f"indexes must be a sequence of field names, not a str; write ({indexes!r},)")
        for field in indexes:
            encode_component(field, "indexes")
        self.user_id = user_id
        self.indexes = tuple(indexes)

    @classmethod
    def search(cls, tenant: str, *, indexes: Sequence[str] = ()) -> Self:
        """Return a search handle, as ``RedisUser(tenant, user_id="*")`` is."""
        return cls(tenant, _ANY, indexes=indexes)

    async def get(self, models: Models | None = None) -> dict[str, Any] | None:
        """Return the fields; None if there is no record.

        :param models: by field, the type to read it as.
        :raises UndecodableError: if a field does not fit its model.
        """
        return await (await self._record()).get(models)

    async def get_field(self, field: str) -> Any:
        """Return one field; None if there is none."""
        return await (await self._record()).get_field(field)

    async def exists(self) -> bool:
        """Return whether there is a record."""
        return await (await self._record()).exists()

    async def upsert(self, data: Mapping[str, Any], ttl: Seconds | None = None) -> bool:
        """Set these fields and leave the others; return True."""
        await (await self._record(ttl)).upsert(data)
        return True

    async def update_field(self, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Set one field; return True."""
        return await self.upsert({field: value}, ttl)

    async def delete_field(self, field: str, ttl: Seconds | None = None) -> bool:
        """Delete one field; return False if there was none. A user without fields still exists."""
        return bool(await (await self._record(ttl)).delete_fields(field))

    async def increment_field(self, field: str, by: int | float = 1, ttl: Seconds | None = None) -> int | float:
        """Add to a number, 0 if it is missing, and return the sum: an int if both are, else a float.

        :raises RecordValueError: if the field holds no number of 64 bits, or the sum would not be one.
        """
        return await (await self._record(ttl)).increment(field, by)

    async def append_to_list(self, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Append to a list, empty if it is missing; return True.

        :raises RecordValueError: if the field holds something else.
        """
        await (await self._record(ttl)).append(field, value)
        return True

    async def compare_and_set(self, field: str, expected: Any, value: Any, *, ttl: Seconds | None = None) -> bool:
        """Set a field if it holds the expected value, of the same type; None also matches a missing field."""
        return await (await self._record(ttl)).compare_and_set(field, expected, value)

    async def delete(self) -> int:
        """Delete the record; return 1, or 0 if there was none."""
        return int(await (await self._record()).delete())

    async def renew_ttl(self, ttl: Seconds | None = None) -> bool:
        """Let the record live this many seconds from now on; return False if there is none."""
        return await (await self._record(ttl)).renew()

    async def get_ttl(self) -> float | None:
        """Return the seconds left to live; None if there is no record."""
        return await (await self._record()).ttl_left()

    async def find_by_field(self, field: str, value: Any, models: Models | None = None) -> dict[str, Any] | None:
        """Return a user of this tenant whose field holds the value, of the same type; None if there is none.

        If several do, any one of them is returned. A declared index serves str, int (64 bits), bool and None;
        everything else reads the whole key space of the server, page by page.
        """
        wanted = to_storable(value)
        client, keys = await current_redis()
        users = keys.users(self.tenant)
        if field in self.indexes and is_indexed(wanted):
            index = keys.user_index(self.tenant, field)
            data = await find_indexed(client, index, field, wanted, users.__add__)
        else:
            data = await find_scanning(client, users + b"*", field, wanted)
        return None if data is None else restore_fields(data, models)

    async def _record(self, ttl: Seconds | None = None) -> ModelRecord:
        if self.user_id == _ANY:
            raise RecordValueError(
                'user_id "*" is a search handle, which only find_by_field() accepts; give the id of one user'
            )
        seconds = self._ttl(ttl)
        client, keys = await current_redis()
        return ModelRecord(
            client,
            keys.user(self.tenant, self.user_id),
            ttl=seconds,
            name=encode_component(self.user_id, "user_id").encode(),
            indexes={field: keys.user_index(self.tenant, field) for field in self.indexes},
        )
