"""The steps of a revision on PostgreSQL: wait briefly, try again, go on where they were, name who is in the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.schema import lock_retries, revisions
from tests.database.more_revisions import AddRevision, add_revision
from tests.servers.pgbouncer import by_way_of, running_pgbouncer
from tests.servers.postgres import PostgresServer

__all__ = ["add_revision"]

Sql = Callable[[str], Coroutine[Any, Any, Any]]

NEWEST = revisions.head()
ROWS = 4500
COLUMN = "Change('note', f'ALTER TABLE {MESSAGES} ADD note text', {MESSAGES: Lock.ACCESS_EXCLUSIVE})"
FILL = "FillRows('note the roles', MESSAGES, ('session_id', 'seq'), 'note = t.role', 't.note IS NULL')"
INDEX = "MakeIndex('agent_service_ix_session_messages_note', MESSAGES, '(session_id, role)', unique=True)"
VALID = (
    "SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = 'agent_service.ix_session_messages_note'::regclass"
)
FILLED = "SELECT count(*) FROM agent_service.session_messages WHERE note = role"


@pytest.fixture
async def sql(postgres_url: str) -> AsyncIterator[Sql]:
    """Runs a script, or returns the value of a SELECT, as somebody else."""
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))

    async def run(script: str) -> Any:
        return await (connection.fetchval if script.startswith("SELECT") else connection.execute)(script)

    yield run
    await connection.close()


@pytest.fixture
async def database(postgres_url: str, sql: Sql) -> AsyncIterator[DatabaseManager]:
    """A database with three sessions and many messages."""
    manager = DatabaseManager(postgres_url)
    await fill(manager)
    yield manager
    await manager.close()


async def fill(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        for _ in range(3):
            session = await repo.create(Session(user_id="ada", title="title"))
            messages = [{"role": f"role{number}"} for number in range(1, ROWS // 3 + 1)]
            await repo.add_messages_to_session(session.id, messages)


@asynccontextmanager
async def transaction(url: str, script: str) -> AsyncIterator[int]:
    """A transaction of somebody else that stays open; yield the pid of its server process."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), server_settings={"application_name": "reporting"})
    async with connection.transaction():
        await connection.execute(script)
        yield connection.get_server_pid()
    await connection.close()


async def test_a_step_waits_until_others_are_done(
    database: DatabaseManager, postgres_url: str, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {COLUMN})")
    lines: list[str] = []

    async with transaction(postgres_url, "SELECT count(*) FROM agent_service.session_messages"):
        upgrading = asyncio.create_task(database.upgrade(report=lines.append))
        while not any("waiting for pid" in line for line in lines):
            await asyncio.sleep(0.05)
    await upgrading
    state = await database.check()

    assert state.current == state.head == "agent_service_9001"


async def test_a_step_that_never_gets_its_locks_says_who_has_them_and_goes_on_later(
    database: DatabaseManager, postgres_url: str, sql: Sql, add_revision: AddRevision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_retries, "PATIENCE", 1.0)
    first = "Change('first', f'CREATE SEQUENCE {SESSIONS}_first')"
    revision = add_revision(f"run(revision, {first}, {COLUMN})")
    secret = "SELECT 'a secret', count(*) FROM agent_service.session_messages"

    async with transaction(postgres_url, secret) as pid:
        with pytest.raises(DatabaseError) as failure:
            await database.upgrade()
    before = await database.check()
    await database.upgrade()
    after = await database.check()

    message = str(failure.value)
    assert f"pid {pid} (application_name 'reporting'" in message
    assert "since 20" in message
    assert "could not note" in message
    assert "run agent-service db upgrade again" in message
    assert "secret" not in message
    assert (before.current, after.current) == (NEWEST, revision)


async def test_rows_are_filled_in_batches_and_an_ended_run_goes_on_at_its_batch(
    database: DatabaseManager, sql: Sql, add_revision: AddRevision
) -> None:
    revision = add_revision(f"run(revision, {COLUMN}, {FILL})")
    lines: list[str] = []

    def end(line: str) -> None:
        if "2,000 rows" in line:
            raise KeyError("ended")

    with pytest.raises(KeyError):
        await database.upgrade(report=end)
    filled, before = await sql(FILLED), await database.check()
    # What is done already is not looked at again.
    await sql("UPDATE agent_service.session_messages SET note = 'kept' WHERE note IS NOT NULL")
    await database.upgrade(report=lines.append)
    kept = await sql("SELECT count(*) FROM agent_service.session_messages WHERE note = 'kept'")

    assert (filled, before.current) == (2000, NEWEST)
    assert (kept, await sql(FILLED)) == (2000, ROWS - 2000)
    assert lines[0] == f"{revision}, step 2 of 2: note the roles"
    assert [line.split(" rows")[0] for line in lines[1:]] == ["  3,000", "  4,000", "  4,500"]
    assert await sql("SELECT col_description('agent_service.agent_service_version'::regclass, 1)") is None


