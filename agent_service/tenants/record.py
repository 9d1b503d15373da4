"""The record behind every repository: a HashRecord that also stores pydantic models and returns them."""

from collections.abc import Mapping
from typing import Any

from agent_service.core.errors import UndecodableError
from agent_service.infrastructure.redis.records.record import HashRecord
from agent_service.tenants.serde import Models, restore_fields, to_storable

__all__ = ["ModelRecord"]


class ModelRecord(HashRecord):
    """A record whose fields may hold models, stored as :mod:`agent_service.tenants.serde` describes."""

    async def get(self, models: Models | None = None) -> dict[str, Any] | None:
        """Return all fields; None if there is no record.

        :param models: by field, the type to read it as.
        :raises UndecodableError: if a field does not fit its model.
        """
        data = await super().get()
        if data is None or not models:
            return data
        try:
            return restore_fields(data, models)
        except UndecodableError as exc:
            raise UndecodableError(f"the record at {self.key[:200]!r}: {exc}") from exc

    async def set(self, data: Mapping[str, Any]) -> None:
        await super().set(_storable(data))

    async def upsert(self, data: Mapping[str, Any]) -> None:
        await super().upsert(_storable(data))

    async def merge(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return await super().merge(_storable(data))

    async def append(self, field: str, value: Any) -> None:
        await super().append(field, to_storable(value))

    async def compare_and_set(self, field: str, expected: Any, value: Any) -> bool:
        return await super().compare_and_set(field, to_storable(expected), to_storable(value))


def _storable(data: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        return data  # which the record refuses
    return {field: to_storable(value) for field, value in data.items()}
