"""PostgreSQL stops, dies or is cut off while many tasks append: what was acknowledged stays, nobody waits for ever."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from tests.database.histories import Acknowledged, Reader, check, histories, new_sessions
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.proxy import TcpProxy

TASKS = 20
TIMEOUT = 2.0
SLACK = 3.0
"""Seconds that a busy machine may add."""


@dataclass
class Load:
    """Tasks that append until told to stop. Half of them repeat what failed, under its client id; half go on."""

    writer: SessionWriter
    ids: list[UUID]
    acknowledged: Acknowledged = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    longest: float = 0.0
    _stopped: bool = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Append while the block runs."""
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(self._append(task))
            yield
            self._stopped = True

    async def progress(self, count: int) -> None:
        """Wait until so many more messages were acknowledged."""
        wanted = len(self.acknowledged) + count
        while len(self.acknowledged) < wanted:
            await asyncio.sleep(0.01)

    async def errors_seen(self) -> None:
        """Wait until every task was told."""
        wanted = len(self.errors) + TASKS
        while len(self.errors) < wanted:
            await asyncio.sleep(0.01)

    async def _append(self, task: int) -> None:
        number, repeat = 0, bool(task % 2)
        while not self._stopped:
            client_id = f"{task}-{number}"
            message = {"role": "user", "content": client_id, "token_count": 1}
            started = time.monotonic()
            try:
                session_id = self.ids[task % len(self.ids)]
                stored = await self.writer.append(session_id, message, client_id=client_id)
                self.acknowledged[client_id] = (session_id, stored.seq)
            except DatabaseError as exc:
                self.errors.append(exc)
                await asyncio.sleep(0.05)
                number += not repeat
            else:
                number += 1
            self.longest = max(self.longest, time.monotonic() - started)


async def under_load(url: str, fault: Callable[[Load], Awaitable[None]], reading_url: str | None = None) -> Load:
    """Run the fault while tasks append and a reader reads; then check what is promised."""
    database, reading_database = DatabaseManager(url, pool_size=2), DatabaseManager(reading_url or url)
    ids = await new_sessions(database, 3)
    reader = Reader(reading_database, ids)
    reading = asyncio.create_task(reader.run())
    async with SessionWriter(database, timeout=TIMEOUT) as writer:
        load = Load(writer, ids)
        async with load.running():
            await load.progress(3 * TASKS)
            await fault(load)
            await load.progress(3 * TASKS)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    await check(reading_database, ids, load.acknowledged)
    await database.close()
    await reading_database.close()
    assert load.longest < TIMEOUT + SLACK
    assert all(isinstance(each, DatabaseUnavailableError) for each in load.errors)
    return load