async def test_a_batch_waits_for_the_rows_of_others(
    database: DatabaseManager, postgres_url: str, sql: Sql, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {COLUMN})")
    await database.upgrade()
    add_revision(f"run(revision, {FILL})")
    lines: list[str] = []

    async with transaction(postgres_url, "UPDATE agent_service.session_messages SET client_id = seq WHERE seq = 7"):
        upgrading = asyncio.create_task(database.upgrade(report=lines.append))
        while not any("waiting for pid" in line for line in lines):
            await asyncio.sleep(0.05)
    await upgrading

    assert await sql(FILLED) == ROWS


async def test_an_index_that_was_left_half_made_is_made_again(
    database: DatabaseManager, sql: Sql, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {INDEX})")
    await sql("UPDATE agent_service.session_messages SET role = 'same' WHERE seq < 3")

    with pytest.raises(DatabaseError, match="ix_session_messages_note"):
        await database.upgrade()
    half = await sql(VALID)
    await sql("UPDATE agent_service.session_messages SET role = 'other' WHERE seq = 1")
    await database.upgrade()

    assert (half, await sql(VALID)) == (False, True)


async def test_an_index_that_was_made_before_the_run_was_ended_is_left_alone(
    database: DatabaseManager, sql: Sql, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {INDEX}, Change('fail', 'SELECT 1 / 0'))")
    with pytest.raises(DatabaseError, match="division by zero"):
        await database.upgrade()
    # As if the process had been killed before it could note that the index is there.
    await sql("COMMENT ON COLUMN agent_service.agent_service_version.version_num IS NULL")
    made = await sql("SELECT 'agent_service.ix_session_messages_note'::regclass::oid::int8")

    with pytest.raises(DatabaseError, match="division by zero"):
        await database.upgrade()

    assert await sql("SELECT 'agent_service.ix_session_messages_note'::regclass::oid::int8") == made
    assert await sql(VALID)


async def test_an_index_that_a_dead_process_still_makes_is_waited_for(
    database: DatabaseManager, postgres_url: str, sql: Sql, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {INDEX})")
    half = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('agent_service.ix_session_messages_note')"
    index = (
        "CREATE UNIQUE INDEX CONCURRENTLY ix_session_messages_note ON agent_service.session_messages (session_id, role)"
    )
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    other = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))

    async with transaction(postgres_url, "UPDATE agent_service.session_messages SET client_id = 'x' WHERE seq = -1"):
        making = asyncio.create_task(other.execute(index))
        while not await sql(half):
            await asyncio.sleep(0.01)
        upgrading = asyncio.create_task(database.upgrade())
        while await sql(waits) < 2:
            await asyncio.sleep(0.01)
    await upgrading
    await asyncio.gather(making, return_exceptions=True)
    await other.close()

    assert await sql(VALID)


async def test_an_index_goes_while_others_write(
    database: DatabaseManager, postgres_url: str, sql: Sql, add_revision: AddRevision
) -> None:
    drop = "DropIndex('agent_service_ix_sessions_forks', SESSIONS)"
    add_revision(f"run(revision, {drop})", f"run(revision, {drop}, down=True)")

    await database.upgrade()
    await database.downgrade("-1")
    state = await database.check()

    assert state.current == NEWEST
    assert await sql("SELECT to_regclass('agent_service.ix_sessions_forks') IS NULL")


@pytest.mark.parametrize("wrong", [0, 1])
async def test_a_constraint_is_for_new_rows_first_and_then_proved_for_the_others(
    database: DatabaseManager, sql: Sql, add_revision: AddRevision, wrong: int
) -> None:
    add_revision("run(revision, *constraint('agent_service_ck_sessions_note', SESSIONS, 'CHECK (length(title) > 0)'))")
    await sql(f"UPDATE agent_service.sessions SET title = '' WHERE {wrong} = 1")

    if wrong:
        with pytest.raises(DatabaseError, match="ck_sessions_note"):
            await database.upgrade()
    else:
        await database.upgrade()
    proved = await sql("SELECT convalidated FROM pg_constraint WHERE conname = 'ck_sessions_note'")

    assert proved is not bool(wrong)
    with pytest.raises(asyncpg.CheckViolationError):
        await sql("UPDATE agent_service.sessions SET title = ''")


