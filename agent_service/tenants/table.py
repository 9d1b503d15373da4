"""Tables: one record per table and primary key."""

from collections.abc import Mapping
from typing import Any

from agent_service.infrastructure.redis.records.listing import RecordListing, find_scanning
from agent_service.tenants.base import DEFAULT_TTL, Seconds, TenantCache, current_redis
from agent_service.tenants.keys import decode_name, encode_component
from agent_service.tenants.record import ModelRecord
from agent_service.tenants.serde import Models, restore_fields, to_storable

__all__ = ["RedisTable"]


class RedisTable(TenantCache):
    """The tables of a tenant. Every write is atomic and renews the row's time to live.

    :param ttl_default: seconds.
    """

    def __init__(self, tenant: str, ttl_default: Seconds = DEFAULT_TTL) -> None:
        super().__init__(tenant, ttl_default)

    async def get(self, table: str, pk: str, models: Models | None = None) -> dict[str, Any] | None:
        """Return a row; None if there is none.

        :param models: by field, the type to read it as.
        :raises UndecodableError: if a field does not fit its model.
        """
        return await (await self._record(table, pk)).get(models)

    async def get_field(self, table: str, pk: str, field: str) -> Any:
        """Return one field; None if there is none."""
        return await (await self._record(table, pk)).get_field(field)

    async def exists(self, table: str, pk: str) -> bool:
        """Return whether there is such a row; an empty one counts."""
        return await (await self._record(table, pk)).exists()

    async def set(self, table: str, pk: str, row: Mapping[str, Any], ttl: Seconds | None = None) -> bool:
        """Replace the row; return True."""
        await (await self._record(table, pk, ttl)).set(row)
        return True

    async def upsert(self, table: str, pk: str, row: Mapping[str, Any], ttl: Seconds | None = None) -> bool:
        """Set these fields and leave the others; return True."""
        await (await self._record(table, pk, ttl)).upsert(row)
        return True

    async def update_field(self, table: str, pk: str, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Set one field; return True."""
        return await self.upsert(table, pk, {field: value}, ttl)

    async def delete_field(self, table: str, pk: str, field: str, ttl: Seconds | None = None) -> bool:
        """Delete one field; return False if there was none. A row without fields still exists."""
        return bool(await (await self._record(table, pk, ttl)).delete_fields(field))

    async def increment_field(
        self, table: str, pk: str, field: str, by: int | float = 1, ttl: Seconds | None = None
    ) -> int | float:
        """Add to a number, 0 if it is missing, and return the sum: an int if both are, else a float.

        :raises RecordValueError: if the field holds no number of 64 bits, or the sum would not be one.
        """
        return await (await self._record(table, pk, ttl)).increment(field, by)

    async def append_to_list(self, table: str, pk: str, field: str, value: Any, ttl: Seconds | None = None) -> bool:
        """Append to a list, empty if it is missing; return True.

        :raises RecordValueError: if the field holds something else.
        """
        await (await self._record(table, pk, ttl)).append(field, value)
        return True

    async def compare_and_set(
        self, table: str, pk: str, field: str, expected: Any, value: Any, *, ttl: Seconds | None = None
    ) -> bool:
        """Set a field if it holds the expected value, of the same type; None also matches a missing field."""
        return await (await self._record(table, pk, ttl)).compare_and_set(field, expected, value)

    async def delete(self, table: str, pk: str) -> int:
        """Delete the row; return 1, or 0 if there was none."""
        return int(await (await self._record(table, pk)).delete())

    async def delete_all_by_pkid(self, pk: str) -> int:
        """Delete the rows of this primary key from all tables; return how many. The cost grows with that number."""
        encode_component(pk, "pk")
        client, keys = await current_redis()
        tables = keys.row_tables(self.tenant, pk)
        listing = RecordListing(client, tables, lambda name: keys.table_row(self.tenant, decode_name(name, tables), pk))
        return await listing.delete_all()

    async def find_by_field(
        self, table: str, field: str, value: Any, models: Models | None = None
    ) -> dict[str, Any] | None:
        """Return a row of the table whose field holds the value, of the same type; None if there is none.

        If several do, any one of them is returned. Reads the whole key space of the server, page by page.
        """
        client, keys = await current_redis()
        data = await find_scanning(client, keys.table_rows(self.tenant, table), field, to_storable(value))
        return None if data is None else restore_fields(data, models)

    async def renew_ttl(self, table: str, pk: str, ttl: Seconds | None = None) -> bool:
        """Let the row live this many seconds from now on; return False if there is none."""
        return await (await self._record(table, pk, ttl)).renew()

    async def get_ttl(self, table: str, pk: str) -> float | None:
        """Return the seconds left to live; None if there is no row."""
        return await (await self._record(table, pk)).ttl_left()

    async def _record(self, table: str, pk: str, ttl: Seconds | None = None) -> ModelRecord:
        seconds, name = self._ttl(ttl), encode_component(table, "table").encode()
        client, keys = await current_redis()
        return ModelRecord(
            client,
            keys.table_row(self.tenant, table, pk),
            ttl=seconds,
            name=name,
            listing=keys.row_tables(self.tenant, pk),
        )
