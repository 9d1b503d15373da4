"""Sessions of the caller's own: their engines are given what our statements need, or refused.

PostgreSQL needs nothing. On SQLite our statements call functions that each connection must be given. And the driver,
left to itself, begins a transaction before INSERT, UPDATE and DELETE only, or never: a savepoint outside of one is
committed as soon as it is released. So a session that a repository is made for begins its transactions before its first
write. Other sessions of the engine work as they did.
"""

import sqlite3
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.exc import DBAPIError, UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction

from agent_service.core.errors import SessionValueError
from agent_service.core.urls.database import POSTGRES, SQLITE
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import naming_of
from agent_service.infrastructure.database.sqlite.busy import may_write
from agent_service.infrastructure.database.sqlite.cancelled import keep_clean
from agent_service.infrastructure.database.sqlite.connection import SqliteConnection
from agent_service.infrastructure.database.sqlite.functions import create_functions, require_version
from agent_service.infrastructure.database.sqlite.write_lock import is_ours

__all__ = ["NAMED", "OURS", "accept_session", "name_session", "require_engine"]

NAMED: Final = "agent_service_named"
"""Key in a session's ``info``: its statements use the right names."""
OURS: Final = "agent_service_ours"
"""Key in the ``info`` of sessions that a DatabaseManager opens: there is nothing to find out about them."""
_GIVEN: Final = "agent_service_functions"
_SERVED: Final = "agent_service_session"

_prepared: "WeakSet[Engine]" = WeakSet()
"""Which engines were given what our statements need."""


def accept_session(db: Any) -> AsyncSession:
    """Return the session that ``db`` is, or a scoped session's current one, ready for our statements.

    :raises SessionValueError: it is none, or our statements cannot work in it.
    """
    if isinstance(db, async_scoped_session):
        db = db()
    if isinstance(db, AsyncSession) and OURS in db.sync_session.info:
        return db
    if not isinstance(db, AsyncSession):
        raise SessionValueError(
            f"db must be an AsyncSession, not {type(db).__name__}; take one from get_session(), or from an "
            "async_sessionmaker of your own"
        )
    try:
        bind = db.get_bind()
    except UnboundExecutionError:
        raise SessionValueError("db has no bind for every statement; make it with AsyncSession(bind=engine)") from None
    engine: Engine = bind.engine
    _require_transactions(bind, engine.dialect)
    name_session(db)
    if not is_ours(engine.dialect):
        if engine not in _prepared:
            _prepare(engine)
        if engine.dialect.name == "sqlite":
            _serve(db.sync_session)
    return db


def name_session(db: AsyncSession | SyncSession) -> None:
    """Have the statements of a session, whose engine may be the caller's own, use the right names."""
    if NAMED not in db.info:
        with suppress(UnboundExecutionError):  # Its first statement says so.
            naming_of(db.get_bind(Session).engine)
            db.info[NAMED] = True


def _require_transactions(bind: Engine | Connection, dialect: Dialect) -> None:
    options = bind.get_execution_options()
    if None in (options.get("schema_translate_map") or ()):
        raise SessionValueError(
            "db has a schema_translate_map that moves tables without a schema, the package's among them; use an engine "
            "without it, and name_tables(engine, schema=...) for the package's tables"
        )
    level = options.get("isolation_level", getattr(dialect, "_on_connect_isolation_level", None))
    if level == "AUTOCOMMIT" and dialect.name == "postgresql":
        raise SessionValueError(
            "db is in AUTOCOMMIT, and the package's statements need transactions; use another engine"
        )


def require_engine(engine: Any) -> None:
    """Refuse an engine that our statements cannot work on.

    :raises SessionValueError: it is no AsyncEngine, or not of a driver that we speak.
    """
    if not isinstance(engine, AsyncEngine):
        raise SessionValueError(
            f"engine must be an AsyncEngine or a DatabaseManager, not {type(engine).__name__}; use create_async_engine"
        )
    _require_driver(engine.dialect, "engine")


def _require_driver(dialect: Dialect, name: str) -> None:
    driver = f"{dialect.name}+{dialect.driver}"
    if driver not in {SQLITE, POSTGRES}:
        raise SessionValueError(f"{name} is of {driver}, which is not supported; use {SQLITE} or {POSTGRES}")


def _prepare(engine: Engine) -> None:
    _require_driver(engine.dialect, "db")
    if engine.dialect.name == "sqlite":
        require_version()
        keep_clean(engine)
        event.listen(engine, "before_cursor_execute", _before_statement)
    _prepared.add(engine)


def _serve(session: SyncSession) -> None:
    if event.contains(session, "after_begin", _mark):
        return
    event.listen(session, "after_begin", _mark)
    transaction: Any = session.get_transaction()
    if transaction is not None:
        for connection in {each[0] for each in transaction._connections.values()}:  # noqa: SLF001 - begun before we came
            _mark(session, transaction, connection)


def _mark(_session: SyncSession, _transaction: SessionTransaction, connection: Connection) -> None:
    connection.execution_options(**{_SERVED: True})


def _before_statement(
    connection: Connection, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
) -> None:
    pooled: Any = connection.connection
    if _GIVEN not in pooled.info:
        create_functions(pooled.dbapi_connection)
        pooled.info[_GIVEN] = True
    served = connection.get_execution_options().get(_SERVED)
    if served and not pooled.driver_connection.in_transaction and may_write(statement):
        _begin(connection, pooled.dbapi_connection)


def _begin(connection: Connection, dbapi_connection: Any) -> None:
    try:
        if isinstance(dbapi_connection, SqliteConnection):
            dbapi_connection.begin()
        else:  # taken from the pool before its engine was known to us
            dbapi_connection.run_async(lambda raw: raw.execute("BEGIN IMMEDIATE"))
    except sqlite3.Error as exc:
        dialect: Any = connection.dialect
        error = dialect.loaded_dbapi.Error
        raise DBAPIError.instance("BEGIN IMMEDIATE", None, exc, error, hide_parameters=True, dialect=dialect) from exc
