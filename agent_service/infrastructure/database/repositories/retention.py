"""Deleting sessions: hiding them, restoring them, and removing them for good."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, select, update

from agent_service.infrastructure.database.checkpoints.retention import remove_threads_of_user
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.maintenance.removal import (
    lock_with_family,
    remove_sessions,
    try_lock_families,
)
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.retention import purgeable
from agent_service.infrastructure.database.queries.scope import of_tenant, one
from agent_service.infrastructure.database.queries.session_keys import SessionKey
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.values.validation import (
    require_count,
    require_identifier,
    require_retention,
    require_session_id,
)

__all__ = ["MAX_PURGE", "SessionRetention"]

MAX_PURGE: Final = 10_000
"""Most sessions one statement removes."""


class SessionRetention(RepositoryBase):
    """The part of the repository that deletes.

    Forks keep what they show of a session that is removed for good: only then are those messages copied.
    """

    async def delete(self, session_id: UUID | str, *, hard: bool = False) -> bool:
        """Hide a session from every method, or with ``hard`` remove it and its messages for good (hidden ones too).

        :return: whether there was one.
        """
        key = require_session_id(session_id)
        if hard:
            return bool(await self._remove_all(Session.id == key))
        with database_errors("delete a session"):
            now = await self._database_now()
        return await self._mark(
            update(Session).where(*one(self._tenant_id, key)).values(deleted_at=now, updated_at=now)
        )

    async def restore(self, session_id: UUID | str) -> bool:
        """Restore a hidden session; it may have expired meanwhile.

        :return: whether there was a hidden one.
        """
        hidden = (*of_tenant(self._tenant_id, require_session_id(session_id)), Session.deleted_at.is_not(None))
        return await self._mark(update(Session).where(*hidden).values(deleted_at=None, updated_at=self._now()))

    async def purge_deleted(self, older_than: timedelta | datetime, batch_size: int = 1000) -> int:
        """Remove sessions for good that were hidden long enough ago, the longest hidden first, until none is left.

        Batch by batch, in the caller's transaction, which commits or rolls back what was removed. Cancelling it ends it
        between two batches, or undoes the batch under way. Sessions that another transaction has locked are skipped.
        ``run_cleanup(purge_after=...)`` removes in short transactions of its own, for all tenants.

        :param older_than: a retention time, or the moment before which they must have been hidden.
        :param batch_size: most sessions that one statement removes, 1 to 10,000.
        :return: how many were removed.
        """
        require_retention(older_than, "older_than", self._now())
        size = require_count(batch_size, "batch_size", most=MAX_PURGE)
        scope = (Session.tenant_id == self._tenant_id,)
        removed = 0
        with database_errors("purge deleted sessions"):
            before = require_retention(older_than, "older_than", await self._database_now())
            while True:
                due = (await self._db.execute(purgeable(self._dialect(), before, size, *scope))).all()
                gone = await remove_sessions(self._db, await try_lock_families(self._db, due))
                removed += gone
                if len(due) < size or not gone:
                    return removed

    async def erase_user(self, user_id: UUID | str) -> int:
        """Remove everything of a user for good: all sessions, hidden ones too, with messages and contexts.

        Threads of checkpoints that name the user are removed as well.

        What another user's fork shows of them stays with that user. All or nothing, in the caller's
        transaction, in statements of bounded work. For a user with very much data, ``erase_user(database, ...)`` uses
        short transactions.

        :return: how many sessions there were.
        """
        user = require_identifier(user_id, "user_id")
        with database_errors("remove threads of a user"):
            await remove_threads_of_user(self._db, self._tenant_id, user)
        return await self._remove_all(Session.user_id == user_id)

    async def _remove_all(self, *scope: ColumnElement[bool]) -> int:
        removed, own = 0, Session.tenant_id == self._tenant_id
        with database_errors("remove sessions"):
            while True:
                some = (await self._db.scalars(select(Session.id).where(own, *scope).limit(MAX_PURGE))).all()
                keys = [SessionKey(self._tenant_id, each) for each in some]
                removed += await remove_sessions(self._db, await lock_with_family(self._db, keys, own, *scope))
                if len(keys) < MAX_PURGE:
                    return removed

    async def _mark(self, statement: Any) -> bool:
        with database_errors("delete or restore a session"):
            result: Any = await self._db.execute(statement, execution_options={"synchronize_session": "fetch"})
        return bool(result.rowcount)
