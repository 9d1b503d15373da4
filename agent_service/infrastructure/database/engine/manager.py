"""One database: its engine, its sessions, its schema."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from agent_service.core.availability import availability_of
from agent_service.core.errors import ConfigurationError, DatabaseError
from agent_service.core.urls.database import parse_database_url
from agent_service.infrastructure.database.engine.creating import create_engine
from agent_service.infrastructure.database.engine.measured import MeasuredPool, metrics_of
from agent_service.infrastructure.database.errors.outages import tell_outage
from agent_service.infrastructure.database.errors.translation import FAILED_STATEMENTS, database_errors, translate
from agent_service.infrastructure.database.naming.engines import Naming
from agent_service.infrastructure.database.postgres.connections import POOLED
from agent_service.infrastructure.database.postgres.notifications import Notifications
from agent_service.infrastructure.database.schema.alembic_turn import alembic_turn
from agent_service.infrastructure.database.schema.newest import is_at_newest, make_if_empty
from agent_service.infrastructure.database.schema.row_security import (
    Others,
    RowSecurity,
    bound_by_policies,
    hides_rows,
    switch,
)
from agent_service.infrastructure.database.sqlite.file import in_memory
from agent_service.infrastructure.database.transactions.isolation import LEVEL
from agent_service.infrastructure.database.transactions.own_sessions import NAMED, OURS
from agent_service.infrastructure.database.transactions.read_only import ReadingSession, TenantReadingSession
from agent_service.infrastructure.database.transactions.tenants import (
    TenantSession,
    say_tenant_on_begin,
    serve_every_tenant,
)

if TYPE_CHECKING:
    from agent_service.infrastructure.database.schema.migration import SchemaState
    from agent_service.infrastructure.database.schema.planning import SchemaPlan

__all__ = ["DatabaseManager"]

logger = logging.getLogger("agent_service.database")

T = TypeVar("T")

HEALTH_TIMEOUT: Final = 5.0
"""Seconds a health check may take."""
_QUIET: Final = 2.0
"""Seconds without a failure after which an outage is over."""
_NO_PERMISSION_STATE: Final = "42501"
_ISOLATION_LEVELS: Final = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


def _say_nothing(_line: str) -> None:
    """Ignore a report."""


class DatabaseManager:
    """Owns the engine of one database, for the event loop it is used on and the process it was made in.

    Nothing is connected before the first use. An embedded (SQLite) database migrates itself then; PostgreSQL is
    migrated by :meth:`upgrade`, which is what ``agent-service db upgrade`` calls. Whoever makes a manager closes it.

    :param url: ``sqlite+aiosqlite:///file.db`` or ``postgresql+asyncpg://user:password@host:port/name``.
    :param pool_size: connections kept open.
    :param max_overflow: connections beyond those under load.
    :param pool_timeout: seconds to wait for a free connection.
    :param pool_recycle: seconds after which a connection is replaced; -1: never.
    :param statement_timeout: seconds a PostgreSQL statement may take, waiting for locks included; None: any time.
        Migrations have no limit.
    :param isolation_level: of PostgreSQL's transactions in :meth:`session`: READ COMMITTED, REPEATABLE READ or
        SERIALIZABLE; None: READ COMMITTED, whatever the server's default is. The package's own transactions are READ
        COMMITTED. SQLite's are always SERIALIZABLE.
    :param pgbouncer: the URL leads to a pgbouncer in transaction mode.
    :param row_security: tell PostgreSQL which tenant each transaction works for, as its policies ask.
    :param schema: PostgreSQL schema of the package's tables; None is DB_SCHEMA.
    :param table_prefix: what the names of tables and all else begin with; None is DB_TABLE_PREFIX.
    :param echo: log every statement, without its parameters.
    :param setting: where the URL comes from, for errors.
    :raises ConfigurationError: for a URL or name that cannot be used; it never shows a password.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        max_overflow: int = 10,
        pool_timeout: float = 30.0,
        pool_recycle: int = 1800,
        statement_timeout: float | None = 30.0,
        isolation_level: str | None = None,
        pgbouncer: bool = False,
        row_security: bool = False,
        schema: str | None = None,
        table_prefix: str | None = None,
        echo: bool = False,
        setting: str = "DATABASE_URL",
    ) -> None:
        self._target = parse_database_url(url)
        self._setting = setting
        self.embedded = self._target.embedded
        _require_isolation(isolation_level, embedded=self.embedded)
        self._pgbouncer = pgbouncer
        pool: dict[str, Any] = {
            "poolclass": MeasuredPool,
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "pool_timeout": pool_timeout,
        }
        if not self.embedded:
            pool["pool_recycle"] = pool_recycle
        elif in_memory(self._target.database, self._target.options):
            # A database in memory lives in its one connection; sessions take turns.
            pool |= {"pool_size": 1, "max_overflow": 0}
        self._connections = pool["pool_size"] + pool["max_overflow"]
        self.engine: AsyncEngine = create_engine(
            self._target,
            pool,
            setting=setting,
            statement_timeout=statement_timeout,
            isolation_level=isolation_level or LEVEL,
            pgbouncer=pgbouncer,
            says_tenant=row_security,
            echo=echo,
        )
        self._metrics = metrics_of(setting)
        cast("MeasuredPool", self.engine.pool).metrics = self._metrics
        self._says_tenant = row_security and not self.embedded
        self._naming = Naming(schema, table_prefix)
        self._naming.serve(self.engine.sync_engine)
        session_class: type[SyncSession] = SyncSession
        reading_class: type[SyncSession] = ReadingSession
        if self._says_tenant:
            say_tenant_on_begin(self.engine)
            session_class, reading_class = TenantSession, TenantReadingSession
        # Read-only sessions share the pool.
        self.reading_engine = self.engine.execution_options(postgresql_readonly=True, sqlite_readonly=True)
        own = self.engine if self.embedded else self.engine.execution_options(isolation_level=LEVEL)
        engines = ((self.engine, session_class), (self.reading_engine, reading_class), (own, session_class))
        self._sessions, self._readers, self._own_sessions = (
            async_sessionmaker(engine, expire_on_commit=False, sync_session_class=kind, info={NAMED: True, OURS: True})
            for engine, kind in engines
        )
        # LISTEN needs a connection of its own; pgbouncer in transaction mode shares them.
        self.availability = availability_of(f"The database at {self._target}", logger, quiet=_QUIET)
        """Where those report who work on when the database cannot be reached."""
        listening = None if self.embedded or pgbouncer else self._patient_engine
        self.notifications = Notifications(listening, self._is_served)
        self._preparing = asyncio.Lock()
        self._prepared = not self.embedded
        self._metrics.open.add(self)

    @asynccontextmanager
    async def session(
        self, *, readonly: bool = False, every_tenant: bool = False, read_committed: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """Open a session: committed when the block ends well, rolled back when it raises.

        Committing within the block is allowed; what follows is a new transaction.

        :param readonly: the database refuses to write in it.
        :param every_tenant: the work concerns all tenants, for policies of row-level security.
        :param read_committed: whatever ``isolation_level`` is, as work needs it that waits for others' locks.
        :raises DatabaseUnavailableError: the database cannot be reached.
        :raises DatabaseError: for any other failure of the database that leaves the block; and on PostgreSQL, if a
            statement failed, its error was caught, and so nothing is stored.
        """
        await self.prepare()
        db = self._readers() if readonly else self._own_sessions() if read_committed else self._sessions()
        if not readonly:
            db.info["database"] = self
        if every_tenant:
            serve_every_tenant(db)
        try:
            yield db
            with database_errors("commit"):
                await db.commit()
        except FAILED_STATEMENTS as exc:
            raise translate(exc, "finish the session") from exc
        finally:
            await _release(db)

    async def prepare(self) -> None:
        """Migrate an embedded database unless it is up to date; any number of tasks and processes may race here."""
        if self._prepared:
            return
        async with self._preparing:
            if self._prepared:
                return
            ready = await self._migrating("read the schema's revision", is_at_newest)
            if not (ready or await self._migrating("make the schema", make_if_empty)):
                await self.upgrade()
            self._prepared = True

    async def upgrade(self, revision: str = "head", *, report: Callable[[str], None] = _say_nothing) -> None:
        """Move the schema forward to a revision.

        On SQLite all or nothing. On PostgreSQL in short steps, so that others can go on reading and writing. After an
        interruption the code of the version before can use it, and calling this again continues.

        :param report: is told each step, and how far a long one is.
        :raises DatabaseError: a step did not get its locks within a minute; the message says who holds them.
        """
        from agent_service.infrastructure.database.schema.migration import upgrade  # noqa: PLC0415 - Alembic loads when needed

        async with alembic_turn():
            await self.move("upgrade the schema", lambda connection: upgrade(connection, revision, report))

    async def plan(self, revision: str = "head") -> "SchemaPlan":
        """Return what :meth:`upgrade` would do, which locks it would take, and what others can do meanwhile.

        Nothing is changed.
        """
        from agent_service.infrastructure.database.schema.planning import plan  # noqa: PLC0415

        async with alembic_turn():
            return await self._migrating("plan an upgrade", lambda connection: plan(connection, revision))

    async def downgrade(self, revision: str) -> None:
        """Move the schema back to a revision ("base": to nothing). Data of removed tables is lost."""
        from agent_service.infrastructure.database.schema.migration import downgrade  # noqa: PLC0415

        async with alembic_turn():
            await self.move("downgrade the schema", lambda connection: downgrade(connection, revision))

    async def check(self) -> "SchemaState":
        """Compare the schema with the revisions and the models; nothing is changed."""
        from agent_service.infrastructure.database.schema.migration import check  # noqa: PLC0415

        return await self._migrating("check the schema", check)

    async def switch_row_security(self, *, on: bool) -> RowSecurity:
        """Enable or disable PostgreSQL's policies between tenants; only the tables' owner may.

        :raises DatabaseError: the database is SQLite, or not migrated.
        """
        return await self.move("switch row-level security", lambda connection: switch(connection, on=on))

    async def bound_by_policies(self) -> tuple[Others, ...]:
        """Return who is connected now, besides this process, as a role that the policies bind while they are in force.

        :raises DatabaseError: the database is SQLite, or not migrated.
        """
        return await self._migrating("find out who is connected", bound_by_policies)

    async def move(self, action: str, work: Callable[[Connection], T]) -> T:
        """Run what changes the schema: in one transaction on SQLite, and on PostgreSQL outside of any."""
        if self.embedded:
            return await self._migrating(action, work)
        engine = self._patient_engine("READ COMMITTED")
        try:
            with database_errors(action):
                async with engine.connect() as connection:
                    return await connection.run_sync(work)
        finally:
            await engine.dispose()

    async def _migrating(self, action: str, work: Callable[[Connection], T]) -> T:
        # Without a time limit on a server; a database in memory has no other connection.
        engine = self.engine if self.embedded else self._patient_engine()
        try:
            with database_errors(action):
                async with engine.begin() as connection:
                    return await connection.run_sync(work)
        finally:
            if engine is not self.engine:
                await engine.dispose()

    def _patient_engine(self, isolation_level: str = LEVEL) -> AsyncEngine:
        engine = create_engine(
            self._target,
            {"poolclass": NullPool},
            setting=self._setting,
            statement_timeout=None,
            isolation_level=isolation_level,
            pgbouncer=self._pgbouncer,
            says_tenant=self._says_tenant,
        )
        engine.sync_engine.update_execution_options(**{POOLED: self._pgbouncer})
        self._naming.serve(engine.sync_engine)
        return engine

    async def _is_served(self) -> bool:
        """Whether the database answers now; it is not asked during an outage, whose end others find."""
        if self.availability.away:
            return False
        try:
            async with self.session() as db:
                with database_errors("ask the database something"):
                    await db.execute(text("SELECT 1"))
        except DatabaseError as exc:
            tell_outage(self.availability, exc)
            return False
        return True

    def get_metrics(self) -> dict[str, int]:
        """Return the pool's connections as they are now: ``open``, ``in_use``, ``idle`` and the ``limit``. No I/O."""
        pool: Any = self.engine.pool
        in_use, idle = pool.checkedout(), pool.checkedin()
        return {"open": in_use + idle, "in_use": in_use, "idle": idle, "limit": self._connections}

    def feed_metrics(self) -> dict[str, int]:
        """Return how many ``subscriptions`` follow how many ``sessions``, and whether new messages are notified
        (``listening``: 1) or polled for (0). No I/O.
        """
        return self.notifications.metrics()

    async def health_check(self) -> dict[str, Any]:
        """Ask the database how it is, within 5 seconds. Never raises.

        Returns ``ok``, ``database`` (where, without credentials), ``latency_ms`` (of a small query, connecting too),
        ``version``, ``read_only`` (a standby), ``pool`` (see :meth:`get_metrics`), ``error``; what is unknown is None.
        PostgreSQL that lacks a migration this version needs is not ``ok``, and ``error`` names the command; an
        embedded database is migrated, as by any first use. Nor is one whose row-level security hides every row,
        because DB_ROW_SECURITY is not set here.
        """
        health: dict[str, Any] = dict.fromkeys(("latency_ms", "version", "read_only", "error"))
        health |= {"ok": False, "database": str(self), "pool": self.get_metrics()}
        question = "sqlite_version(), 0" if self.embedded else "current_setting('server_version'), pg_is_in_recovery()"
        try:
            with database_errors("ask the database how it is"):
                async with asyncio.timeout(HEALTH_TIMEOUT):
                    await self.prepare()
                    started = time.perf_counter()
                    async with self.engine.connect() as connection:
                        version, read_only = (await connection.execute(text(f"SELECT {question}"))).one()
                        latency = round((time.perf_counter() - started) * 1e3, 3)
                        lack = None if self.embedded else await _lag(connection) or await self._blind(connection)
        except DatabaseError as exc:
            health["error"] = str(exc)
            return health
        health |= {"ok": lack is None, "latency_ms": latency, "version": version, "read_only": bool(read_only)}
        if lack is not None:
            health["error"] = lack
        return health

    async def _blind(self, connection: AsyncConnection) -> str | None:
        """Say that the database hides every row from this process, if it does."""
        if self._says_tenant or not await connection.run_sync(hides_rows):
            return None
        return (
            "row-level security is in force for this role, and this process does not say its tenants, so every row is "
            "hidden from it; set DB_ROW_SECURITY=true and restart it, or run: agent-service db disable-rls"
        )

    async def close(self) -> None:
        """Close every connection. Sessions that are still open keep theirs until they end; subscriptions end now."""
        self._metrics.open.discard(self)
        # What is in use while the pool is disposed of comes back to a pool that nobody looks at again.
        event.listen(self.engine.sync_engine, "checkin", _close_connection)
        await self.notifications.close()
        await self.engine.dispose()

    def __str__(self) -> str:
        return str(self._target)


def _require_isolation(level: str | None, *, embedded: bool) -> None:
    known = _ISOLATION_LEVELS[-1:] if embedded else _ISOLATION_LEVELS
    if level is not None and level not in known:
        raise ConfigurationError(
            f"isolation_level must be {' or '.join(known)} for this database, or left out, got {level!r:.80}"
        )


def _close_connection(_connection: object, entry: ConnectionPoolEntry) -> None:
    entry.invalidate()


async def _release(db: AsyncSession) -> None:
    if db.in_transaction():
        # Rolls back and gives the connection back, which has to happen even if this task is cancelled meanwhile.
        await asyncio.shield(asyncio.create_task(_roll_back(db)))
    else:
        db.sync_session.close()


async def _roll_back(db: AsyncSession) -> None:
    # Where the server does not answer, the connection is lost, and the server ends the transaction with it. The error
    # to raise is the one that ended the block.
    with suppress(*FAILED_STATEMENTS):
        await db.close()


async def _lag(connection: AsyncConnection) -> str | None:
    """Say what the schema lacks; None also where the role may read sessions, and not their revision."""
    migration = await asyncio.to_thread(_load_migration)
    try:
        return await connection.run_sync(migration.lag)
    except DBAPIError as exc:
        if getattr(exc.orig, "sqlstate", None) != _NO_PERMISSION_STATE:
            raise
    await connection.rollback()
    await connection.execute(text("SELECT 1 FROM agent_service_sessions LIMIT 0"))
    return None


def _load_migration() -> ModuleType:
    """Import Alembic and read the revisions, once. It would block the event loop for too long."""
    from agent_service.infrastructure.database.schema import migration  # noqa: PLC0415

    migration.known_revisions()
    return migration