@pytest.mark.parametrize("limit", ["statement_timeout = '40ms'", "default_transaction_isolation = 'serializable'"])
async def test_what_the_server_is_set_to_does_not_end_a_long_step(
    database: DatabaseManager, postgres_url: str, sql: Sql, add_revision: AddRevision, limit: str
) -> None:
    slow = "CREATE FUNCTION public.slow(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS "
    await sql(f"{slow} 'BEGIN IF $1 LIKE ''%0'' THEN PERFORM pg_sleep(0.001); END IF; RETURN $1; END'")
    index = INDEX.replace("role", "public.slow(role)")
    add_revision(f"run(revision, {COLUMN}, {FILL.replace('t.role', 'public.slow(t.role)')}, {index})")
    await sql(f"ALTER DATABASE {postgres_url.rpartition('/')[2]} SET {limit}")

    await database.upgrade()

    assert await sql(FILLED) == ROWS
    assert await sql(VALID)


async def test_what_was_begun_is_finished_before_anything_else(
    database: DatabaseManager, sql: Sql, add_revision: AddRevision
) -> None:
    may = "Change('fail', \"SELECT 1 / count(*) FROM pg_class WHERE relname = 'finish'\")"
    drop = "Change('drop', f'ALTER TABLE {MESSAGES} DROP COLUMN note', {MESSAGES: Lock.ACCESS_EXCLUSIVE})"
    add_revision(f"run(revision, {COLUMN}, {may})", f"run(revision, {drop}, {may}, down=True)")

    async def refusal(move: Awaitable[Any]) -> str:
        with pytest.raises(DatabaseError) as failure:
            await move
        return str(failure.value)

    await refusal(database.upgrade())
    going_down, half_up = await refusal(database.downgrade("-1")), await database.check()
    await sql("CREATE TABLE public.finish ()")
    await database.upgrade()
    up = await database.check()
    await sql("DROP TABLE public.finish")
    await refusal(database.downgrade("-1"))
    going_up, planning = await refusal(database.upgrade()), await refusal(database.plan())
    half_down, health = await database.check(), await database.health_check()
    await sql("CREATE TABLE public.finish ()")
    await database.downgrade("-1")
    down = await database.check()

    upgrade = (
        "the upgrade of revision agent_service_9001 was begun and is not finished; first run: agent-service db upgrade"
    )
    downgrade = upgrade.replace("upgrade of", "downgrade of").replace("db upgrade", "db downgrade -1")
    assert going_down == upgrade
    assert going_up == planning == downgrade
    assert (half_up.current, half_up.remedy) == (NEWEST, "run: agent-service db upgrade")
    assert (half_down.current, half_down.ok, half_down.remedy) == ("agent_service_9001", False, downgrade)
    assert (health["ok"], health["error"]) == (False, downgrade)
    assert (up.current, down.current) == ("agent_service_9001", NEWEST)


async def test_another_process_that_lost_its_turn_ends_at_its_next_step(
    database: DatabaseManager, sql: Sql, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {COLUMN}, {FILL})")
    turn = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    loop = asyncio.get_running_loop()
    ended: list[Any] = []

    def lose(line: str) -> None:
        if "2,000 rows" in line:
            ended.append(loop.create_task(sql(f"SELECT pg_terminate_backend(({turn}), 5000)")))

    with pytest.raises(DatabaseUnavailableError):
        await database.upgrade(report=lose)
    await asyncio.gather(*ended)
    await database.upgrade()

    assert await sql(FILLED) == ROWS


async def test_processes_behind_a_pgbouncer_take_turns(
    database: DatabaseManager, postgres_server: PostgresServer, postgres_url: str, sql: Sql, add_revision: AddRevision
) -> None:
    add_revision(f"run(revision, {COLUMN}, {FILL}, {INDEX})")
    with running_pgbouncer(postgres_server) as port:
        url = by_way_of(port, postgres_url)
        databases = [DatabaseManager(url, pgbouncer=True) for _ in range(2)]
        await asyncio.gather(*(each.upgrade() for each in databases))
        state = await databases[0].check()
        for each in databases:
            await each.close()

    assert state.current == "agent_service_9001"
    assert await sql(FILLED) == ROWS
    assert await sql(VALID)


async def test_cancelled_anywhere_it_goes_on(database: DatabaseManager, sql: Sql, add_revision: AddRevision) -> None:
    add_revision(f"run(revision, {COLUMN}, {FILL}, {INDEX})")
    rounds = 0

    for rounds in range(1, 200):
        upgrading = asyncio.create_task(database.upgrade())
        await asyncio.wait({upgrading}, timeout=0.02 * rounds)
        if upgrading.done():
            break
        upgrading.cancel()
        await asyncio.wait({upgrading})
    upgrading.result()

    assert rounds > 1
    assert await sql(FILLED) == ROWS
    assert await sql(VALID)
