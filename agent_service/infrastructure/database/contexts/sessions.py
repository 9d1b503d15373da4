"""The contexts of sessions by session id, each call in a transaction of its own."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionNotFoundError
from agent_service.core.fixed import plain
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.context import lock
from agent_service.infrastructure.database.queries.scope import one, visible
from agent_service.infrastructure.database.transactions.factories import SessionFactory, require_async_sessions
from agent_service.infrastructure.database.transactions.isolation import read_committed
from agent_service.infrastructure.database.transactions.own_sessions import accept_session
from agent_service.infrastructure.database.transactions.tenants import serve_tenant
from agent_service.infrastructure.database.values.documents import encode_document

__all__ = ["SessionContexts"]

Context = dict[str, Any]


class SessionContexts:
    """Reads and replaces ``sessions.context``; every change counts the session's version up.

    :param sessions: gives an AsyncSession to enter.
    :param tenant_id: whose sessions these are.
    :raises SessionValueError: the factory cannot be used.
    """

    def __init__(self, sessions: SessionFactory, tenant_id: str) -> None:
        self._sessions = require_async_sessions(sessions)
        self._tenant_id = tenant_id

    async def read(self, ids: Collection[UUID]) -> dict[UUID, Context]:
        """Return the contexts of those sessions that exist."""
        statement = select(Session.id, Session.context).where(*visible(self._tenant_id), Session.id.in_(ids))
        async with self._transaction("read session contexts") as db:
            return {id_: plain(context) for id_, context in await db.execute(statement)}

    async def change(self, changes: Mapping[UUID, Callable[[Context], Context | None]]) -> None:
        """Apply to each context its change (which returns None to leave it) while the row is locked; all or none.

        :raises SessionNotFoundError: one of the sessions is not there.
        :raises SessionValueError: a value cannot be kept.
        """
        async with self._transaction("change a session context") as db:
            for id_ in sorted(changes):  # always in this order, so that two transactions never wait in a circle
                row = (await db.execute(lock(self._tenant_id, id_, None))).first()
                if row is None:
                    raise SessionNotFoundError(f"there is no session {id_}; create it before it is given a context")
                context = changes[id_](plain(row.context))
                if context is None:
                    await db.rollback()
                    return
                encode_document(context, "context", nul=False)
                await db.execute(self._replace(id_, context))
            await db.commit()

    async def clear(self, ids: Collection[UUID]) -> int:
        """Empty the contexts of those sessions that exist; return how many."""
        async with self._transaction("clear session contexts") as db:
            cleared = 0
            for id_ in sorted(ids):
                if (await db.execute(lock(self._tenant_id, id_, None))).first() is not None:
                    await db.execute(self._replace(id_, {}))
                    cleared += 1
            await db.commit()
        return cleared

    async def ids(self) -> list[UUID]:
        """Return the ids of all sessions of the tenant."""
        async with self._transaction("list sessions") as db:
            return list(await db.scalars(select(Session.id).where(*visible(self._tenant_id))))

    def _replace(self, id_: UUID, context: Context) -> Any:
        return (
            update(Session)
            .where(*one(self._tenant_id, id_))
            .values(context=context)
            .execution_options(synchronize_session=False)
        )

    @asynccontextmanager
    async def _transaction(self, action: str) -> AsyncIterator[AsyncSession]:
        with database_errors(action):
            async with self._sessions() as opened:
                db = accept_session(opened)
                serve_tenant(db, self._tenant_id)
                await read_committed(db)
                yield db
