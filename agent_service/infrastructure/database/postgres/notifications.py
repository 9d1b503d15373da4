"""LISTEN for all subscriptions of a database manager on one connection, and wake those concerned.

A notification only wakes: messages are read by number. So a notification that comes twice, late or (while the
connection is down) not at all costs time and nothing else. It is opened for the first subscription, outside of the
pool, reopened when it is lost, and closed with the last subscription.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn
from uuid import UUID

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.backoff import Backoff
from agent_service.core.bell import Bell
from agent_service.core.errors import AgentServiceError, DatabaseUnavailableError
from agent_service.infrastructure.database.errors.lost import FAILURES
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.naming.catalog import channel_of
from agent_service.infrastructure.database.naming.engines import names_of

__all__ = ["Notifications"]

logger = logging.getLogger("agent_service.database")

HEARTBEAT: Final = 30.0
"""Seconds after which a silent connection is checked with a query."""
_ANSWER_TIME: Final = 5.0
_PAUSES: Final = Backoff(0.05, 5.0)
_LOST: Final = (*FAILURES, SQLAlchemyError, AgentServiceError)


class Notifications:
    """The listening connection of one manager.

    :param open_engine: makes an engine without a pool for it; None where there is nothing to listen to.
    :param is_served: asks the database something on another connection, and returns whether it answered.
    """

    def __init__(self, open_engine: Callable[[], AsyncEngine] | None, is_served: Callable[[], Awaitable[bool]]) -> None:
        self._open_engine = open_engine
        self._is_served = is_served
        self._bells: dict[str, set[Bell]] = {}
        self._working: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._failing = False
        self._closed = False
        self.listening = False

    @asynccontextmanager
    async def bell(self, session_id: UUID) -> AsyncIterator[Bell]:
        """Return a bell that rings when the session has changed, and when listening began or ended."""
        key, bell = str(session_id), Bell()
        self._bells.setdefault(key, set()).add(bell)
        if self._open_engine is not None and self._working is None and not self._closed:
            self._working = asyncio.create_task(self._work(self._open_engine), name="session-notifications")
        try:
            yield bell
        finally:
            self._bells[key].discard(bell)
            if not self._bells[key]:
                del self._bells[key]
            if not self._bells:
                await self._stop()

    def require_open(self) -> None:
        """Refuse to continue after :meth:`close`.

        :raises DatabaseUnavailableError: the manager was closed.
        """
        if self._closed:
            raise DatabaseUnavailableError("the database was closed while a subscription was waiting for messages")

    async def close(self) -> None:
        """Stop listening and wake all subscriptions, which then end with an error."""
        self._closed = True
        self._ring_all()
        await self._stop()

    async def _stop(self) -> None:
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
            self._ending.add(working)
            working.add_done_callback(self._ending.discard)
        if self._ending:
            await asyncio.wait(self._ending)

    async def _work(self, open_engine: Callable[[], AsyncEngine]) -> None:
        engine, attempt = open_engine(), 0
        try:
            while True:
                try:
                    async with _connected(engine) as (connection, channel):
                        await self._listen(connection, channel)
                except _LOST as exc:
                    failure, attempt = exc, 0 if self.listening else attempt + 1
                finally:
                    self.listening = False
                    self._ring_all()
                if attempt and not self._failing:  # A lost connection has yet to be replaced.
                    await self._note_failure(failure)
                await asyncio.sleep(_PAUSES.pause(attempt))
        finally:
            await engine.dispose()

    async def _listen(self, connection: asyncpg.Connection, channel: str) -> NoReturn:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(channel, self._ring)
        self.listening = True
        if self._failing:
            logger.info("subscriptions are notified of new messages again")
        self._failing = False
        self._ring_all()
        while not lost.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1", timeout=_ANSWER_TIME)
        raise ConnectionResetError("the server closed the connection")

    async def _note_failure(self, exc: Exception) -> None:
        """Log that nothing is notified, unless the database is away."""
        if await self._is_served():
            self._failing = True
            logger.warning("subscriptions poll for new messages until notifications work again: %s", reason_of(exc))

    def _ring(self, _connection: Any, _pid: int, _channel: str, session_id: object) -> None:
        for bell in self._bells.get(str(session_id), ()):
            bell.ring()

    def _ring_all(self) -> None:
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[tuple[asyncpg.Connection, str]]:
    """Yield a driver's connection that nobody else uses, and the channel to listen to.

    At the end the connection is cut off, whatever state it is in.
    """
    async with engine.connect() as connection:
        async with connection.begin():
            channel = await connection.run_sync(_channel)
        driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
        try:
            yield driver, channel
        finally:
            driver.terminate()
            await connection.invalidate()


def _channel(connection: Connection) -> str:
    return channel_of(connection, names_of(connection))
