"""Group commit: the appends of all tasks of a process, joined into one statement and one commit.

Callers put their messages into the line of their tenant (``lines.py``). A task takes everything that waits there,
commits it as a batch, and answers each caller; what arrives meanwhile is the next batch. So a batch grows with the load
and is a batch of one without any.

A batch is of one tenant, so that row-level security sees each transaction work for one tenant, and so that a tenant
whose session is locked keeps no other waiting. On PostgreSQL there are several tasks, each with a connection of its
own: as many work as there are tenants with messages.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import AgentServiceError, DatabaseUnavailableError, SessionError, SessionValueError
from agent_service.core.tracing import Server, traced
from agent_service.infrastructure.database.append.committer import Committer, open_committers
from agent_service.infrastructure.database.append.deadlines import Deadlines
from agent_service.infrastructure.database.append.delivery import ACTION, Delivery
from agent_service.infrastructure.database.append.lines import Line, Lines
from agent_service.infrastructure.database.append.measured import APPENDS, counted
from agent_service.infrastructure.database.append.message import PendingMessage, accept_message, accept_messages
from agent_service.infrastructure.database.append.request import Request
from agent_service.infrastructure.database.append.tenant_writer import TenantWriter
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.engine.servers import MESSAGES, server_of
from agent_service.infrastructure.database.limits import SessionLimits, limits_from_settings
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.transactions.own_sessions import require_engine
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.validation import (
    MAX_SEQ,
    optional_count,
    require_count,
    require_session_id,
    require_tenant,
)

__all__ = ["SessionWriter"]

_PAUSE: Final = 0.02
"""Seconds without an append after which there is time for other work."""


class WritersTenant(Enum):
    """The type of :data:`WRITERS_TENANT`."""

    WRITERS_TENANT = "the writer's tenant"


WRITERS_TENANT: Final = WritersTenant.WRITERS_TENANT
"""Stands for the tenant that a writer was made for. It is not None, which a caller may have by mistake."""


class SessionWriter:
    """Appends to any number of sessions of any tenant, many messages per commit. Use one per process.

    ::

        async with SessionWriter() as writer:
            message = await writer.append(session_id, {"role": "user", "content": "Hi"}, client_id=request_id)
            message = await writer.append(session_id, {"role": "user", "content": "Hi"}, tenant_id="acme")

    ``append`` returns after the commit, and only then: what it returned survives a crash of this process and of the
    server. One caller's bad message, unknown session, cancellation or timeout does nothing to the others. Tenants take
    turns, so one with many messages does not keep the others waiting. Leaving the block waits for what was begun.

    An ``append`` outside of a caller's transaction: do not wait for one while holding a transaction that has written to
    the same session (on SQLite: to anything), because each would wait for the other.

    :param engine: the database; None is the one of the settings. It is not closed here.
    :param tenant_id: whose sessions these are where ``append`` names no tenant.
    :param max_pending: appends of one tenant that wait to be sent; with more of them the next one waits for room.
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
        self._lines: Lines[Request] = Lines(require_count(max_pending, "max_pending", most=10**9))
        self._open = False
        self._unanswered = 0
        self._all_answered = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._server: Callable[[], Server]

    async def __aenter__(self) -> Self:
        if self._working is not None:
            raise SessionError("the writer was opened before; make a new SessionWriter")
        database = get_database() if self._given is None else self._given
        if isinstance(database, DatabaseManager):
            await database.prepare()
            database = database.engine
        committers = open_committers(database, self._clock)
        self._server = partial(server_of, database.sync_engine)
        self._working = asyncio.create_task(self._work(committers), name="session-writer")
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
            self._lines.close()
            await asyncio.shield(self._working)
        finally:
            self._working.cancel()
            await asyncio.wait([self._working])
            self._deadlines.close()
            APPENDS.writers.discard(self)

    @property
    def pending(self) -> int:
        """How many appends are not answered yet."""
        return self._unanswered

    def metrics(self) -> dict[str, Any]:
        """Return how many messages are ``pending`` here, and what the writers of this process have counted. No I/O.

        ``commits`` is how many transactions there were, and ``messages`` how many messages they appended; ``outcomes``
        counts the answers of ``append`` by ``ok``, ``refused``, ``unavailable``, ``failed`` and ``cancelled``.
        ``commit`` and ``append`` are durations: ``count``, ``mean_ms``, ``p50_ms``, ``p95_ms`` and ``p99_ms``.
        """
        return {"pending": self.pending, **APPENDS.snapshot()}

    def for_tenant(self, tenant_id: str) -> TenantWriter:
        """Return a view of this writer whose ``append`` works for one tenant. It costs nothing to make or to drop.

        :raises SessionValueError: ``tenant_id`` cannot name a tenant.
        """
        return TenantWriter(self.append, self.append_many, require_tenant(tenant_id))

    async def append(
        self,
        session_id: UUID | str,
        message: Mapping[str, Any],
        *,
        role: str | None = None,
        client_id: str | None = None,
        expected_seq: int | None = None,
        context: Mapping[str, Any] | None = None,
        tenant_id: str | WritersTenant = WRITERS_TENANT,
    ) -> SessionMessage:
        """Append a message and return it as stored, with its sequence number, after the commit.

        As ``SessionRepository.add_message_to_session``, in a transaction that it shares with other callers. After a
        timeout, a cancellation or an error of the connection the message may have been stored; appending it again under
        the same ``client_id`` finds out, and adds nothing if it was. Without one it is not repeated here either.

        :param role: of a message that has none of its own.
        :param client_id: the caller's own id of this message. Appending it again adds nothing and gives the first one.
        :param expected_seq: append only if this is the session's ``last_seq`` (0: none yet).
        :param context: keys to set in the session's context, in the same commit; it counts ``version`` up. Where the
            message was appended before, they are not set again.
        :param tenant_id: whose session it is; as a default the writer's own ``tenant_id``. None names no tenant.
        :raises SessionNotFoundError: the tenant has no such session.
        :raises SessionConflictError: the expectation does not hold; nothing was changed.
        :raises SessionValueError: the message or context cannot be kept exactly, or another argument cannot be used;
            nothing was sent.
        :raises DatabaseUnavailableError: the database cannot be reached, or did not answer within ``timeout``.
        :raises DatabaseError: it refused the message.
        :raises SessionError: the writer is not open.
        """
        tenant = self._tenant_of(tenant_id)
        accepted = accept_message(session_id, message, client_id, role)
        accepted.expected_seq = optional_count(expected_seq, "expected_seq", most=MAX_SEQ)
        accepted.context = encode_document(context, "context", nul=False)[0] if context is not None else None
        (stored,) = await self._append(tenant, (accepted,))
        return stored

    async def append_many(
        self,
        session_id: UUID | str,
        messages: Iterable[Mapping[str, Any]],
        *,
        role: str | Sequence[str | None] | None = None,
        client_ids: Sequence[str | None] | None = None,
        tenant_id: str | WritersTenant = WRITERS_TENANT,
    ) -> list[SessionMessage]:
        """Append messages to one session in their order, all or none, and return them as stored, after the commit.

        As ``SessionRepository.add_messages_to_session``, in a transaction shared with other callers. They get
        consecutive numbers. Without a client id for each of them, they are not repeated after an outage.

        :param role: of those that have none: one for all, or a list of one for each, or None in its place.
        :param client_ids: one for each message, or None in its place; as for :meth:`append`.
        :param tenant_id: as for :meth:`append`, as are the errors.
        :raises SessionValueError: a message cannot be kept exactly, or there are not as many client ids or roles as
            messages; nothing was sent.
        """
        tenant = self._tenant_of(tenant_id)
        accepted = accept_messages(require_session_id(session_id), messages, role, client_ids)
        return list(await self._append(tenant, accepted)) if accepted else []

    def _tenant_of(self, tenant_id: str | WritersTenant) -> str:
        tenant = self._tenant_id if tenant_id is WRITERS_TENANT else require_tenant(tenant_id)
        if not self._open:
            raise SessionError("the writer is not open; append within: async with SessionWriter() as writer")
        return tenant

    async def _append(self, tenant: str, accepted: Sequence[PendingMessage]) -> Sequence[SessionMessage]:
        request = Request(accepted, asyncio.get_running_loop().create_future())
        self._deadlines.watch(request.future)
        self._unanswered += 1
        line = self._lines.enter(tenant, request)
        try:
            with (
                counted("writer", len(accepted)),
                traced(self._server, "append", MESSAGES, session_id=accepted[0].session_id),
            ):
                return await request.future
        except TimeoutError as exc:
            raise DatabaseUnavailableError(
                f"could not {ACTION} within {self._timeout:g} s; "
                + ("it may be stored, append it with a client_id to be sure" if request.sent else "it was not sent")
            ) from exc
        finally:
            request.leave()
            self._lines.leave(line, request)
            self._unanswered -= 1
            if not self._open and not self._unanswered:
                self._all_answered.set()

    async def _work(self, committers: Sequence[Committer]) -> None:
        try:
            async with asyncio.TaskGroup() as lanes:
                for committer in committers:
                    lanes.create_task(self._work_off(committer))
        finally:
            self._open = False
            _abandon(self._lines.abandon())

    async def _work_off(self, committer: Committer) -> None:
        """Commit the batches of one line after the other, over one connection."""
        delivery = Delivery(
            committer, limits=self._limits, clock=self._clock, timeout=self._timeout, server=self._server
        )
        batch: list[Request] = []
        try:
            while (line := await self._next(committer)) is not None:
                batch = line.take()
                await delivery.deliver(line.tenant_id, batch)
                # Callers that were answered just now run first, so that their next messages join the next batch.
                await asyncio.sleep(0)
                self._lines.give_back(line)
        finally:
            _abandon(batch)
            await committer.close()

    async def _next(self, committer: Committer) -> Line[Request] | None:
        """Wait for a line that has requests; while none has, catch up with what appending put off."""
        while committer.behind:
            try:
                async with asyncio.timeout(_PAUSE):
                    return await self._lines.next()
            except TimeoutError:
                if not await self._caught_up(committer):
                    break
        return await self._lines.next()

    async def _caught_up(self, committer: Committer) -> bool:
        """Catch up a little; False: the database cannot be written to now, so try after the next append."""
        try:
            await committer.catch_up()
        except (SQLAlchemyError, AgentServiceError):
            return False
        return True


def _abandon(requests: Iterable[Request]) -> None:
    """Fail the requests whose callers still wait: the writer has stopped."""
    error = f"could not {ACTION}: the writer was closed meanwhile; "
    for request in requests:
        if not request.future.done():
            outcome = "it may be stored, append it with a client_id to be sure" if request.sent else "it was not sent"
            request.future.set_exception(DatabaseUnavailableError(error + outcome))
