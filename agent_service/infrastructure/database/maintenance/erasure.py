"""Erasing a user's sessions and conversations in short transactions, and what is left of them in SQLite's file."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import TransactionConflictError
from agent_service.infrastructure.database.checkpoints.retention import remove_threads_of_user
from agent_service.infrastructure.database.conversations.ending import erase_scope
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.retrying import pause_before
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.maintenance.removal import (
    STEP,
    copy_to_forks,
    groups,
    lock_with_family,
    remove_sessions,
    remove_some_messages,
)
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.session_keys import SessionKey, in_keys
from agent_service.infrastructure.database.sqlite.file import in_memory
from agent_service.infrastructure.database.sqlite.write_lock import BUSY_TIMEOUT, write_turn
from agent_service.infrastructure.database.transactions.clock import database_now
from agent_service.infrastructure.database.transactions.tenants import serve_tenant
from agent_service.infrastructure.database.values.validation import require_identifier, require_tenant

__all__ = ["erase_user", "rewrite_file"]

T = TypeVar("T")

_ATTEMPTS: Final = 10
"""How often a step is begun that other transactions come between."""
_THREADS: Final = 20
"""Threads of checkpoints that one transaction removes."""
_SESSIONS: Final = 200
"""Sessions that one statement hides, or looks through."""
_CONVERSATIONS: Final = 20
"""Conversations that one transaction removes, of which each may be long."""


async def erase_user(database: DatabaseManager, user_id: UUID | str, *, tenant_id: str = "") -> int:
    """Remove all sessions of a user for good, in short transactions, however many there are.

    So are threads of checkpoints that name the user, once the sessions are hidden, and the conversations of Pydantic AI
    whose scope is this user's id.

    First all sessions are hidden; then they are removed, each step committed. After an interruption some are hidden or
    removed: call it again to go on with the rest. Do not restore what was hidden, because messages may be missing.
    What another user's fork shows of them stays with that user. Sessions that the user begins meanwhile are removed
    too.

    ``SessionRepository.erase_user`` does the same in the caller's transaction, all or nothing.

    :return: how many sessions and conversations this call removed.
    :raises DatabaseError: the database failed; call it again.
    :raises SessionValueError: an argument cannot be used.
    """
    require_identifier(user_id, "user_id")
    work = _Erasure(database, require_tenant(tenant_id), user_id)
    erased = 0
    while True:
        await _settled(work.hide)
        while await _settled(work.remove_threads):
            pass
        sizes = await work.left()
        if not sizes:
            return erased + await work.remove_conversations(str(user_id))
        messages = dict(sizes)
        for group in groups(sizes):
            erased += await _settled(partial(work.remove, group, long=messages[group[0]] > STEP))


async def _settled(step: Callable[[], Awaitable[T]]) -> T:
    """Return what a step gives. It is repeated where another transaction came between.

    Sessions are locked with their forks and parents, in the order of their keys. Forks that another transaction hangs
    over to them before they are locked are not among those, so two erasures in one family may wait in a circle.
    PostgreSQL ends one of them, and repeating it is safe: each step can be done again.
    """
    for attempt in range(1, _ATTEMPTS):
        try:
            return await step()
        except TransactionConflictError:
            await asyncio.sleep(pause_before(attempt))
    return await step()


class _Erasure:
    def __init__(self, database: DatabaseManager, tenant_id: str, user_id: UUID | str) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._user = str(user_id)
        self._scope: tuple[ColumnElement[bool], ...] = (Session.tenant_id == tenant_id, Session.user_id == user_id)
        # A session that is not hidden, because it began just now, may be forked between two steps.
        self._hidden = (*self._scope, Session.deleted_at.is_not(None))

    async def remove_threads(self) -> int:
        """Remove some threads of checkpoints."""
        async with self._transaction() as db:
            return await remove_threads_of_user(db, self._tenant_id, self._user, most=_THREADS)

    async def hide(self) -> None:
        """Hide what is not hidden yet."""
        while True:
            async with self._transaction() as db:
                some = select(Session.id).where(*self._scope, Session.deleted_at.is_(None)).limit(_SESSIONS)
                dialect, own = db.get_bind().dialect.name, Session.tenant_id == self._tenant_id
                keys = [
                    SessionKey(*each) for each in await db.execute(lock_sessions(dialect, own, Session.id.in_(some)))
                ]
                if not keys:
                    return
                now, held = await database_now(db, SYSTEM_CLOCK), in_keys(dialect, Session.tenant_id, Session.id, keys)
                mark = update(Session).where(held).values(deleted_at=now, updated_at=now)
                await db.execute(mark.execution_options(synchronize_session=False))

    async def left(self) -> list[tuple[SessionKey, int]]:
        """Return some of the sessions that are left with their messages; forks, being younger, before their parents.

        In the other order a fork would first receive copies of what its parent loses.
        """
        some = select(Session.id, Session.total_messages).where(*self._hidden).order_by(Session.id.desc())
        async with self._transaction() as db:
            return [(SessionKey(self._tenant_id, id_), size) for id_, size in await db.execute(some.limit(_SESSIONS))]

    async def remove(self, keys: list[SessionKey], *, long: bool) -> int:
        """Remove some sessions; the messages of a long one step by step."""
        if long:
            async with self._transaction() as db:
                if await self._hold(db, keys):
                    await copy_to_forks(db, keys)
            after: int | None = 0
            while after is not None:
                async with self._transaction() as db:
                    after = await remove_some_messages(db, keys[0], after) if await self._hold(db, keys) else None
        async with self._transaction() as db:
            return await remove_sessions(db, await self._hold(db, keys))

    async def remove_conversations(self, scope: str) -> int:
        """Remove the conversations of a scope."""
        removed = 0
        while True:
            async with self._transaction() as db:
                some = await erase_scope(db, self._tenant_id, scope, _CONVERSATIONS)
            if not some:  # fewer than asked for were removed where others removed some meanwhile
                return removed
            removed += some

    async def _hold(self, db: AsyncSession, keys: list[SessionKey]) -> list[SessionKey]:
        return await lock_with_family(db, keys, *self._hidden)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        async with self._database.session(read_committed=True) as db:
            serve_tenant(db, self._tenant_id)
            with database_errors("erase a user"):
                yield db


async def rewrite_file(database: DatabaseManager) -> None:
    """Rewrite the file of an SQLite database, so that nothing that was removed is left in it or beside it.

    Removed text stays in free pages, in the write-ahead log and in old segments of the search index until their place
    is used again. This merges the index, rewrites the file (VACUUM) and empties the log. It takes as long as it takes
    to write all that is left, holds the write lock meanwhile, and needs as much free space again. Nothing else may have
    a transaction open. PostgreSQL is not touched: see the page about the end of sessions.

    :raises DatabaseError: another process keeps a transaction open; nothing is lost, call it again.
    """
    url = database.engine.url
    if not database.embedded or in_memory(url.database, url.query):
        return
    await database.prepare()
    with database_errors("rewrite the file"):
        async with database.engine.connect() as connection:
            index = (await connection.run_sync(names_of)).full("session_search")
        async with write_turn(database.engine):
            await asyncio.to_thread(_rewrite, database, index)


def _rewrite(database: DatabaseManager, index: str) -> None:
    dialect: Any = database.engine.dialect
    arguments, options = dialect.create_connect_args(database.engine.url)
    options |= {"isolation_level": None, "timeout": BUSY_TIMEOUT}
    try:
        with closing(sqlite3.connect(*arguments, **options)) as connection:
            connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")  # noqa: S608 - a name of our own
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("database is locked by a transaction that reads; end it")
    except sqlite3.Error as exc:
        raise DBAPIError(None, None, exc, hide_parameters=True) from exc
