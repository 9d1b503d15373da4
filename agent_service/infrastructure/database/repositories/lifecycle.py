"""Many sessions at once: setting their status, and completing expired ones."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Update, func, literal, update

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.queries.expiry import expire
from agent_service.infrastructure.database.queries.locks import where_in_order
from agent_service.infrastructure.database.queries.scope import visible
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.values.validation import require_session_id

__all__ = ["SessionLifecycle"]

# Drivers take at most 32,766 parameters in a statement.
_IDS_PER_STATEMENT: Final = 10_000

_CHANGED: Final = (Session.id, Session.status, Session.completed_at, Session.updated_at, Session.version)


class SessionLifecycle(RepositoryBase):
    """The part of the repository that ends and reopens sessions."""

    async def bulk_update_session_status(self, session_ids: Iterable[UUID | str], status: SessionStatus | str) -> int:
        """Set the status of many sessions, and ``completed_at`` with it.

        :return: how many of them exist.
        :raises SessionValueError: if an id or the status is invalid; nothing was changed.
        """
        wanted = SessionStatus.parse(status)
        if isinstance(session_ids, str | bytes) or not isinstance(session_ids, Iterable):
            raise SessionValueError(f"session_ids must be a list of UUIDs, got {session_ids!r:.80}")
        ids = sorted({require_session_id(each, f"session_ids[{index}]") for index, each in enumerate(session_ids)})
        changed = 0
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            changed += await self._run(self._set_status(ids[start : start + _IDS_PER_STATEMENT], wanted))
        return changed

    def _set_status(self, ids: list[UUID], status: SessionStatus) -> Update:
        now = self._now()
        completed_at: Any = None
        if status is not SessionStatus.ACTIVE:
            completed_at = func.coalesce(Session.completed_at, literal(now, Session.completed_at.type))
        change = update(Session).values(
            status=status, completed_at=completed_at, updated_at=now, version=Session.version + 1
        )
        return where_in_order(self._dialect(), change, *visible(self._tenant_id), Session.id.in_(ids))

    async def cleanup_expired_sessions(self) -> int:
        """Complete the tenant's active sessions whose ``expires_at`` has passed, in the caller's transaction.

        ``run_cleanup`` does it for all tenants, on a schedule and in short transactions of its own.

        :return: how many were completed; a second call gives 0.
        """
        with database_errors("update sessions"):
            now = await self._database_now()
        return await self._run(expire(self._dialect(), now, Session.tenant_id == self._tenant_id))

    async def _run(self, statement: Update) -> int:
        returning = statement.returning(*_CHANGED).execution_options(synchronize_session=False)
        with database_errors("update sessions"):
            rows = (await self._db.execute(returning)).all()
        for row in rows:
            self._note(row.id, row._asdict())
        return len(rows)
