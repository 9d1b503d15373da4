"""Reads that may lag, from a real standby that comes and goes."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import event, text

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import close_database, get_session
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.engine.replica import PATIENCE, RETRY_AFTER, ReadReplica
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.testing.clock import FakeClock
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import TcpProxy
from tests.servers.standby import running_primary_and_standby
from tests.support.waiting import ticking, until

Pair = tuple[PostgresServer, PostgresServer]


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with running_primary_and_standby() as pair:
        yield pair


@pytest.fixture
async def primary(servers: Pair) -> AsyncIterator[DatabaseManager]:
    database = DatabaseManager(servers[0].database_url("postgres"))
    await database.upgrade()
    await _catch_up(servers)
    yield database
    await database.close()


async def _catch_up(servers: Pair) -> None:
    ahead, behind = (DatabaseManager(each.database_url("postgres")) for each in servers)
    async with ahead.session() as db:
        position = (await db.execute(text("SELECT pg_current_wal_lsn()::text"))).scalar_one()
    replayed = text(f"SELECT pg_last_wal_replay_lsn() >= '{position}'")
    async with asyncio.timeout(60), behind.session(readonly=True) as db:
        while not (await db.execute(replayed)).scalar_one():
            await asyncio.sleep(0.01)
    await ahead.close()
    await behind.close()


async def serving(reading: ReadReplica) -> str:
    async with reading.session() as db:
        standby = (await db.execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
    return "replica" if standby else "primary"


async def test_reads_come_from_the_replica_and_writes_there_are_refused(
    servers: Pair, primary: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, server in zip(("DATABASE_URL", "DATABASE_REPLICA_URL"), servers, strict=True):
        monkeypatch.setenv(name, server.database_url("postgres"))
    reset_settings()
    async with primary.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    found = None
    async with asyncio.timeout(60):
        while found is None:  # it may lag
            async with get_session(readonly=True) as db:
                found = await SessionRepository(db).get(session.id)
                standby = (await db.execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
    async with get_session() as db:
        writable = not (await db.execute(text("SELECT pg_is_in_recovery()"))).scalar_one()
    with pytest.raises(DatabaseError, match="readonly=True"):
        async with get_session(readonly=True) as db:
            await SessionRepository(db).delete(session.id)
    await close_database()

    assert (standby, writable) == (True, True)


async def test_a_replica_that_went_away_is_replaced_by_the_primary_until_it_is_back(
    servers: Pair, primary: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = FakeClock()
    async with TcpProxy(servers[1].database_url("postgres")) as proxy:
        replica = DatabaseManager(proxy.url)
        reading = ReadReplica(replica, primary, clock=clock)
        before = await serving(reading)
        await proxy.__aexit__()
        away = [await serving(reading) for _ in range(3)]
        await proxy.__aenter__()
        await replica.close()
        back = DatabaseManager(proxy.url)
        reading._replica = back
        resting = await serving(reading)
        clock.advance(RETRY_AFTER)
        after = [await serving(reading) for _ in range(2)]
        await back.close()

    assert (before, away, resting, after) == ("replica", ["primary"] * 3, "primary", ["replica"] * 2)
    told = [each.message for each in caplog.records if "replica" in each.message]
    assert ["away" in each for each in told] == [True, False]


async def test_one_session_tries_for_all_while_the_replica_is_away(primary: DatabaseManager) -> None:
    clock = FakeClock()
    async with TcpProxy("postgresql+asyncpg://nobody@127.0.0.1:1/nothing") as nowhere:
        replica = DatabaseManager(nowhere.url + "?ssl=disable")
        reading = ReadReplica(replica, primary, clock=clock)
        await serving(reading)
        first = nowhere.accepted
        clock.advance(RETRY_AFTER)
        served = await asyncio.gather(*(serving(reading) for _ in range(8)))
        second = nowhere.accepted
        await replica.close()

    assert served == ["primary"] * 8
    assert second == first * 2


async def timed(reading: ReadReplica) -> tuple[str, float]:
    async with ticking() as ticks:
        served = await serving(reading)
    return served, ticks.seconds


async def test_a_silent_replica_costs_one_reader_and_the_others_go_to_the_primary(
    servers: Pair, primary: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    async with TcpProxy(servers[1].database_url("postgres")) as proxy:
        proxy.stall()
        replica = DatabaseManager(f"{proxy.url}?connect_timeout=4")
        reading = ReadReplica(replica, primary)
        async with asyncio.TaskGroup() as group:
            together = [group.create_task(timed(reading)) for _ in range(8)]
            await until(lambda: sum(each.done() for each in together) >= len(together) - 1)
            later = [await timed(reading) for _ in range(3)]
            pending = [each for each in together if not each.done()]
        afterwards = await timed(reading)
        asked = proxy.accepted
        await replica.close()

    results = [each.result() for each in together]
    slow = [took for _, took in results if took >= 2]
    assert {served for served, _ in (*results, *later, afterwards)} == {"primary"}
    assert len(pending) == 1
    assert len(slow) <= 1  # the one that asked, which waits for 4 s
    assert max(took for _, took in (*later, afterwards)) < 2
    assert asked <= 2  # by TLS, and without it
    assert len([each for each in caplog.records if "while the replica is away" in each.message]) == 1


async def test_a_replica_that_falls_silent_while_nobody_reads_fails_no_reader(
    servers: Pair, primary: DatabaseManager
) -> None:
    clock = FakeClock()
    async with TcpProxy(servers[1].database_url("postgres")) as proxy:
        replica = DatabaseManager(proxy.url, statement_timeout=60)
        reading = ReadReplica(replica, primary, clock=clock)
        before = await asyncio.gather(*(serving(reading) for _ in range(4)))
        proxy.stall()
        clock.advance(RETRY_AFTER)
        async with asyncio.timeout(30):  # a statement would take a minute
            silent = await asyncio.gather(*(serving(reading) for _ in range(8)))
            away = await serving(reading)
        proxy.resume()
        clock.advance(RETRY_AFTER)
        back = await asyncio.gather(*(serving(reading) for _ in range(4)))
        in_use = replica.get_metrics()["in_use"]
        await replica.close()

    assert (set(before), set(silent), away) == ({"replica"}, {"primary"}, "primary")
    assert "replica" in back
    assert in_use == 0


async def test_a_reader_that_loses_the_replica_warns_the_next_ones(servers: Pair, primary: DatabaseManager) -> None:
    async with TcpProxy(servers[1].database_url("postgres")) as proxy:
        replica = DatabaseManager(proxy.url, statement_timeout=0.2)
        reading = ReadReplica(replica, primary)
        before = [await serving(reading), await serving(reading)]
        proxy.stall()
        with pytest.raises(DatabaseUnavailableError):
            await serving(reading)
        after = [await serving(reading) for _ in range(3)]
        await replica.close()

    assert (before, after) == (["replica"] * 2, ["primary"] * 3)


async def test_a_slow_statement_is_no_reason_to_leave_the_replica(servers: Pair, primary: DatabaseManager) -> None:
    replica = DatabaseManager(servers[1].database_url("postgres"), statement_timeout=0.2)
    reading = ReadReplica(replica, primary)
    with pytest.raises(DatabaseUnavailableError, match="DB_STATEMENT_TIMEOUT"):
        async with reading.session() as db:
            await db.execute(text("SELECT pg_sleep(30)"))
    after = await serving(reading)
    await replica.close()

    assert after == "replica"


async def test_a_reader_that_gives_up_leaves_the_replica_alone_for_the_others(
    servers: Pair, primary: DatabaseManager
) -> None:
    clock = FakeClock()
    async with TcpProxy(servers[1].database_url("postgres")) as proxy:
        proxy.stall()
        replica = DatabaseManager(proxy.url)
        reading = ReadReplica(replica, primary, clock=clock)
        asker = asyncio.ensure_future(serving(reading))
        while not proxy.accepted:
            await asyncio.sleep(0)
        clock.advance(PATIENCE)
        asker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asker
        asked = proxy.accepted
        served = [await serving(reading) for _ in range(3)]
        await replica.close()

    assert served == ["primary"] * 3
    assert proxy.accepted == asked


async def test_reads_in_good_times_ask_nothing_beside(servers: Pair, primary: DatabaseManager) -> None:
    replica = DatabaseManager(servers[1].database_url("postgres"))
    reading = ReadReplica(replica, primary, clock=FakeClock())
    await serving(reading)
    sent: list[str] = []
    event.listen(replica.engine.sync_engine, "before_cursor_execute", lambda *each: sent.append(each[2]))
    served = [await serving(reading) for _ in range(3)]
    await replica.close()

    assert served == ["replica"] * 3
    assert sent == ["SELECT pg_is_in_recovery()"] * 3


async def test_a_tenant_of_row_level_security_reads_from_the_replica(servers: Pair, primary: DatabaseManager) -> None:
    replica = DatabaseManager(servers[1].database_url("postgres"), row_security=True)
    reading = ReadReplica(replica, primary)
    async with reading.session() as db:
        found = await SessionRepository(db, "acme").get_user_sessions("ada")
    await replica.close()

    assert found == []


async def test_a_failure_of_the_block_is_the_blocks_own(servers: Pair, primary: DatabaseManager) -> None:
    replica = DatabaseManager(servers[1].database_url("postgres"))
    reading = ReadReplica(replica, primary)
    with pytest.raises(LookupError):
        async with reading.session():
            raise LookupError
    in_use = replica.get_metrics()["in_use"], primary.get_metrics()["in_use"]
    await replica.close()

    assert in_use == (0, 0)


async def test_a_killed_replica_costs_no_read_that_begins_afterwards(servers: Pair, primary: DatabaseManager) -> None:
    # The last test here: the standby stays dead.
    standby = servers[1]
    replica = DatabaseManager(standby.database_url("postgres"))
    reading = ReadReplica(replica, primary)
    before = await serving(reading)
    assert standby.pid is not None
    os.kill(standby.pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while (await replica.health_check())["ok"]:
            pass
    after = [await serving(reading) for _ in range(3)]
    await replica.close()

    assert (before, after) == ("replica", ["primary"] * 3)
