"""Reads that may lag: from a replica while it answers, else from the primary."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import DatabaseUnavailableError
from agent_service.core.logging import logger
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.errors import database_errors

__all__ = ["ReadReplica"]

RETRY_AFTER: Final = 5.0
"""Seconds for which a replica that could not be reached is left alone."""


class ReadReplica:
    """A replica in front of its primary, for read-only sessions.

    A replica that cannot be reached costs one session the time it takes to find out; the others go to the primary at
    once, and one in five seconds tries again. A session that loses the replica in its middle fails, as it would
    anywhere.

    :param replica: where to read; closed by whoever made it.
    :param primary: where to read otherwise.
    :param clock: where durations come from.
    """

    def __init__(self, replica: DatabaseManager, primary: DatabaseManager, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._replica = replica
        self._primary = primary
        self._clock = clock
        self._down = False
        self._retry_at = 0.0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Give a read-only session of the replica, or of the primary."""
        async with AsyncExitStack() as stack:
            db = await self._of_replica(stack) if self._may_try() else None
            if db is None:
                db = await stack.enter_async_context(self._primary.session(readonly=True))
            yield db

    def _may_try(self) -> bool:
        now = self._clock.monotonic()
        if self._down and now < self._retry_at:
            return False
        self._retry_at = now + RETRY_AFTER  # While it is down one tries for all.
        return True

    async def _of_replica(self, stack: AsyncExitStack) -> AsyncSession | None:
        attempt = AsyncExitStack()
        db = await attempt.enter_async_context(self._replica.session(readonly=True))
        try:
            with database_errors("connect to the replica"):
                await db.connection()
        except DatabaseUnavailableError as exc:
            await attempt.aclose()
            if not self._down:
                logger.warning("reads go to the primary while the replica is away: %s", exc)
            self._down = True
            return None
        except BaseException:
            await attempt.aclose()
            raise
        if self._down:
            logger.info("reads go to the replica again")
        self._down = False
        stack.push_async_exit(attempt)
        return db