async def test_connections_that_are_cut_at_any_byte_of_a_reply_lose_nothing(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:

        async def cut(load: Load) -> None:
            for size in (0, 1, 7, 40, 100):
                proxy.cut_reply_after(size)
                await load.progress(TASKS)
            proxy.drop()
            await load.progress(TASKS)

        load = await under_load(proxy.url, cut, postgres_url)

    # Every message had a client id, so the writer repeated what it could not know.
    assert load.errors == []


async def test_a_connection_that_stalls_ends_in_our_error_within_the_deadline(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:

        async def stall(load: Load) -> None:
            proxy.stall()
            await load.errors_seen()
            proxy.drop()
            proxy.resume()

        load = await under_load(proxy.url, stall, postgres_url)

    assert load.errors


async def test_without_a_client_id_an_unknown_outcome_is_the_callers_to_know(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:
        database = DatabaseManager(proxy.url)
        (session_id,) = await new_sessions(database, 1)
        async with SessionWriter(database) as writer:
            await writer.append(session_id, {"role": "user", "content": "1"})
            proxy.cut_reply_after(0)
            known, unknown = await asyncio.gather(
                writer.append(session_id, {"role": "user", "content": "2"}, client_id="m2"),
                writer.append(session_id, {"role": "user", "content": "3"}),
                return_exceptions=True,
            )
            after = await writer.append(session_id, {"role": "user", "content": "4"})
        await check_dense(database, session_id)
        await database.close()

    assert not isinstance(known, BaseException)
    assert known.seq == 2
    assert isinstance(unknown, DatabaseUnavailableError)
    assert "may be stored" in str(unknown)
    assert after.content == "4"


async def check_dense(database: DatabaseManager, session_id: UUID) -> None:
    messages = (await histories(database, [session_id]))[session_id]
    assert [seq for seq, _ in messages] == list(range(1, len(messages) + 1))


@pytest.fixture
def durable_server() -> Iterator[PostgresServer]:
    with running_postgres(durable=True) as server:
        yield server


async def migrated(server: PostgresServer) -> str:
    url = server.database_url("postgres")
    database = DatabaseManager(url)
    await database.upgrade()
    await database.close()
    return url


@pytest.mark.faults
async def test_a_server_that_is_stopped_and_goes_on(durable_server: PostgresServer) -> None:
    assert durable_server.pid is not None
    postmaster = psutil.Process(durable_server.pid)

    async def stop(load: Load) -> None:
        processes = [postmaster, *postmaster.children(recursive=True)]
        for each in processes:
            each.suspend()
        try:
            await load.errors_seen()
        finally:
            for each in processes:
                each.resume()

    load = await under_load(await migrated(durable_server), stop)

    assert load.errors


class Restarts:
    """Shuts a server down at once, as a crash does, and starts it again with the same data."""

    def __init__(self, server: PostgresServer) -> None:
        assert server.pid is not None
        self._process = psutil.Process(server.pid)
        self._command, self._home = self._process.cmdline(), Path(self._process.cwd())
        self._started: subprocess.Popen[bytes] | None = None

    def crash(self) -> None:
        """Immediate shutdown: no checkpoint, sessions are cut off."""
        self._end(signal.SIGQUIT)

    def shut_down_fast(self) -> None:
        """Fast shutdown, as service managers do it: sessions are told and ended."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        if self._started is not None:
            self._started.wait(60)
        while self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)

    def start(self) -> None:
        """Start it; it recovers by itself."""
        owner = self._home.stat()
        options: dict[str, Any] = {"cwd": self._home, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        if os.geteuid() == 0:
            options |= {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        self._started = subprocess.Popen(self._command, **options)
        self._process = psutil.Process(self._started.pid)

    def stop(self) -> None:
        """End what was started here."""
        if self._started is not None:
            self._started.send_signal(signal.SIGINT)
            self._started.wait(60)


@pytest.mark.parametrize(
    "restarts", [2, pytest.param(20, marks=[pytest.mark.faults, pytest.mark.timeout(600)])], ids=["short", "long"]
)
async def test_fast_restarts_cost_nothing_but_time(durable_server: PostgresServer, restarts: int) -> None:
    server, database = Restarts(durable_server), DatabaseManager(await migrated(durable_server), pool_size=5)
    ids = await new_sessions(database, 3)
    unlike_ours: list[BaseException] = []

    async def read() -> None:
        while True:
            try:
                await histories(database, ids)
            except DatabaseUnavailableError:
                await asyncio.sleep(0.01)
            except Exception as exc:  # noqa: BLE001 - what a driver lets through is what is looked for
                unlike_ours.append(exc)

    try:
        async with SessionWriter(database, timeout=60) as writer:
            load = Load(writer, ids)
            reading = [asyncio.create_task(read()) for _ in range(5)]
            async with load.running():
                for _ in range(restarts):
                    await load.progress(TASKS)
                    await asyncio.to_thread(server.shut_down_fast)
                    server.start()
                await load.progress(TASKS)
            for each in reading:
                each.cancel()
            await asyncio.wait(reading)
        await check(database, ids, load.acknowledged)
        await database.close()
    finally:
        server.stop()

    assert load.errors == []
    assert unlike_ours == []


@pytest.mark.faults
async def test_a_server_that_crashes_and_is_started_again(durable_server: PostgresServer) -> None:
    server = Restarts(durable_server)

    async def crash(load: Load) -> None:
        for _ in range(3):
            await asyncio.to_thread(server.crash)
            await load.errors_seen()
            server.start()
            await load.progress(TASKS)

    try:
        load = await under_load(await migrated(durable_server), crash)
    finally:
        server.stop()

    assert load.errors
