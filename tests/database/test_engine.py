"""What the engine promises: time limits, a pool that heals, reads that stay reads, health and figures."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import text

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import close_database, get_database, get_session
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.schema import revisions
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer, running_postgres
from tests.servers.proxy import TcpProxy
from tests.support.waiting import ticking


async def ask(database: DatabaseManager, query: str, **options: Any) -> Any:
    async with database.session(**options) as db:
        return (await db.execute(text(query))).scalar_one()


async def test_a_statement_that_takes_too_long_is_ended_and_the_connection_stays(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url, statement_timeout=0.2)
    pid = await ask(database, "SELECT pg_backend_pid()")

    with pytest.raises(DatabaseUnavailableError, match="DB_STATEMENT_TIMEOUT") as caught:
        await ask(database, "SELECT pg_sleep(30)")

    assert caught.value.__cause__ is not None
    assert await ask(database, "SELECT pg_backend_pid()") == pid
    await database.close()


async def test_waiting_for_a_lock_has_the_same_limit(postgres_url: str) -> None:
    patient, hasty = DatabaseManager(postgres_url), DatabaseManager(postgres_url, statement_timeout=0.2)
    async with patient.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def append() -> None:
        async with hasty.session() as db:
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})

    async with patient.session() as db:
        await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        with pytest.raises(DatabaseUnavailableError, match="DB_STATEMENT_TIMEOUT"):
            await append()
    await append()
    async with patient.session() as db:
        stored = await SessionRepository(db).get_messages(session.id)
    await patient.close()
    await hasty.close()

    assert [each.seq for each in stored] == [1, 2]


async def test_a_server_that_says_nothing_is_given_up_and_its_connection_replaced(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:
        database = DatabaseManager(proxy.url, statement_timeout=0.2)
        before = await ask(database, "SELECT pg_backend_pid()")
        proxy.stall()
        async with ticking() as ticks:
            with pytest.raises(DatabaseUnavailableError, match="no answer in time"):
                await ask(database, "SELECT 1")
        proxy.resume()

        assert await ask(database, "SELECT pg_backend_pid()") != before
        assert ticks.seconds < 6
        assert database.get_metrics()["in_use"] == 0
        await database.close()


async def test_an_append_gives_a_silent_server_up_too(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:
        database = DatabaseManager(proxy.url, statement_timeout=0.2)
        async with database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        proxy.stall()
        with pytest.raises(DatabaseUnavailableError):
            async with database.session() as db:
                await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        proxy.resume()
        async with database.session() as db:
            message = await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        await database.close()

        assert message.seq == 1


async def test_an_error_of_the_callers_own_stays_his_though_the_server_answers_no_rollback(postgres_url: str) -> None:
    async with TcpProxy(postgres_url) as proxy:
        database = DatabaseManager(proxy.url, statement_timeout=0.2)
        with pytest.raises(LookupError, match="the caller's own"):  # noqa: PT012 - the session's end is what is tested
            async with database.session() as db:
                await db.execute(text("SELECT 1"))
                proxy.stall()
                raise LookupError("the caller's own")
        proxy.resume()

        assert database.get_metrics()["in_use"] == 0
        assert await ask(database, "SELECT 1") == 1
        await database.close()


async def test_migrations_may_take_longer_than_a_statement(empty_postgres_url: str) -> None:
    database = DatabaseManager(empty_postgres_url, statement_timeout=0.001)

    await database.upgrade()
    state = await database.check()
    await database.close()

    assert state.ok


async def test_an_idle_pool_survives_a_restart_of_the_server_unnoticed(postgres_url: str) -> None:
    database, other = DatabaseManager(postgres_url), DatabaseManager(postgres_url)
    first, second = await asyncio.gather(*(ask(database, "SELECT pg_backend_pid() FROM pg_sleep(0.1)") for _ in "ab"))
    await ask(
        other, f"SELECT count(pg_terminate_backend(pid, 5000)) FROM (VALUES ({first}), ({second})) AS all_of(pid)"
    )
    await other.close()

    assert {await ask(database, "SELECT pg_backend_pid()") for _ in range(3)}.isdisjoint({first, second})
    await database.close()


async def test_an_exhausted_pool_is_an_error_that_figures_explain(database_url: str) -> None:
    database = DatabaseManager(database_url, pool_size=1, max_overflow=1, pool_timeout=0.1)
    await database.prepare()
    async with database.session() as one, database.session() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
        during = database.get_metrics()
        with pytest.raises(DatabaseUnavailableError, match="DB_POOL_SIZE"):
            await ask(database, "SELECT 1")
        health = await database.health_check()
    after = database.get_metrics()
    await database.close()

    assert during == {"open": 2, "in_use": 2, "idle": 0, "limit": 2}
    assert (after["in_use"], after["limit"]) == (0, 2)
    assert (health["ok"], health["pool"]["in_use"]) == (False, 2)
    assert "DB_POOL_SIZE" in health["error"]


async def test_a_healthy_database_says_what_it_is(database: DatabaseManager) -> None:
    health = await database.health_check()

    assert health | {"latency_ms": None, "version": None, "pool": None} == {
        "ok": True,
        "database": str(database),
        "latency_ms": None,
        "version": None,
        "read_only": False,
        "pool": None,
        "error": None,
    }
    assert health["latency_ms"] > 0
    assert health["version"][0].isdigit()


async def test_a_database_that_is_not_migrated_is_unhealthy_and_says_what_to_run(empty_postgres_url: str) -> None:
    database = DatabaseManager(empty_postgres_url)
    before = await database.health_check()
    await database.upgrade()
    after = await database.health_check()
    await database.close()

    assert (before["ok"], after["ok"]) == (False, True)
    assert before["error"] == "the database is not migrated; run: agent-service db upgrade"
    assert before["version"] == after["version"]


async def test_a_database_of_an_earlier_version_is_unhealthy_and_says_what_to_run(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    await database.downgrade("agent_service_0008")
    health = await database.health_check()
    await database.close()

    assert health["ok"] is False
    assert "needs agent_service_0009 or a later one; run: agent-service db upgrade" in health["error"]


async def test_services_are_healthy_at_the_revision_at_which_they_replace_those_before(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    await database.downgrade("agent_service_0009")
    health = await database.health_check()
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await repo.add_message_to_session(session.id, {"role": "user", "content": "works"})
    await database.close()

    assert (health["ok"], health["error"]) == (True, None)


async def test_a_database_of_a_later_version_is_healthy(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        await db.execute(text("UPDATE agent_service.agent_service_version SET version_num = 'later'"))
    health = await database.health_check()
    await database.close()

    assert (health["ok"], health["error"]) == (True, None)


@pytest.mark.parametrize(
    ("granted", "error"),
    [
        (["USAGE ON SCHEMA {schema}", "SELECT ON {schema}.sessions"], None),
        (["USAGE ON SCHEMA {schema}"], "permission denied for table sessions"),
        ([], "permission denied for schema"),
    ],
)
async def test_a_role_that_may_not_read_the_revision_is_healthy_if_it_may_read_sessions(
    postgres_url: str, granted: list[str], error: str | None
) -> None:
    owner = DatabaseManager(postgres_url)
    role = f"service_{uuid4().hex}"
    async with owner.session() as db:
        await db.execute(text(f"CREATE ROLE {role} LOGIN"))
        for each in granted:
            await db.execute(text(f"GRANT {each.format(schema='agent_service')} TO {role}"))
    database = DatabaseManager(postgres_url.replace("postgres@", f"{role}@"))
    health = await database.health_check()
    await database.close()
    async with owner.session() as db:
        await db.execute(text(f"DROP OWNED BY {role}"))
        await db.execute(text(f"DROP ROLE {role}"))
    await owner.close()

    assert health["ok"] is (error is None)
    assert (error or "None") in str(health["error"])


async def test_a_version_table_that_says_two_things_is_an_error_that_names_it(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        await db.execute(text("INSERT INTO agent_service.agent_service_version VALUES ('agent_service_0007')"))
    health = await database.health_check()
    with pytest.raises(DatabaseError, match=f"agent_service_0007 and {revisions.head()}"):
        await database.check()
    await database.close()

    assert health["ok"] is False
    assert "delete the rows that are wrong" in health["error"]


async def test_a_health_check_may_be_the_first_use_of_an_embedded_database(tmp_path: Path) -> None:
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'new.db'}")
    health = await database.health_check()
    state = await database.check()
    await database.close()

    assert (health["ok"], health["error"]) == (True, None)
    assert state.ok


async def test_an_embedded_database_that_cannot_be_migrated_is_unhealthy(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"no database at all " * 100)
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    health = await database.health_check()
    await database.close()

    assert health["ok"] is False
    assert "not a database" in health["error"]


async def test_a_database_that_is_away_is_unhealthy_and_no_exception() -> None:
    database = DatabaseManager("postgresql+asyncpg://user:hunter2@127.0.0.1:1/nothing")
    health = await database.health_check()
    await database.close()

    assert health["ok"] is False
    assert "cannot connect" in health["error"]
    assert "hunter2" not in str(health)


async def test_a_silent_database_is_unhealthy_after_a_while(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_service.infrastructure.database.engine.manager.HEALTH_TIMEOUT", 0.2)
    async with TcpProxy(postgres_url) as proxy:
        database = DatabaseManager(proxy.url)
        proxy.stall()
        health = await database.health_check()
        await database.close()

    assert health["ok"] is False


async def test_a_read_only_session_reads_and_is_refused_writes(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async with database.session(readonly=True) as db:
        found = await SessionRepository(db).get(session.id)
    async with database.session(readonly=True) as db:
        with pytest.raises(DatabaseError, match="readonly=True"):
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
    async with database.session(readonly=True) as db:
        await db.commit()
        with pytest.raises(DatabaseError, match="readonly=True"):
            await SessionRepository(db).create(Session(user_id="eve"))
    async with database.session() as db:
        added = await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})

    assert found is not None
    assert added.seq == 1


async def test_without_a_replica_reads_come_from_the_primary(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    async with get_session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))
    async with get_session(readonly=True) as db:
        found = await SessionRepository(db).get(session.id)
    await close_database()

    assert found is not None


class TestPgbouncer:
    """Many clients on two server connections, in transaction mode."""

    @pytest.fixture
    def bounced_url(self, postgres_server: PostgresServer, postgres_url: str) -> Iterator[str]:
        with running_pgbouncer(postgres_server) as port:
            yield by_way_of(port, postgres_url)

    async def test_statements_of_many_clients_do_not_clash(self, bounced_url: str) -> None:
        managers = [DatabaseManager(bounced_url, pgbouncer=True, pool_size=2) for _ in range(4)]
        async with managers[0].session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada", context={"a": [1]}))

        async def converse(database: DatabaseManager, number: int) -> None:
            for turn in range(10):
                async with database.session() as db:
                    repo = SessionRepository(db)
                    await repo.add_message_to_session(session.id, {"role": "user", "content": f"{number}:{turn}"})
                    await repo.update_session_context(session.id, {str(number): turn})

        await asyncio.gather(*(converse(each, number) for number, each in enumerate(managers * 2)))
        async with managers[1].session() as db:
            stored = await SessionRepository(db).get_messages(session.id, limit=100)
        left = await ask(managers[2], "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        for each in managers:
            await each.close()

        assert [each.seq for each in stored] == list(range(1, 81))
        assert left == 0

    async def test_writers_share_the_server_connections(self, bounced_url: str) -> None:
        databases = [DatabaseManager(bounced_url, pgbouncer=True) for _ in range(4)]
        async with databases[0].session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))

        async def write(database: DatabaseManager) -> list[int]:
            async with SessionWriter(database) as writer:
                alone = [(await writer.append(session.id, {"role": "user", "content": "1"})).seq for _ in range(10)]
                both = (writer.append(session.id, {"role": "user", "content": each}) for each in "23")
                return alone + [each.seq for each in await asyncio.gather(*both)]

        numbers = await asyncio.gather(*(write(each) for each in databases))
        left = await ask(databases[0], "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''")
        for each in databases:
            await each.close()

        assert sorted(seq for each in numbers for seq in each) == list(range(1, 49))
        assert left == 0

    async def test_the_driver_keeps_the_time(self, bounced_url: str) -> None:
        database = DatabaseManager(bounced_url, pgbouncer=True, statement_timeout=0.3)

        with pytest.raises(DatabaseUnavailableError, match="DB_STATEMENT_TIMEOUT"):
            await ask(database, "SELECT pg_sleep(30)")

        assert await ask(database, "SELECT 1") == 1
        await database.close()

    async def test_subscriptions_poll(self, bounced_url: str) -> None:
        database = DatabaseManager(bounced_url, pgbouncer=True)
        async with database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
            feed = SessionRepository(db).subscribe(session.id)
        waiting = asyncio.ensure_future(anext(feed))
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user", "content": "hi"})

        async with asyncio.timeout(60):
            assert (await waiting).content == "hi"
        await feed.aclose()
        await database.close()

    async def test_migrations_run(self, postgres_server: PostgresServer, empty_postgres_url: str) -> None:
        with running_pgbouncer(postgres_server) as port:
            database = DatabaseManager(by_way_of(port, empty_postgres_url), pgbouncer=True)
            await database.upgrade()
            state = await database.check()
            await database.close()

        assert state.ok


async def test_a_frozen_server_is_an_error_in_time_and_forgiven_when_it_wakes() -> None:
    with running_postgres() as server:
        assert server.pid is not None
        database = DatabaseManager(server.database_url("postgres"), statement_timeout=2)
        await database.upgrade()
        async with database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        pid = await ask(database, "SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseUnavailableError):
                async with database.session() as db:
                    await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        finally:
            os.kill(pid, signal.SIGCONT)
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user"}, client_id="again")
            history = await SessionRepository(db).get_messages(session.id)
        await database.close()

        assert [each.seq for each in history] == list(range(1, len(history) + 1))


def test_the_configured_database_is_the_loops_own() -> None:
    async def both() -> tuple[DatabaseManager, DatabaseManager]:
        try:
            return get_database(), get_database()
        finally:
            await close_database()

    first, again = asyncio.run(both())
    other, _ = asyncio.run(both())

    assert first is again
    assert first is not other


async def test_a_session_that_outlives_close_closes_its_connection(database_url: str) -> None:
    database = DatabaseManager(database_url)
    async with database.session() as db:
        driver: Any = (await (await db.connection()).get_raw_connection()).driver_connection
        await database.close()
        assert (await db.execute(text("SELECT 1"))).scalar_one() == 1

    # What a driver raises after it was closed, on each of its ways.
    with pytest.raises((ValueError, asyncpg.InterfaceError), match=r"closed|no active connection"):
        await driver.execute("SELECT 1")
