"""Committing the writer's requests and answering each of them, whatever happens."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from agent_service.core.clock import Clock
from agent_service.core.deadline import Deadline
from agent_service.core.errors import (
    AgentServiceError,
    DatabaseError,
    DatabaseUnavailableError,
    SessionConflictError,
    SessionError,
)
from agent_service.core.tracing import Server, measured
from agent_service.infrastructure.database.append.batch import Batch
from agent_service.infrastructure.database.append.committer import Committer
from agent_service.infrastructure.database.append.measured import commit
from agent_service.infrastructure.database.append.message import ClientKey, PendingMessage
from agent_service.infrastructure.database.append.request import Request
from agent_service.infrastructure.database.append.statements import find_earlier, find_sessions
from agent_service.infrastructure.database.engine.servers import MESSAGES
from agent_service.infrastructure.database.errors.lost import FAILURES
from agent_service.infrastructure.database.errors.reasons import reason_of
from agent_service.infrastructure.database.errors.retrying import Failure, classify, pause_before
from agent_service.infrastructure.database.errors.sessions import session_not_found
from agent_service.infrastructure.database.errors.translation import translate
from agent_service.infrastructure.database.limits import SessionLimits
from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["ACTION", "Delivery"]

ACTION: Final = "append a message"
PATIENCE: Final = 10.0
"""Seconds for which a batch is sent again, if its failures allow that. A restart of PostgreSQL takes less."""


class Delivery:
    """Commits batches, repeats what may be repeated, and finds the one message that spoils a batch."""

    def __init__(
        self,
        committer: Committer,
        *,
        limits: SessionLimits,
        clock: Clock,
        timeout: float,
        server: Callable[[], Server],
    ) -> None:
        self._committer = committer
        self._server = server
        self._limits = limits
        self._clock = clock
        self._timeout = timeout

    async def deliver(self, tenant_id: str, requests: Iterable[Request]) -> None:
        """Answer every request of a tenant; messages whose callers left before they were sent are not sent."""
        await self._deliver(tenant_id, _join(requests))

    async def _deliver(self, tenant_id: str, requests: list[Request]) -> None:
        attempt, overtaken, deadline = 0, 0, Deadline.after(PATIENCE, self._clock.monotonic)
        while requests := [request for request in requests if request.wanted]:
            try:
                async with asyncio.timeout(self._timeout):
                    with commit(len(requests)):
                        outcomes = await self._commit(tenant_id, requests)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the callers are told, and the next batch is sent
                failure = classify(exc)
                if failure is Failure.OVERTAKEN:
                    # Each repetition finds at least one message more. What still fails then is no client id.
                    overtaken += 1
                    if overtaken <= len(requests) + 1:
                        continue
                    failure = Failure.REFUSED
                if failure is Failure.REFUSED and len(requests) > 1:
                    middle = len(requests) // 2
                    await self._deliver(tenant_id, requests[:middle])
                    await self._deliver(tenant_id, requests[middle:])
                    return
                attempt += 1
                requests = _left_to_repeat(requests, exc, Failure.REFUSED if deadline.over else failure)
                if requests:
                    await asyncio.sleep(pause_before(attempt))
            else:
                for request, outcome in zip(requests, outcomes, strict=True):
                    if isinstance(outcome, SessionMessage):
                        request.succeed(outcome)
                    else:
                        request.fail(outcome)
                return

    async def _commit(self, tenant_id: str, requests: Sequence[Request]) -> list[SessionMessage | SessionError]:
        """Commit the messages as one batch, and return what comes of each."""
        for request in requests:
            request.mark_sent()
        now = self._clock.now()
        batch = Batch(tenant_id, [each.message for each in requests], now, now + self._limits.expiry)
        with measured(self._server, "append", MESSAGES):
            places = await self._committer.append(batch)
        placed = list(zip(batch.messages, places, strict=True))
        left = [message for message, place in placed if place is None]
        earlier: Mapping[ClientKey, SessionMessage] = {}
        sessions: Collection[UUID] = ()
        if left:
            earlier, sessions = await self._committer.read(_find, tenant_id, left)
        totals = {message.session_id: place.total_messages for message, place in placed if place is not None}
        for session_id, count in totals.items():
            self._limits.warn_if_long(session_id, count, tenant_id)
        return [
            batch.stored(message, place.seq) if place is not None else _explain(message, tenant_id, earlier, sessions)
            for message, place in placed
        ]


def _join(requests: Iterable[Request]) -> list[Request]:
    """Return the first request of each key, with those of the same key as its repetitions."""
    first: dict[object, Request] = {}
    for request in requests:
        lead = first.setdefault(request.message.key or request, request)
        if lead is not request:
            lead.repetitions.append(request)
    return list(first.values())


def _find(
    connection: Connection, tenant_id: str, messages: Collection[PendingMessage]
) -> tuple[Mapping[ClientKey, SessionMessage], Collection[UUID]]:
    """Return what was appended earlier under the messages' keys, and which of their sessions there are."""
    earlier = find_earlier(connection, tenant_id, [message.key for message in messages if message.key])
    return earlier, find_sessions(connection, tenant_id, [message.session_id for message in messages])


def _explain(
    message: PendingMessage, tenant_id: str, earlier: Mapping[ClientKey, SessionMessage], sessions: Collection[UUID]
) -> SessionMessage | SessionError:
    """Say why a message was not added: it was appended before, or its session is not there."""
    if message.key is not None and message.key in earlier:
        return earlier[message.key]
    if message.session_id not in sessions:
        return session_not_found(message.session_id, tenant_id)
    if message.expected_seq is not None:
        return SessionConflictError(
            f"session {message.session_id} is not at last_seq {message.expected_seq}, which the message expected; read "
            "what is new and decide again"
        )
    return SessionConflictError(
        f"session {message.session_id} changed while the message was appended, and it was not; append it again"
    )


def _left_to_repeat(requests: list[Request], exc: Exception, failure: Failure) -> list[Request]:
    """Fail the requests that cannot be repeated, and return the others."""
    if failure in {Failure.ROLLED_BACK, Failure.NOT_REACHED}:
        return requests
    left = [request for request in requests if failure is Failure.UNKNOWN and request.message.key is not None]
    for request in requests:
        if request not in left:
            request.fail(_translated(exc), exc)
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
