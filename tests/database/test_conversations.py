"""Conversations in entries, from below: who sees them, what removes them, and how their statements are run."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select, text, update

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import DatabaseError, SessionConflictError, SessionValueError
from agent_service.infrastructure.database.conversations.rows import StoredEntry, StoredRecord
from agent_service.infrastructure.database.conversations.table import ConversationTable
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import (
    CleanupCounts,
    CleanupMetrics,
    cleanup_once,
    purge_conversations,
    run_cleanup,
)
from agent_service.infrastructure.database.maintenance.erasure import erase_user
from agent_service.infrastructure.database.models.conversation import ConversationEntryRow, ConversationRow
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.metrics.reading import read
from tests.database.held import somebody_waits
from tests.servers.postgres import PostgresServer
from tests.support.waiting import until

LONG = timedelta(days=30)


async def begin(
    database: DatabaseManager, id_: str, *, tenant: str = "", scope: str | None = None, length: int = 2
) -> StoredRecord:
    """Store a conversation of so many entries."""
    names = [f"{id_} {number}" for number in range(length)]
    entries = [
        StoredEntry(name, parent, "message", json.dumps(name))
        for name, parent in zip(names, [None, *names], strict=False)
    ]
    record = record_of(id_, names[-1] if names else None, scope=scope)
    await ConversationTable(database, tenant_id=tenant).save(record, entries, expected=None)
    return record


def record_of(id_: str, head: str | None, *, scope: str | None = None, branches: tuple[str, ...] = ()) -> StoredRecord:
    return StoredRecord(id_, head, scope, branches, uuid4().hex, "{}", datetime.now(UTC))


async def left(database: DatabaseManager) -> tuple[set[str], int]:
    """Return the ids of all records, and how many entries there are."""
    async with database.session(every_tenant=True) as db:
        ids = set(await db.scalars(select(ConversationRow.conversation_id)))
        return ids, await db.scalar(select(func.count()).select_from(ConversationEntryRow)) or 0


async def age(database: DatabaseManager, *ids: str) -> None:
    """Have the database take conversations as saved long ago."""
    async with database.session(every_tenant=True) as db:
        of = ConversationRow.conversation_id.in_(ids)
        await db.execute(update(ConversationRow).where(of).values(saved_at=datetime.now(UTC) - 2 * LONG))


async def test_the_cleanup_removes_what_was_not_saved_for_long(database: DatabaseManager) -> None:
    for id_, tenant in (("old", "acme"), ("shared", ""), ("young", "acme")):
        await begin(database, id_, tenant=tenant, length=3)
    await ConversationTable(database).save(record_of("fork", "shared 1"), [], expected=None)
    await age(database, "old", "shared")

    kept = await cleanup_once(database=database)
    done = await cleanup_once(database=database, purge_conversations_after=LONG)
    again = await cleanup_once(database=database, purge_conversations_after=LONG)

    assert (kept.purged_conversations, done.purged_conversations, again.purged_conversations) == (0, 2, 0)
    assert await left(database) == ({"young", "fork"}, 3 + 2)
    with pytest.raises(SessionValueError, match="purge_conversations_after must not be negative"):
        await cleanup_once(database=database, purge_conversations_after=-LONG)


async def test_saving_counts_by_the_clock_of_the_database(database: DatabaseManager) -> None:
    table = ConversationTable(database)
    ancient = StoredRecord("chat", None, None, (), "1", "{}", datetime(1999, 1, 1, tzinfo=UTC))
    await table.save(ancient, [], expected=None)
    await age(database, "chat")
    await table.save(StoredRecord("chat", None, None, (), "2", "{}", ancient.updated_at), [], expected="1")

    assert await purge_conversations(database, LONG) == 0
    assert await purge_conversations(database, SYSTEM_CLOCK.now() + timedelta(days=1)) == 1


def counted_so_far() -> float:
    counted = read()["cleanup_purged_conversations"][()]
    assert isinstance(counted, int | float)
    return counted


async def test_the_schedule_counts_what_it_removes(database: DatabaseManager) -> None:
    for number in range(120):
        await begin(database, f"{number}", length=1)
    await age(database, *map(str, range(120)))
    before, counted = counted_so_far(), CleanupMetrics()

    cleaning = asyncio.create_task(
        run_cleanup(interval=60, purge_conversations_after=LONG, metrics=counted, database=database)
    )
    await until(lambda: counted.last_success)
    cleaning.cancel()
    await asyncio.wait([cleaning])

    assert counted.purged_conversations == 120
    assert counted_so_far() == before + 120
    assert await left(database) == (set(), 0)


async def test_cleanups_at_once_and_writers_leave_nothing_behind(database: DatabaseManager) -> None:
    table = ConversationTable(database)
    for family in range(4):
        await begin(database, f"{family}", length=3)
        for fork in range(3):
            await table.save(record_of(f"{family} fork {fork}", f"{family} {fork}"), [], expected=None)
    await age(database, *(await left(database))[0])
    saved = await table.record("0 fork 0")
    assert saved is not None

    async def save() -> bool:
        entry = StoredEntry("more", saved.head_id, "message", "{}")
        try:
            await table.save(record_of("0 fork 0", "more"), [entry], expected=saved.revision)
        except SessionConflictError:
            return False
        return True

    kept, *_ = await asyncio.gather(save(), *(purge_conversations(database, LONG) for _ in range(3)))
    await purge_conversations(database, LONG)

    assert await left(database) == (({"0 fork 0"}, 2) if kept else (set(), 0))


@pytest.mark.parametrize("whole", [False, True])
async def test_erasing_a_user_removes_the_conversations_of_that_scope(database: DatabaseManager, whole: bool) -> None:
    user = uuid4()
    for number in range(25):
        await begin(database, f"of the user {number}", scope=str(user))
    await begin(database, "of eve", scope="eve")
    await begin(database, "of another tenant", scope=str(user), tenant="acme")
    eves = record_of("eve's fork", "of the user 0 0", scope="eve")
    await ConversationTable(database).save(eves, [], expected=None)
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id=user))

    if whole:
        async with database.session() as db:
            erased = await SessionRepository(db).erase_user(user)
    else:
        erased = await erase_user(database, user)

    assert erased == 26
    assert await left(database) == ({"of eve", "of another tenant", "eve's fork"}, 2 + 2 + 1)


async def test_a_conversation_that_somebody_works_on_does_not_keep_the_others(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    await database.prepare()
    ids = [f"{number:02}" for number in range(70)]
    for id_ in ids:
        await begin(database, id_, length=0 if id_ != "03" else 1)
    await age(database, *ids)

    async with database.session() as db:
        fork = record_of("fork", "03 0")
        await ConversationTable(database).within(db).save(fork, [], expected=None)
        assert await purge_conversations(database, LONG) == 69

    assert await left(database) == ({"03", "fork"}, 1)
    await database.close()


async def test_an_erasure_goes_on_past_what_others_delete_meanwhile(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    await database.prepare()
    records = [await begin(database, f"{number:02}", scope="ada", length=1) for number in range(45)]

    async with database.session() as db:
        table = ConversationTable(database).within(db)
        for record in records[:21]:
            await table.delete(record.conversation_id, expected=record.revision)
        erasing = asyncio.create_task(erase_user(database, "ada"))
        await somebody_waits(database)

    assert await erasing == 24
    assert await left(database) == (set(), 0)
    await database.close()


async def test_before_their_revision_all_else_works(empty_postgres_url: str) -> None:
    database = DatabaseManager(empty_postgres_url)
    await database.upgrade("agent_service_0012")
    async with database.session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        assert await SessionRepository(db).erase_user("ada") == 1

    assert await erase_user(database, "ada") == 0
    assert await cleanup_once(database=database, purge_conversations_after=LONG) == CleanupCounts()
    with pytest.raises(DatabaseError, match="run: agent-service db upgrade"):
        await begin(database, "chat")
    await database.close()


@pytest.fixture
async def owner(empty_postgres_url: str, postgres_server: PostgresServer) -> AsyncIterator[DatabaseManager]:
    """The tables' owner; row-level security was switched on before conversations came, and a role may use it all."""
    database = DatabaseManager(empty_postgres_url)
    await database.upgrade("agent_service_0012")
    sessions = "ALTER TABLE agent_service_sessions ENABLE ROW LEVEL SECURITY"
    async with database.session() as db:
        await db.execute(text(sessions))
    await database.upgrade()
    async with database.session() as db:
        await db.execute(text("CREATE ROLE chats LOGIN"))
        schema = (await (await db.connection()).run_sync(names_of)).schema
        await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO chats'))
        await db.execute(text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO chats'))
    yield database
    async with database.session() as db:
        await db.execute(text("DROP OWNED BY chats"))
        await db.execute(text("DROP ROLE chats"))
    await database.close()


async def test_postgres_itself_keeps_tenants_apart(owner: DatabaseManager, empty_postgres_url: str) -> None:
    service = DatabaseManager(empty_postgres_url.replace("postgres@", "chats@", 1), row_security=True)
    for tenant in ("acme", ""):
        await begin(service, "chat", tenant=tenant, scope="ada", length=3)
        await begin(service, "old", tenant=tenant)
    counts = "SELECT (SELECT count(*) FROM agent_service_conversation_records), count(*) FROM {}"
    statement = text(counts.format("agent_service_conversation_entries"))

    async with service.session() as db:
        assert tuple((await db.execute(statement)).one()) == (0, 0)
    async with service.session() as db:
        SessionRepository(db, "acme")
        assert tuple((await db.execute(statement)).one()) == (2, 5)
    await age(service, "old")
    assert await purge_conversations(service, LONG) == 2
    assert await erase_user(service, "ada", tenant_id="acme") == 1
    assert [each.conversation_id for each in await ConversationTable(service).records()] == ["chat"]
    await service.close()
    assert (await owner.check()).ok
    assert await left(owner) == ({"chat"}, 3)
    assert (await owner.switch_row_security(on=False)).enabled is False


READ = text("""
SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_all_tables
WHERE schemaname NOT LIKE 'pg_%' AND relname LIKE '%conversation_entries'
""")
"""Rows that the connection has looked at lately, this transaction included."""


async def test_reading_and_deleting_look_at_the_entries_of_one_history_only(postgres_url: str) -> None:
    # PostgreSQL knows nothing of these tables yet. It would take a tenant's rows for few, and go through all of them.
    database = DatabaseManager(postgres_url)
    for number in range(4):
        await begin(database, f"{number}", length=300)
    table = ConversationTable(database)
    statements: list[str] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    async with database.session() as db:
        before = (await db.execute(READ)).scalar_one()
        rows = await table.within(db).line("3 299")
        last = await table.within(db).line("2 299", limit=20)
        reading = (await db.execute(READ)).scalar_one() - before
    fork = record_of("fork", "3 10")
    await table.save(fork, [], expected=None)
    async with database.session() as db:
        before = (await db.execute(READ)).scalar_one()
        for id_ in ("3", "fork"):
            record = await table.record(id_)
            assert record is not None
            await table.within(db).delete(id_, expected=record.revision)
        deleting = (await db.execute(READ)).scalar_one() - before
    await database.close()

    assert [row.entry_id for row in rows] == [f"3 {number}" for number in range(300)]
    assert [row.entry_id for row in last] == [f"2 {number}" for number in range(280, 300)]
    assert sum("WITH RECURSIVE line" in each for each in statements) == 2
    assert reading == 300 + 20
    assert deleting <= 12 * (300 + 11)


async def test_a_history_goes_on_within_its_own_conversation(database: DatabaseManager) -> None:
    table = ConversationTable(database)
    first, _ = await begin(database, "first"), await begin(database, "second")

    with pytest.raises(SessionValueError, match="of another conversation"):
        await table.save(record_of("first", "second 1"), [], expected=first.revision)
    both = [StoredEntry("x", "first 1", "message", "{}"), StoredEntry("y", "second 1", "message", "{}")]
    with pytest.raises(SessionValueError, match="of several conversations"):
        await table.save(record_of("third", "y"), both, expected=None)
    assert await left(database) == ({"first", "second"}, 4)


async def test_postgres_does_not_compile_what_finds_the_entries_to_free(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url)
    record = await begin(database, "chat")
    compiled = text("SELECT current_setting('jit')")
    async with database.session() as db:
        await db.execute(text("SET LOCAL jit = on"))
        before = await db.scalar(compiled)
        await ConversationTable(database).within(db).delete("chat", expected=record.revision)
        meanwhile = await db.scalar(compiled)
    await database.close()

    assert (before, meanwhile) == ("on", "off")
