"""Drain the outbox as long as the process lives."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from agent_service.core.backoff import Backoff
from agent_service.core.errors import AgentServiceError, CacheValueError, DatabaseUnavailableError
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.outbox.bells import hung_bell
from agent_service.infrastructure.outbox.counters import counters
from agent_service.infrastructure.outbox.drain import drain

__all__ = ["run_outbox"]

logger = logging.getLogger("agent_service.outbox")

_PAUSES: Final = Backoff(0.05, 5.0)
_PATIENCE: Final = 5.0
"""Seconds that a cancelled pass has to roll back, before it is no longer waited for."""


async def run_outbox(interval: float = 1.0) -> None:
    """Apply what :func:`invalidate_in` requested, until cancelled; run one such task in each process.

    A commit of this process is applied at once. What other processes left is found every ``interval`` seconds. While
    database or Redis fail it tries again after 0.05 s, doubling to 5 s. The first failure and the recovery are logged,
    those of an outage by whoever connects to the server.
    Cancelling rolls back the current pass: its rows stay in the outbox for the next process that drains. That takes
    5 seconds at most, even if the database hangs.

    All processes must have one REDIS_URL and CACHE_KEY_PREFIX. With REDIS_URL unset only this process's memory is
    invalidated, and no other process will see the row.

    :param interval: seconds between two checks; each is one small query.
    :raises CacheValueError: if interval is not above 0 and at most one year.
    :raises ConfigurationError: DATABASE_URL or REDIS_URL cannot be used.
    """
    if not isinstance(interval, int | float) or isinstance(interval, bool) or not 0 < interval <= 86_400 * 365:
        raise CacheValueError(f"interval must be seconds above 0, at most a year, got {interval!r:.80}")
    get_database()
    await open_cache("")
    failed, told = 0, False
    with hung_bell() as bell:
        while True:
            attempt = await _rolled_back_in_time(asyncio.create_task(_attempt(), name="outbox"))
            if attempt.drained:
                if told:
                    logger.info("the outbox is drained again")
                failed, told = 0, False
                await bell.wait(interval)
            else:
                if attempt.trouble and not told:
                    logger.warning("the outbox cannot be drained and will be tried again: %s", attempt.trouble)
                    told = True
                counters.failures += 1
                await asyncio.sleep(_PAUSES.pause(failed))
                failed += 1


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How a pass ended.

    :param trouble: what went wrong and nobody else logs.
    """

    drained: bool
    trouble: str | None = None


async def _attempt() -> _Attempt:
    """Drain, and return what came of it."""
    database = get_database()
    try:
        drained = await drain(database)
    except DatabaseUnavailableError as exc:
        database.availability.failed(exc)
        return _Attempt(drained=False)
    except AgentServiceError as exc:
        return _Attempt(drained=False, trouble=str(exc))
    except Exception as exc:  # noqa: BLE001 - one row must not end the task that all others wait for
        return _Attempt(drained=False, trouble=f"a row raises {type(exc).__name__}")
    if database.availability.away:
        database.availability.answered()
    return _Attempt(drained=not drained.cache_is_away)


async def _rolled_back_in_time(attempt: "asyncio.Task[_Attempt]") -> _Attempt:
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        attempt.cancel()
        await asyncio.wait({attempt}, timeout=_PATIENCE)
        raise
