"""Reads that may lag: from a replica while it answers, else from the primary.

A replica that refuses connections is detected at once, one that does not answer only after seconds. So one session at a
time probes: it opens a connection, or sends a small query if the replica was not heard of for a while. The others wait
briefly for the result, and then use the primary. While all is well nothing is probed: connections come from the pool,
and every session that ends without an error has heard of the replica.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.transactions.read_only import ask_when_it_matters

__all__ = ["PATIENCE", "RETRY_AFTER", "ReadReplica"]

logger = logging.getLogger("agent_service.database")

RETRY_AFTER: Final = 5.0
"""Seconds for which a replica that could not be reached is left alone, and one that was heard of is trusted."""
PATIENCE: Final = 0.5
"""Seconds that sessions wait for the one that probes, before they use the primary."""
_ANSWER_TIME: Final = 2.0
"""Seconds in which a connected replica must answer a probe."""


class ReadReplica:
    """A replica in front of its primary, for read-only sessions.

    A replica that cannot be reached, or does not answer, delays one session; the others use the primary, and one
    session in five seconds probes again. A session that loses the replica while it is open fails, and the next ones
    use the primary.

    :param replica: where to read; the caller closes it.
    :param primary: where to read otherwise.
    :param clock: where durations come from.
    """

    def __init__(self, replica: DatabaseManager, primary: DatabaseManager, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._replica = replica
        self._primary = primary
        self._clock = clock
        self._down = False
        self._retry_at = 0.0
        self._heard_at = -math.inf
        self._asking: asyncio.Future[bool] | None = None
        self._asking_since = 0.0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a read-only session of the replica, or of the primary."""
        from_replica = await self._answers()
        try:
            async with AsyncExitStack() as stack:
                database = self._replica if from_replica else self._primary
                db = await stack.enter_async_context(database.session(readonly=True))
                if from_replica:
                    ask_when_it_matters(db, self._primary.reading_engine)
                yield db
        except DatabaseUnavailableError as exc:
            if from_replica and getattr(exc.__cause__, "connection_invalidated", False):
                self._lost(exc)
            raise
        if from_replica:
            self._heard_at = self._clock.monotonic()

    async def _answers(self) -> bool:
        """Whether the replica answers. It has a connection in its pool then, so that the session finds it open."""
        now = self._clock.monotonic()
        heard = now - self._heard_at < RETRY_AFTER
        trusted = heard and not self._down and self._has_idle_connection()
        if self._asking is not None:
            overdue = now - self._asking_since >= PATIENCE
            if self._down or overdue or not (trusted or await self._outcome(self._asking)):
                return False
        elif self._down and now < self._retry_at:
            return False
        elif not trusted:
            return await self._ask(must_answer=not heard)
        return await self._find_out(must_answer=False)

    def _has_idle_connection(self) -> bool:
        pool: Any = self._replica.engine.pool
        return bool(pool.checkedin())

    async def _outcome(self, asking: "asyncio.Future[bool]") -> bool:
        await asyncio.wait([asking], timeout=PATIENCE)
        return asking.done() and asking.result()

    async def _ask(self, *, must_answer: bool) -> bool:
        """Probe on behalf of all sessions."""
        asking = self._asking = asyncio.get_running_loop().create_future()
        self._asking_since = self._clock.monotonic()
        answers = False
        try:
            answers = await self._find_out(must_answer=must_answer)
        except asyncio.CancelledError:
            if self._clock.monotonic() - self._asking_since >= PATIENCE:
                self._lost("it gave no answer while somebody waited")
            raise
        finally:
            self._asking = None
            asking.set_result(answers)
        return answers

    async def _find_out(self, *, must_answer: bool) -> bool:
        """Make sure that the pool has an open connection.

        :param must_answer: also ask the server something; a new connection is an answer by itself.
        """
        try:
            with database_errors("connect to the replica"):
                must_answer = must_answer and self._has_idle_connection()
                async with self._replica.engine.connect() as connection:
                    if must_answer:
                        await connection.execution_options(isolation_level="AUTOCOMMIT")
                        async with asyncio.timeout(_ANSWER_TIME):
                            await connection.execute(text("SELECT 1"))
        except DatabaseUnavailableError as exc:
            self._lost(exc)
            return False
        if self._down:
            logger.info("reads go to the replica again")
        self._down = False
        self._heard_at = self._clock.monotonic()
        return True

    def _lost(self, reason: object) -> None:
        if not self._down:
            logger.warning("reads go to the primary while the replica is away: %s", reason)
        self._down = True
        self._retry_at = self._clock.monotonic() + RETRY_AFTER
