"""Messages that come from elsewhere, stored with the moments that they had there."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.append.message import PendingMessage
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import of_tenant

__all__ = ["Arrival"]

_MESSAGES: Final = 200
_CHARACTERS: Final = 2_000_000
"""Messages, and characters of their JSON, that are in memory at once."""


class Arrival:
    """Adds messages to a session that nobody else appends to meanwhile: one that is new or locked in this transaction.

    Nothing is complete before :meth:`finish`.

    :param known: client ids that the session has already.
    """

    def __init__(self, db: AsyncSession, session: Session, *, known: Iterable[str] = ()) -> None:
        self.session = session
        self._db = db
        self._rows: list[dict[str, Any]] = []
        self._client_ids = set(known)
        self._characters = 0
        self._count, self._tokens = session.total_messages, session.total_tokens

    async def take(self, message: PendingMessage, *, seq: int, created_at: datetime) -> None:
        """Store a message. Where a client id comes twice, as a fork may show it, the first message keeps it."""
        client_id = None if message.client_id in self._client_ids else message.client_id
        if client_id is not None:
            self._client_ids.add(client_id)
        self._rows.append(
            {
                "session_id": self.session.id,
                "seq": seq,
                "client_id": client_id,
                "role": message.role,
                "content": message.search_text,
                "data": message.data,
                "token_count": message.token_count,
                "created_at": created_at,
                "tenant_id": self.session.tenant_id,
            }
        )
        self._count += 1
        self._tokens += message.token_count or 0
        self._characters += len(message.text)
        if len(self._rows) == _MESSAGES or self._characters > _CHARACTERS:
            await self._store()

    async def finish(self, **values: Any) -> dict[str, Any]:
        """Store the remaining messages, the counters, and further values of the session; return what was set."""
        await self._store()
        values |= {"total_messages": self._count, "total_tokens": self._tokens}
        with database_errors("import a session"):
            await self._db.execute(
                update(Session).where(*of_tenant(self.session.tenant_id, self.session.id)).values(**values),
                execution_options={"synchronize_session": False},
            )
        return values

    async def _store(self) -> None:
        if self._rows:
            with database_errors("import messages"):
                await self._db.execute(insert(SessionMessage.__table__), self._rows)  # type: ignore[arg-type]
            self._rows, self._characters = [], 0
