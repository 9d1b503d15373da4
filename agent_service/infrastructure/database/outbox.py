"""The transactional outbox: work that commits with the change that causes it, and is done later."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import DatabaseError, DatabaseUnavailableError, SessionValueError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import FAILED_STATEMENTS, database_errors
from agent_service.infrastructure.database.models.outbox import OutboxRow
from agent_service.infrastructure.database.queries import outbox as queries
from agent_service.infrastructure.database.transactions.own_sessions import name_session

__all__ = [
    "FORMAT",
    "Claim",
    "DatabaseSession",
    "ListedRow",
    "add_rows",
    "claim",
    "list_rows",
    "remove_rows",
    "retry_rows",
    "rows_left",
    "set_rows_aside",
    "take_rows",
]

DatabaseSession: TypeAlias = AsyncSession | Session
"""What a caller's own session is."""

FORMAT: Final = 1
"""Format of the bodies that this version writes and reads. Rows of later formats are left to later versions."""

PATIENCE = timedelta(minutes=2)
"""How long a process that is frozen, but whose connection lives, keeps the rows it has claimed."""
_SILENCE: Final = 5.0
"""Longest time without a statement in a transaction, in seconds: a proxy on the way may be less patient."""

_PENDING: Final = "agent_service_after_commit"


def add_rows(db_session: DatabaseSession, bodies: Iterable[str], *, after_commit: Callable[[], None]) -> None:
    """Add rows to the session's transaction; nothing is sent before the session's next flush.

    :param after_commit: called once the transaction has been committed.
    :raises SessionValueError: it is no session.
    """
    session = db_session.sync_session if isinstance(db_session, AsyncSession) else db_session
    if not isinstance(session, Session):
        raise SessionValueError(f"db_session must be an AsyncSession or a Session, not {type(db_session).__name__}")
    name_session(session)
    now = SYSTEM_CLOCK.now()
    rows = [OutboxRow(id=uuid7(), format=FORMAT, body=body, created_at=now) for body in bodies]
    if rows:
        session.add_all(rows)
        session.info[_PENDING] = after_commit
        if not event.contains(session, "after_commit", _tell):
            event.listen(session, "after_commit", _tell)


def _tell(session: Session) -> None:
    # Also called when a savepoint ends, which commits nothing yet. A rollback leaves the note to the next commit: being
    # called for nothing costs one look at the table.
    if not session.in_nested_transaction() and _PENDING in session.info:
        session.info.pop(_PENDING)()


class Claim:
    """Rows that this process has claimed.

    On PostgreSQL a transaction locks them, so that other processes claim others. The server ends it when nothing is
    sent for :data:`PATIENCE`, a proxy perhaps earlier; :meth:`renew` sends something. If it was ended all the same,
    others may do the same work again, and what was done is recorded in another transaction: so there is progress,
    however long the work takes.
    """

    def __init__(self, database: DatabaseManager, db: AsyncSession | None, rows: list[tuple[UUID, str]]) -> None:
        self.rows = rows
        self._database = database
        self._db = db

    @property
    def silence(self) -> float:
        """Seconds after which to :meth:`renew`."""
        return min(PATIENCE.total_seconds() / 4, _SILENCE)

    async def renew(self) -> None:
        """Keep the claim alive while this process works."""
        if self._db is not None:
            try:
                with database_errors("keep what was taken of the outbox"):
                    await self._db.execute(queries.still_here())
            except DatabaseError:
                await self.let_go()

    async def finish(self, done: Collection[UUID], unreadable: Collection[UUID]) -> int:
        """Remove the rows that are done, set aside the unreadable, release the others; return how many were removed.

        :raises DatabaseError: the database fails. What was done may be done again.
        """
        if self._db is not None:
            try:
                removed = await _record(self._db, done, unreadable)
                with database_errors("commit"):
                    await self._db.commit()
            except DatabaseUnavailableError:
                await self.let_go()
            else:
                return removed
        async with self._database.session(read_committed=True) as db:
            return await _record(db, done, unreadable)

    async def let_go(self) -> None:
        """Release the rows to other processes."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(*FAILED_STATEMENTS):
                await db.rollback()


@asynccontextmanager
async def claim(
    database: DatabaseManager, size: int, *, without: Collection[UUID] = (), only: Collection[UUID] | None = None
) -> AsyncIterator[Claim]:
    """Claim rows as :func:`take_rows` does, until the block ends. SQLite has no row locks, and holds nothing."""
    if database.embedded:
        async with database.session(read_committed=True) as db:
            rows = await take_rows(db, size, without=without, only=only)
        yield Claim(database, None, rows)
        return
    async with database.session(read_committed=True) as db:
        claimed = Claim(database, db, await take_rows(db, size, without=without, only=only))
        yield claimed
        await claimed.let_go()


async def _record(db: AsyncSession, done: Collection[UUID], unreadable: Collection[UUID]) -> int:
    await set_rows_aside(db, unreadable)
    return await remove_rows(db, done)


async def take_rows(
    db: AsyncSession, size: int, *, without: Collection[UUID] = (), only: Collection[UUID] | None = None
) -> list[tuple[UUID, str]]:
    """Return the ids and bodies of the oldest rows, locked by this transaction on PostgreSQL.

    :param without: rows to leave.
    :param only: rows to choose from; None: all.
    """
    with database_errors("read the outbox"):
        rows = [(id_, body) for id_, body in await db.execute(queries.oldest(FORMAT, size, without, only))]
        if rows and db.get_bind().dialect.name == "postgresql":
            await db.execute(queries.let_go_when_idle(PATIENCE))
    return rows


async def rows_left(db: AsyncSession, most: int) -> tuple[int, datetime | None]:
    """Return how many rows are not done, at most so many, and when the oldest of them was added."""
    with database_errors("count what is left in the outbox"):
        row = (await db.execute(queries.waiting(FORMAT, most))).one()
    return row[0], row[1]


async def remove_rows(db: AsyncSession, ids: Collection[UUID]) -> int:
    """Remove rows; return how many of them still existed."""
    if not ids:
        return 0
    with database_errors("remove what was done from the outbox"):
        result: Any = await db.execute(queries.remove(ids))
    return int(result.rowcount)


async def set_rows_aside(db: AsyncSession, ids: Collection[UUID]) -> None:
    """Keep rows out of :func:`take_rows` until their ``failed_at`` is cleared."""
    if ids:
        with database_errors("set aside what cannot be read in the outbox"):
            await db.execute(queries.set_aside(ids, SYSTEM_CLOCK.now()))


class ListedRow(NamedTuple):
    """A row as it is stored; ``failed_at`` is when it turned out to be unreadable."""

    id: UUID
    format: int
    body: str
    created_at: datetime
    failed_at: datetime | None


async def list_rows(db: AsyncSession, most: int, *, failed: bool = False) -> list[ListedRow]:
    """Return at most so many rows, the oldest first, those of other versions too.

    :param failed: only those that are set aside.
    """
    with database_errors("list the outbox"):
        return [ListedRow(*row) for row in await db.execute(queries.listed(most, failed=failed))]


async def retry_rows(db: AsyncSession, ids: Collection[UUID] | None = None) -> int:
    """Have rows that are set aside be tried again; return how many there were.

    :param ids: which; None: all.
    """
    with database_errors("retry what was set aside in the outbox"):
        result: Any = await db.execute(queries.take_back(ids))
    return int(result.rowcount)
