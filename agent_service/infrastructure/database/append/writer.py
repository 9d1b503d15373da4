"""Group commit: the appends of all tasks of a process, joined into one statement and one commit.

Callers put their messages into a queue. One task takes everything that is waiting, commits it as a batch, and answers
each caller; what arrives meanwhile is the next batch. So a batch grows with the load and is a batch of one without any.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import AgentServiceError, DatabaseUnavailableError, SessionError, SessionValueError
from agent_service.infrastructure.database.append.committer import Committer, open_committer
from agent_service.infrastructure.database.append.deadlines import Deadlines
from agent_service.infrastructure.database.append.delivery import ACTION, Delivery
from agent_service.infrastructure.database.append.measured import APPENDS, counted
from agent_service.infrastructure.database.append.message import accept_message
from agent_service.infrastructure.database.append.request import Request
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.limits import SessionLimits, limits_from_settings
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.transactions.own_sessions import require_engine
from agent_service.infrastructure.database.values.validation import (
    require_count,
    require_tenant,
)

__all__ = ["SessionWriter"]

MAX_BATCH: Final = 1000
"""Messages in one transaction: how long a statement may hold its sessions, and what a repetition costs."""
MAX_BATCH_CHARACTERS: Final = 4_000_000
"""JSON text in one transaction, unless a single message is longer."""
_PAUSE: Final = 0.02
"""Seconds without an append after which there is time for other work."""


class SessionWriter:
    """Appends to any number of sessions of one tenant, many messages per commit. Use one per process.

    ::

        async with SessionWriter() as writer:
            message = await writer.append(session_id, {"role": "user", "content": "Hi"}, client_id=request_id)

    ``append`` returns after the commit, and only then: what it returned survives a crash of this process and of the
    server. One caller's bad message, unknown session, cancellation or timeout does nothing to the others. Leaving the
    block waits for what was begun.

    An ``append`` outside of a caller's transaction: do not wait for one while holding a transaction that has written to
    the same session (on SQLite: to anything), because each would wait for the other.

    :param engine: the database; None is the one of the settings. It is not closed here.
    :param tenant_id: whose sessions these are.
    :param max_pending: messages that wait to be sent; with more of them ``append`` waits for room.
    :param timeout: seconds after which an ``append`` gives up.
    :param limits: replaces what the settings say.
    :param clock: where "now" comes from.
    :raises ConfigurationError: DATABASE_URL cannot be used.
    :raises SessionValueError: an argument cannot be used; it is named.
    """

    def __init__(
        self,
        engine: AsyncEngine | DatabaseManager | None = None,
        *,
        tenant_id: str = "",
        max_pending: int = 10_000,
        timeout: float = 30.0,
        limits: SessionLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout <= 86_400:
            raise SessionValueError(f"timeout must be seconds above 0, at most a day, got {timeout!r:.80}")
        if engine is not None and not isinstance(engine, DatabaseManager):
            require_engine(engine)
        self._given = engine
        self._tenant_id = require_tenant(tenant_id)
        self._timeout = timeout
        self._limits = limits or limits_from_settings()
        self._clock = clock
        self._deadlines = Deadlines(timeout)
        self._queue: asyncio.Queue[Request | None] = asyncio.Queue(
            require_count(max_pending, "max_pending", most=10**9)
        )
        self._open = self._abandoned = False
        self._unanswered = 0
        self._all_answered = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._working is not None:
            raise SessionError("the writer was opened before; make a new SessionWriter")
        database = get_database() if self._given is None else self._given
        if isinstance(database, DatabaseManager):
            await database.prepare()
            database = database.engine
        committer = open_committer(database, self._tenant_id, self._clock)
        self._working = asyncio.create_task(self._work(committer), name="session-writer")
        self._open = True
        APPENDS.writers.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Take no more messages, wait until every caller was answered, and let go of the database.

        Cancelled, it does not wait: callers that were not answered get a DatabaseUnavailableError.
        """
        self._open = False
        if self._working is None:
            return
        try:
            if self._unanswered:
                await self._all_answered.wait()
            await self._queue.put(None)
            await asyncio.shield(self._working)
        finally:
            self._working.cancel()
            await asyncio.wait([self._working])
            self._deadlines.close()
            APPENDS.writers.discard(self)

    @property
    def pending(self) -> int:
        """How many messages are not answered yet."""
        return self._unanswered

    def metrics(self) -> dict[str, Any]:
        """Return how many messages are ``pending`` here, and what the writers of this process have counted. No I/O.

        ``commits`` is how many transactions there were, and ``messages`` how many messages they appended; ``outcomes``
        counts the answers of ``append`` by ``ok``, ``refused``, ``unavailable``, ``failed`` and ``cancelled``.
        ``commit`` and ``append`` are durations: ``count``, ``mean_ms``, ``p50_ms``, ``p95_ms`` and ``p99_ms``.
        """
        return {"pending": self.pending, **APPENDS.snapshot()}

    async def append(
        self, session_id: UUID | str, message: Mapping[str, Any], *, client_id: str | None = None
    ) -> SessionMessage:
        """Append a message and return it as stored, with its sequence number, after the commit.

        As ``SessionRepository.add_message_to_session``, in a transaction that it shares with other callers. After a
        timeout, a cancellation or an error of the connection the message may have been stored; appending it again under
        the same ``client_id`` finds out, and adds nothing if it was. Without one it is not repeated here either.

        :param client_id: the caller's own id of this message. Appending it again adds nothing and gives the first one.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: the message cannot be kept exactly; nothing was sent.
        :raises DatabaseUnavailableError: the database cannot be reached, or did not answer within ``timeout``.
        :raises DatabaseError: it refused the message.
        :raises SessionError: the writer is not open.
        """
        if not self._open:
            raise SessionError("the writer is not open; append within: async with SessionWriter() as writer")
        accepted = accept_message(session_id, message, client_id)
        request = Request(accepted, asyncio.get_running_loop().create_future())
        self._deadlines.watch(request.future)
        self._unanswered += 1
        try:
            with counted("writer"):
                if self._queue.full():
                    await self._enqueue(request)
                else:
                    self._queue.put_nowait(request)
                return await request.future
        except TimeoutError as exc:
            raise DatabaseUnavailableError(
                f"could not {ACTION} within {self._timeout:g} s; "
                + ("it may be stored, append it with a client_id to be sure" if request.sent else "it was not sent")
            ) from exc
        finally:
            request.leave()
            self._unanswered -= 1
            if not self._open and not self._unanswered:
                self._all_answered.set()

    async def _enqueue(self, request: Request) -> None:
        """Wait for room, or until the caller's time is over."""
        entering = asyncio.ensure_future(self._queue.put(request))
        try:
            either: list[asyncio.Future[Any]] = [entering, request.future]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            entering.cancel()
        if self._abandoned and not request.future.done():
            raise _abandoned()

    async def _work(self, committer: Committer) -> None:
        delivery = Delivery(committer, self._tenant_id, limits=self._limits, clock=self._clock, timeout=self._timeout)
        requests: list[Request | None] = []
        try:
            while None not in requests:
                requests = [await self._next(committer)]
                self._fill(requests)
                await delivery.deliver([each for each in requests if each is not None])
                # Callers that were answered just now run first, so that their next messages join the next batch.
                await asyncio.sleep(0)
        finally:
            self._abandon(requests)
            await committer.close()

    async def _next(self, committer: Committer) -> Request | None:
        """Wait for a request; while none comes, catch up with what appending put off."""
        while committer.behind:
            try:
                async with asyncio.timeout(_PAUSE):
                    return await self._queue.get()
            except TimeoutError:
                if not await self._caught_up(committer):
                    break
        return await self._queue.get()

    async def _caught_up(self, committer: Committer) -> bool:
        """Catch up a little; False: the database cannot be written to now, so try after the next append."""
        try:
            await committer.catch_up()
        except (SQLAlchemyError, AgentServiceError):
            return False
        return True

    def _fill(self, requests: list[Request | None]) -> None:
        size = 0
        while len(requests) < MAX_BATCH and not self._queue.empty():
            last = requests[-1]
            size += len(last.message.text) if last is not None else 0
            if size > MAX_BATCH_CHARACTERS:
                break
            requests.append(self._queue.get_nowait())

    def _abandon(self, requests: list[Request | None]) -> None:
        """Fail all requests that still wait: the writer has stopped."""
        self._open, self._abandoned = False, True
        while not self._queue.empty():
            requests.append(self._queue.get_nowait())
        for request in requests:
            if request is not None and not request.future.done():
                request.future.set_exception(_abandoned())


def _abandoned() -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        f"could not {ACTION}: the writer was closed meanwhile; it may be stored, append it with a client_id to be sure"
    )
