"""A writer for the code of one tenant."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["TenantWriter"]


class TenantWriter:
    """A ``SessionWriter`` as one tenant's code sees it: made by its ``for_tenant``."""

    __slots__ = ("_append", "_append_many", "tenant_id")

    def __init__(
        self,
        append: Callable[..., Awaitable[SessionMessage]],
        append_many: Callable[..., Awaitable[list[SessionMessage]]],
        tenant_id: str,
    ) -> None:
        self._append = append
        self._append_many = append_many
        self.tenant_id = tenant_id

    async def append(
        self,
        session_id: UUID | str,
        message: Mapping[str, Any],
        *,
        role: str | None = None,
        client_id: str | None = None,
        expected_seq: int | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> SessionMessage:
        """Append to a session of this tenant, as ``SessionWriter.append`` does."""
        return await self._append(
            session_id,
            message,
            role=role,
            client_id=client_id,
            expected_seq=expected_seq,
            context=context,
            tenant_id=self.tenant_id,
        )

    async def append_many(
        self,
        session_id: UUID | str,
        messages: Iterable[Mapping[str, Any]],
        *,
        role: str | Sequence[str | None] | None = None,
        client_ids: Sequence[str | None] | None = None,
    ) -> list[SessionMessage]:
        """Append to a session of this tenant, as ``SessionWriter.append_many`` does."""
        return await self._append_many(session_id, messages, role=role, client_ids=client_ids, tenant_id=self.tenant_id)
