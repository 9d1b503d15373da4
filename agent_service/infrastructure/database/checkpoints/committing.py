"""Group commit: what all tasks of a process write to threads, joined into one statement and one commit.

As :class:`~agent_service.infrastructure.database.append.writer.SessionWriter` does for messages, and with the same
lines and lanes: a batch is whatever waits in a line. So a batch grows with the load and is a batch of one without any.
All changes may be repeated, so a batch is sent again whenever its outcome is not known.

On PostgreSQL each tenant has as many lines as there are lanes, and a thread always the same one. So its changes stay in
order, and a thread whose row somebody has locked keeps only those of its line waiting.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from zlib import crc32

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.deadline import Deadline
from agent_service.core.errors import AgentServiceError, DatabaseUnavailableError, SessionError
from agent_service.core.exception_copies import bare_copy
from agent_service.core.tracing import Server, measured
from agent_service.infrastructure.database.append.committer import Committer, open_committers
from agent_service.infrastructure.database.append.deadlines import Deadlines
from agent_service.infrastructure.database.append.lines import Lines
from agent_service.infrastructure.database.append.sqlite import Run
from agent_service.infrastructure.database.checkpoints.batch import Rows, rows_of
from agent_service.infrastructure.database.checkpoints.changes import Change
from agent_service.infrastructure.database.checkpoints.postgres import Statement, statement_for
from agent_service.infrastructure.database.checkpoints.sqlite import write_locked
from agent_service.infrastructure.database.checkpoints.writing import moved_now, write_rows
from agent_service.infrastructure.database.engine.servers import server_of
from agent_service.infrastructure.database.errors.retrying import Failure, classify, pause_before
from agent_service.infrastructure.database.errors.translation import translate

__all__ = ["CheckpointWriter"]

_ACTION: Final = "save a checkpoint"
_PATIENCE: Final = 10.0
"""Seconds for which a batch is sent again, if its failures allow that. A restart of PostgreSQL takes less."""
_ROOM: Final = 10_000
"""Changes of one tenant that wait to be sent; later callers wait for room."""
_TABLE: Final = "checkpoints"


@dataclass(slots=True, eq=False)
class _Request:
    """A change, and the future of its answer."""

    tenant_id: str
    change: Change
    future: "asyncio.Future[None]"
    size: int
    count: int = 1
    place: None = None
    alone: bool = False


@dataclass(slots=True)
class _Batch:
    """The rows of one transaction."""

    tenant_id: str
    rows: Rows

    def statement(self) -> Statement:
        return statement_for(self.tenant_id, self.rows)

    def locked(self, run: Run) -> None:
        write_locked(run, self.tenant_id, self.rows)

    def within(self, connection: Connection) -> None:
        write_rows(connection, self.tenant_id, self.rows)


class CheckpointWriter:
    """Writes changes of any tenant's threads, many per commit. :meth:`write` returns after the commit.

    Changes of one caller that are given one after the other are committed in that order or together. Belongs to the
    event loop on which it was opened.

    :param timeout: seconds after which :meth:`write` gives up.
    """

    def __init__(self, engine: AsyncEngine, *, timeout: float) -> None:
        self._timeout = timeout
        self._deadlines = Deadlines(timeout)
        self._lines: Lines[_Request] = Lines(_ROOM)
        self._server: Callable[[], Server] = partial(server_of, engine.sync_engine)
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._open = True
        committers = open_committers(engine, SYSTEM_CLOCK)
        self._parts = len(committers)
        self._working = asyncio.create_task(self._work(committers), name="checkpoint-writer")

    async def write(self, tenant_id: str, change: Change) -> None:
        """Write a change and return after the commit. It survives a crash of this process, and of the server, then.

        :raises DatabaseUnavailableError: the database cannot be reached, or did not answer in time; the change may be
            stored, and may be written again.
        :raises DatabaseError: it refused the change.
        """
        if not self._open:
            raise SessionError("the writer is closed; it writes until close()")
        request = _Request(tenant_id, change, asyncio.get_running_loop().create_future(), change.size)
        self._deadlines.watch(request.future)
        self._unanswered += 1
        part = crc32(change.thread_id.encode()) % self._parts
        line = self._lines.enter(f"{part} {tenant_id}", request)
        try:
            await request.future
        except TimeoutError as exc:
            raise DatabaseUnavailableError(
                f"could not {_ACTION} within {self._timeout:g} s; it may be stored, and may be saved again"
            ) from exc
        finally:
            if not request.future.cancel() and not request.future.cancelled():
                request.future.exception()  # Marks an error that came too late as seen.
            self._lines.leave(line, request)
            self._unanswered -= 1
            if not self._open and not self._unanswered:
                self._answered.set()

    async def close(self) -> None:
        """Wait until every caller was answered, and let go of the database."""
        self._open = False
        try:
            if self._unanswered:
                await self._answered.wait()
            self._lines.close()
            await asyncio.shield(self._working)
        finally:
            self._working.cancel()
            await asyncio.wait([self._working])
            self._deadlines.close()

    async def _work(self, committers: Sequence[Committer]) -> None:
        try:
            async with asyncio.TaskGroup() as lanes:
                for committer in committers:
                    lanes.create_task(self._work_off(committer))
        finally:
            self._open = False
            _abandon(self._lines.abandon())

    async def _work_off(self, committer: Committer) -> None:
        requests: list[_Request] = []
        try:
            while (line := await self._lines.next()) is not None:
                requests = line.take()
                if requests:
                    await self._deliver(committer, requests[0].tenant_id, requests)
                # Callers that were answered just now run first, so that what they write next joins the next batch.
                await asyncio.sleep(0)
                self._lines.give_back(line)
        finally:
            _abandon(requests)
            await committer.close()

    async def _deliver(self, committer: Committer, tenant_id: str, requests: list[_Request]) -> None:
        attempt, deadline = 0, Deadline.after(_PATIENCE, SYSTEM_CLOCK.monotonic)
        while requests := [each for each in requests if not each.future.done()]:
            try:
                batch = _Batch(tenant_id, rows_of((each.change for each in requests), moved_now()))
                async with asyncio.timeout(self._timeout):
                    with measured(self._server, "write", _TABLE):
                        await committer.commit(tenant_id, batch)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the callers are told, and the next batch is sent
                failure = classify(exc)
                if failure is Failure.REFUSED and len(requests) > 1:
                    middle = len(requests) // 2
                    await self._deliver(committer, tenant_id, requests[:middle])
                    await self._deliver(committer, tenant_id, requests[middle:])
                    return
                if failure is Failure.REFUSED or deadline.over:
                    _fail(requests, exc)
                    return
                attempt += 1
                await asyncio.sleep(pause_before(attempt))
            else:
                for request in requests:
                    if not request.future.done():
                        request.future.set_result(None)
                return


def _fail(requests: Iterable[_Request], exc: Exception) -> None:
    if isinstance(exc, TimeoutError):
        error: AgentServiceError = DatabaseUnavailableError(f"could not {_ACTION}: the database did not answer in time")
    else:
        error = exc if isinstance(exc, AgentServiceError) else translate(exc, _ACTION)
    for request in requests:
        if not request.future.done():
            own = bare_copy(error)
            own.__cause__ = exc
            request.future.set_exception(own)


def _abandon(requests: Iterable[_Request]) -> None:
    """Fail the requests whose callers still wait: the writer has stopped."""
    _fail(requests, DatabaseUnavailableError(f"could not {_ACTION}: the writer was closed meanwhile"))
