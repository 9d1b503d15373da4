"""A writer for the code of one tenant."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agent_service.infrastructure.database.models.message import SessionMessage

if TYPE_CHECKING:
    from agent_service.infrastructure.database.append.writer import SessionWriter

__all__ = ["TenantWriter"]


class TenantWriter:
    """A :class:`SessionWriter` as one tenant's code sees it: made by :meth:`SessionWriter.for_tenant`."""

    __slots__ = ("_writer", "tenant_id")

    def __init__(self, writer: "SessionWriter", tenant_id: str) -> None:
        self._writer = writer
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
        """Append to a session of this tenant, as :meth:`SessionWriter.append` does."""
        return await self._writer.append(
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
        """Append to a session of this tenant, as :meth:`SessionWriter.append_many` does."""
        return await self._writer.append_many(
            session_id, messages, role=role, client_ids=client_ids, tenant_id=self.tenant_id
        )
