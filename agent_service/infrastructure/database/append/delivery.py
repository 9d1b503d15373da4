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
from agent_service.infrastructure.database.append.message import ClientKey, PendingMessage, identity_of
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
        await self._deliver(tenant_id, list(requests))

    async def _deliver(self, tenant_id: str, requests: list[Request]) -> None:
        attempt, overtaken, deadline = 0, 0, Deadline.after(PATIENCE, self._clock.monotonic)
        while requests := [request for request in requests if request.wanted]:
            try:
                async with asyncio.timeout(self._timeout):
                    outcomes = await self._commit(tenant_id, requests)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the callers are told, and the next batch is sent
                failure = classify(exc)
                if failure is Failure.OVERTAKEN:
                    # Each repetition finds at least one message more. What still fails then is no client id.
                    overtaken += 1
                    if overtaken <= sum(len(request.messages) for request in requests) + 1:
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
                    if isinstance(outcome, SessionError):
                        request.fail(outcome)
                    else:
                        request.succeed(outcome)
                return

    async def _commit(self, tenant_id: str, requests: Sequence[Request]) -> list[list[SessionMessage] | SessionError]:
        """Commit the messages as one batch, and return what comes of each request."""
        for request in requests:
            request.sent = True
        now = self._clock.now()
        batch = Batch(tenant_id, _unique(requests), now, now + self._limits.expiry)
        with commit(len(batch.messages)), measured(self._server, "append", MESSAGES):
            places = await self._committer.append(batch)
        outcomes: dict[object, SessionMessage | SessionError] = {}
        totals: dict[UUID, int] = {}
        left: list[PendingMessage] = []
        for message, place in zip(batch.messages, places, strict=True):
            if place is None:
                left.append(message)
            else:
                outcomes[identity_of(message)] = batch.stored(message, place.seq)
                totals[message.session_id] = place.total_messages
        if left:
            earlier, sessions = await self._committer.read(_find, tenant_id, left)
            outcomes |= {identity_of(each): _explain(each, tenant_id, earlier, sessions) for each in left}
        for session_id, count in totals.items():
            self._limits.warn_if_long(session_id, count, tenant_id)
        return [_answer(request, outcomes) for request in requests]


def _unique(requests: Sequence[Request]) -> list[PendingMessage]:
    """Return the first message of each key, in the order of the requests."""
    if len(requests) == 1 and len(requests[0].messages) == 1:
        return list(requests[0].messages)
    first: dict[object, PendingMessage] = {}
    for request in requests:
        for message in request.messages:
            first.setdefault(identity_of(message), message)
    return list(first.values())


def _answer(
    request: Request, outcomes: Mapping[object, SessionMessage | SessionError]
) -> list[SessionMessage] | SessionError:
    """Return the stored messages of a request, or why they were not stored: they stand in one session, so none was."""
    stored: list[SessionMessage] = []
    for message in request.messages:
        outcome = outcomes[identity_of(message)]
        if isinstance(outcome, SessionError):
            return outcome
        stored.append(outcome)
    return stored


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
    left = [request for request in requests if failure is Failure.UNKNOWN and request.repeatable]
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
