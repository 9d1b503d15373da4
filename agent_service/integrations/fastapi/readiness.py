"""Whether a service that runs can serve: all that it needs is asked at once, within two seconds."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from agent_service.core.supervision import Supervised
from agent_service.integrations.fastapi.parts import Parts

if TYPE_CHECKING:
    from agent_service.infrastructure.database.engine.manager import DatabaseManager
    from agent_service.infrastructure.redis.manager import RedisManager

__all__ = ["PartState", "Readiness", "Status", "worst"]

PATIENCE: Final = 2.0
"""Seconds that all checks together may take."""

Status: TypeAlias = Literal["up", "degraded", "down"]
_STATUSES: Final[tuple[Status, ...]] = ("up", "degraded", "down")


@dataclass(frozen=True, slots=True)
class PartState:
    """What one part answered: ``latency_ms`` of a small question, and the reason if it is not up."""

    status: Status
    latency_ms: float | None = None
    reason: str | None = None


def worst(states: Mapping[str, PartState]) -> Status:
    """Return the status of a service whose parts are in these states."""
    return max((state.status for state in states.values()), key=_STATUSES.index, default="up")


class Readiness:
    """Asks the parts of a service. Whoever asks meanwhile shares the answer, so that probes never add up."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._asking: asyncio.Task[dict[str, PartState]] | None = None
        self._running: set[asyncio.Future[PartState]] = set()

    async def ask(self) -> dict[str, PartState]:
        """Return the state of each part.

        Redis that does not serve is degraded, because memory serves for the cache; so is a database whose connections
        are all in use, and background work that fails. A database is down if it cannot be reached, or lacks a
        migration.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="readiness")
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """End the checks that still run."""
        running: set[asyncio.Future[Any]] = self._running | ({self._asking} if self._asking is not None else set())
        for each in running:
            each.cancel()
        if running:
            await asyncio.wait(running)

    async def _ask(self) -> dict[str, PartState]:
        checks = {name: asyncio.ensure_future(check()) for name, check in self._checks()}
        states = {}
        for check in checks.values():
            self._running.add(check)
            check.add_done_callback(self._running.discard)
        if checks:
            await asyncio.wait(checks.values(), timeout=PATIENCE)
        for name, check in checks.items():
            states[name] = check.result() if check.done() else self._silent(name)
            check.cancel()
        for work in self._parts.background:
            states[_free(f"background.{work.name}", states)] = _of_work(work)
        return states

    def _checks(self) -> Iterator[tuple[str, Callable[[], Awaitable[PartState]]]]:
        parts = self._parts
        if parts.redis is not None:
            yield "cache", partial(_of_redis, parts.redis)
        if parts.database is not None:
            yield "database", partial(_of_database, parts.database)
        if parts.runtime is not None and parts.runtime.redis is not parts.redis:
            yield "runtime.redis", partial(_of_redis, parts.runtime.redis)
        if parts.runtime is not None and parts.runtime.database is not parts.database:
            yield "runtime.database", partial(_of_database, parts.runtime.database)

    def _silent(self, name: str) -> PartState:
        reason = f"no answer within {PATIENCE:g} s"
        if not name.endswith("database"):
            return PartState("degraded", reason=reason)
        runtime = self._parts.runtime
        database = self._parts.database if name == "database" or runtime is None else runtime.database
        if database is not None and (pool := database.get_metrics())["in_use"] >= pool["limit"]:
            return PartState("degraded", reason=f"all {pool['limit']} connections are in use")
        return PartState("down", reason=reason)


def _free(name: str, taken: Container[str]) -> str:
    """Return the name, numbered if other work has it: no state may hide another one."""
    names = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
    return next(each for each in names if each not in taken)


async def _of_redis(redis: "RedisManager") -> PartState:
    if not redis.is_configured:  # caches live in memory
        return PartState("up")
    return _of_report(await redis.health_check(), "degraded")


async def _of_database(database: "DatabaseManager") -> PartState:
    return _of_report(await database.health_check(), "down")


def _of_report(report: Mapping[str, Any], otherwise: Status) -> PartState:
    return PartState("up" if report["ok"] else otherwise, report["latency_ms"], report["error"])


def _of_work(work: Supervised) -> PartState:
    return PartState("degraded", reason="it fails; see the log") if work.failing else PartState("up")
