"""Where the package's engines lead, their pools, and the statements that they run: for traces and metrics."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, Engine, ExceptionContext, event

from agent_service.core.tracing import Server
from agent_service.core.urls.database import DatabaseTarget

__all__ = ["MESSAGES", "SESSIONS", "PoolState", "note_engine", "pools", "server_of", "watch_statements"]

SESSIONS: Final = "sessions"
MESSAGES: Final = "session_messages"
"""What traces and metrics call the tables."""
_STARTED: Final = "_agent_service_started"

_servers: WeakKeyDictionary[Dialect, Server] = WeakKeyDictionary()
"""Of the engines that this package made. Engines that share a dialect share the server."""
_limits: WeakKeyDictionary[Engine, int] = WeakKeyDictionary()

Report = Callable[[Server, str, float, BaseException | None], None]


class PoolState(NamedTuple):
    """The connections of one pool, and how many there may be."""

    server: Server
    used: int
    idle: int
    limit: int


def note_engine(engine: Engine, target: DatabaseTarget, limit: int) -> None:
    """Remember where an engine leads.

    :param limit: connections that its pool may open; 0: it has none.
    """
    one = target.hosts[0] if len(target.hosts) == 1 else (None, None)
    system = "sqlite" if target.embedded else "postgresql"
    _servers[engine.dialect] = Server(system, target.database or None, *one)
    if limit:
        _limits[engine] = limit


def server_of(engine: Engine) -> Server:
    """Return where an engine leads, also one of a caller's own."""
    known = _servers.get(engine.dialect)
    return known or Server(engine.dialect.name, engine.url.database, engine.url.host, engine.url.port)


def pools() -> Iterator[PoolState]:
    """Return the state of each pool of this process, without I/O."""
    for engine, limit in list(_limits.items()):
        pool: Any = engine.pool
        yield PoolState(server_of(engine), pool.checkedout(), pool.checkedin(), limit)


def watch_statements(report: Report) -> Callable[[], None]:
    """Report every statement that SQLAlchemy runs on engines of this package, until the returned function is called."""

    def before(_connection: Connection, _cursor: Any, _statement: str, _given: Any, context: Any, _many: bool) -> None:
        setattr(context, _STARTED, time.perf_counter())

    def after(connection: Connection, _cursor: Any, statement: str, _given: Any, context: Any, _many: bool) -> None:
        tell(connection.dialect, statement, context, None)

    def failed(context: ExceptionContext) -> None:
        if context.statement is not None:
            tell(context.dialect, context.statement, context.execution_context, context.original_exception)

    def tell(dialect: Dialect, statement: str, context: Any, error: BaseException | None) -> None:
        server, started = _servers.get(dialect), getattr(context, _STARTED, None)
        if server is not None and started is not None:
            report(server, statement, time.perf_counter() - started, error)

    listeners: dict[str, Callable[..., None]] = {
        "before_cursor_execute": before,
        "after_cursor_execute": after,
        "handle_error": failed,
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)

    def stop() -> None:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)

    return stop
