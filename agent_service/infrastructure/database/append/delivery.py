"""Bringing a batch of messages to the database and an answer to everyone who waits for one, whatever happens."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from agent_service.core.clock import Clock
from agent_service.core.errors import AgentServiceError, DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.append.batch import BatchAppend, Entry
from agent_service.infrastructure.database.append.group_commit import Answer, GroupCommit
from agent_service.infrastructure.database.errors.lost import FAILURES
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.errors.retrying import Failure, classify, pause_before
from agent_service.infrastructure.database.errors.translation import translate
from agent_service.infrastructure.database.limits import SessionLimits
from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["ACTION", "Caller", "Delivery"]

ACTION: Final = "append a message"
PATIENCE: Final = 10.0
"""Seconds for which a batch is sent again, if its failures allow that. A restart of PostgreSQL takes less."""


@dataclass(slots=True, eq=False)
class Caller:
    """Someone who waits for the answer about an entry."""

    entry: Entry
    answer: "asyncio.Future[SessionMessage]"
    sent: bool = False

    def leave(self) -> None:
        """Wait no longer: what was not sent yet never will be."""
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # Asked for, so that nobody complains about an error that came too late.


@dataclass(slots=True, eq=False)
class _Order:
    """An entry, and all who wait for it: the same message given twice at the same time is sent once."""

    entry: Entry
    callers: list[Caller] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        return any(not caller.answer.done() for caller in self.callers)

    def succeed(self, message: SessionMessage) -> None:
        for caller in self.callers:
            if not caller.answer.done():
                caller.answer.set_result(message)

    def fail(self, error: AgentServiceError, cause: BaseException | None = None) -> None:
        for caller in self.callers:
            if not caller.answer.done():
                own = type(error)(*error.args)
                own.__cause__ = cause
                caller.answer.set_exception(own)


class Delivery:
    """Commits batches for callers, repeats what may be repeated, and finds the one message that spoils a batch."""

    def __init__(
        self, commits: GroupCommit, tenant_id: str, *, limits: SessionLimits, clock: Clock, timeout: float
    ) -> None:
        self._commits = commits
        self._tenant_id = tenant_id
        self._limits = limits
        self._clock = clock
        self._timeout = timeout

    async def deliver(self, callers: Iterable[Caller]) -> None:
        """Answer every caller; those who left before their message was sent have nothing sent."""
        await self._deliver(_join(callers))

    async def _deliver(self, orders: list[_Order]) -> None:
        attempt, deadline = 0, self._clock.monotonic() + PATIENCE
        while orders := [order for order in orders if order.wanted]:
            try:
                async with asyncio.timeout(self._timeout):
                    answers = await self._commit(orders)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the callers are told, and the next batch is sent
                failure = classify(exc)
                if failure is Failure.REFUSED and len(orders) > 1:
                    middle = len(orders) // 2
                    await self._deliver(orders[:middle])
                    await self._deliver(orders[middle:])
                    return
                attempt += 1
                over = self._clock.monotonic() >= deadline
                orders = _left_to_repeat(orders, exc, Failure.REFUSED if over else failure)
                if orders:
                    await asyncio.sleep(pause_before(attempt))
            else:
                self._answer(orders, answers)
                return

    async def _commit(self, orders: Sequence[_Order]) -> list[Answer]:
        for order in orders:
            for caller in order.callers:
                caller.sent = True
        now = self._clock.now()
        entries = [order.entry for order in orders]
        return await self._commits.commit(BatchAppend(self._tenant_id, entries, now, now + self._limits.expiry))

    def _answer(self, orders: Sequence[_Order], answers: Sequence[Answer]) -> None:
        totals: dict[UUID, int] = {}
        for order, (result, total_messages) in zip(orders, answers, strict=True):
            if isinstance(result, AgentServiceError):
                order.fail(result)
            else:
                order.succeed(result)
            if total_messages:
                totals[order.entry.session_id] = total_messages
        for session_id, count in totals.items():
            self._limits.warn_if_long(session_id, count)


def _join(callers: Iterable[Caller]) -> list[_Order]:
    orders: dict[object, _Order] = {}
    for caller in callers:
        order = orders.setdefault(caller.entry.key or caller, _Order(caller.entry))
        order.callers.append(caller)
    return list(orders.values())


def _left_to_repeat(orders: list[_Order], exc: Exception, failure: Failure) -> list[_Order]:
    """Tell those who cannot be helped, and give the others."""
    if failure in {Failure.ROLLED_BACK, Failure.NOT_REACHED}:
        return orders
    left = [order for order in orders if failure is Failure.UNKNOWN and order.entry.key is not None]
    for order in orders:
        if order not in left:
            order.fail(_translated(exc), exc)
    return left


def _translated(exc: Exception) -> AgentServiceError:
    unknown = classify(exc) is Failure.UNKNOWN
    if isinstance(exc, TimeoutError):
        error: AgentServiceError = DatabaseUnavailableError(f"could not {ACTION}: the database did not answer in time")
    elif isinstance(exc, (SQLAlchemyError, *FAILURES)):
        error = translate(exc, ACTION)
    elif isinstance(exc, AgentServiceError):
        return exc
    else:
        return DatabaseError(f"could not {ACTION}: {reason_of(exc)}")
    return type(error)(f"{error}; it may be stored, append it with a client_id to be sure") if unknown else error
