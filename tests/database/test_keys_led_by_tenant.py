"""From keys that begin with an id to keys that begin with the tenant: what works meanwhile, and what is refused."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text

from agent_service.core.errors import DatabaseError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.schema.crossing_links import cut_links
from tests.database.earlier import statements
from tests.servers.prepared import Prepare

BEFORE, EXPANDED, NOW = "agent_service_0008", "agent_service_0009", "agent_service_0010"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DATA = '{"role":"user","content":"old"}'


WAITING = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def made_before(url: str) -> None:
    database = DatabaseManager(url)
    await database.upgrade(BEFORE)
    await database.close()


@pytest.fixture
async def old(engine: str, prepare: Prepare) -> AsyncIterator[DatabaseManager]:
    """A database as the version before left it."""
    database = DatabaseManager(prepare(engine, made_before))
    yield database
    await database.close()


class Rows:
    """Writes rows as the version before did, and reads them."""

    def __init__(self, database: DatabaseManager) -> None:
        self._database = database

    async def run(self, statement: str, **values: Any) -> list[Any]:
        sqlite = self._database.embedded
        given = {name: each.hex if sqlite and isinstance(each, UUID) else each for name, each in values.items()}
        async with self._database.engine.begin() as connection:
            result = await connection.execute(text(statement), given)
            return list(result.all()) if result.returns_rows else []

    async def session(
        self, tenant: str, *, parent: UUID | None = None, fork_seq: int | None = None, n: int = 0
    ) -> UUID:
        """Add a session, with messages that follow what it takes from its parent."""
        id_ = uuid7()
        moment = MOMENT.replace(tzinfo=None).isoformat(" ", "microseconds") if self._database.embedded else MOMENT
        await self.run(
            "INSERT INTO agent_service_sessions (id, tenant_id, user_id, title, status, context, metadata, last_seq, "
            "total_messages, total_tokens, version, parent_session_id, fork_seq, created_at, updated_at, "
            "last_activity_at, expires_at) VALUES (:id, :tenant, 'ada', 'needle', 'active', '{}', '{}', :last, :last, "
            ":tokens, 1, :parent, :fork_seq, :now, :now, :now, :now)",
            id=id_, tenant=tenant, parent=parent, fork_seq=fork_seq, last=(fork_seq or 0) + n,
            tokens=2 * ((fork_seq or 0) + n), now=moment,
        )  # fmt: skip
        for seq in range((fork_seq or 0) + 1, (fork_seq or 0) + n + 1):
            await self.run(
                "INSERT INTO agent_service_session_messages (session_id, seq, client_id, role, content, data, "
                "token_count, created_at) VALUES (:id, :seq, :client, 'user', :content, :data, 2, :now)",
                id=id_, seq=seq, client=f"c{seq}", content=f"needle {tenant} {seq}",
                data=json.dumps({"role": "user", "content": f"needle {tenant} {seq}"}), now=moment,
            )  # fmt: skip
        return id_

    async def contents(self) -> list[Any]:
        columns = "session_id, seq, client_id, role, content, CAST(data AS text), token_count, created_at"
        return [
            *await self.run("SELECT * FROM agent_service_sessions ORDER BY id"),
            *await self.run(f"SELECT {columns} FROM agent_service_session_messages ORDER BY session_id, seq"),
        ]


async def shown(database: DatabaseManager, tenant: str, session_id: UUID) -> list[str]:
    async with database.session() as db:
        return [each.content for each in await SessionRepository(db, tenant).get_messages(session_id)]


async def found(database: DatabaseManager, tenant: str) -> int:
    async with database.session() as db:
        repo = SessionRepository(db, tenant)
        titles = await repo.search_sessions("ada", "needle", in_content=False)
        return len(titles) + len(await repo.search_messages("ada", "needle", 100))


async def test_rows_and_what_searches_them_stay_the_same_up_and_down(old: DatabaseManager) -> None:
    rows = Rows(old)
    parent = await rows.session("acme", n=3)
    fork = await rows.session("acme", parent=parent, fork_seq=2, n=1)
    await rows.session("", n=2)
    before = await rows.contents()

    after = {}
    for revision in (EXPANDED, NOW):
        await old.upgrade(revision)
        after[revision] = await rows.contents()
    histories = await shown(old, "acme", fork), await found(old, "acme"), await found(old, "")
    for revision in (EXPANDED, BEFORE, "agent_service_0007"):
        await old.downgrade(revision)
        after[f"down {revision}"] = await rows.contents()
    await old.upgrade()
    state = await old.check()
    again = await shown(old, "acme", fork), await found(old, "acme"), await found(old, "")

    assert list(after.values()) == [before] * 5
    assert histories == again == (["needle acme 1", "needle acme 2", "needle acme 3"], 8, 3)
    assert state.ok


async def use(database: DatabaseManager, tenant: str) -> list[str]:
    """Call what writes and reads, as a service of this version does."""
    async with database.session() as db:
        repo = SessionRepository(db, tenant)
        session = await repo.create(Session(user_id="ada", title="used"))
        await repo.add_message_to_session(session.id, {"role": "user", "content": "1"}, client_id="one")
        await repo.add_message_to_session(session.id, {"role": "user", "content": "1"}, client_id="one")
        many = [{"role": "user", "content": each} for each in "23"]
        await repo.add_messages_to_session(session.id, many, client_ids=["two", None])
        fork = await repo.fork(session.id, 3)
        await repo.pop_message(session.id)
    async with SessionWriter(database, tenant_id=tenant) as writer:
        await writer.append(session.id, {"role": "user", "content": "4"}, client_id="four")
        await writer.append(session.id, {"role": "user", "content": "4"}, client_id="four")
    async with database.session() as db:
        repo = SessionRepository(db, tenant)
        assert [each.content for each in await repo.get_messages(session.id)] == ["1", "2", "4"]
        assert await repo.delete(session.id, hard=True)
        return [each.content for each in await repo.get_messages(fork.id)]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_services_of_both_versions_work_between_the_two_revisions(old: DatabaseManager) -> None:
    rows = Rows(old)
    session = await rows.session("acme", n=1)
    other = await rows.session("acme", n=1)
    await old.upgrade(EXPANDED)

    async with old.engine.connect() as connection:
        await connection.begin()
        driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
        render = (await connection.run_sync(names_of)).render
        order = (session, "acme", "mine", "user", "two", DATA, None, MOMENT, MOMENT, None, None)
        first = await driver.fetchrow(render(statements.APPEND), *order)
        same = await driver.fetchrow(render(statements.APPEND), *order)
        alone = await driver.fetchrow(render(statements.APPEND_ALONE), *(session, "acme", "mine too", *order[3:]))
        many = await driver.fetch(
            render(statements.APPEND_MANY), "acme", MOMENT, MOMENT, [session, other], ["m", "m"], ["user"] * 2,
            ["four", "two"], [DATA] * 2, [None] * 2,
        )  # fmt: skip
        await driver.execute(render(statements.COPY_TO_FORK), session, await rows.session("acme"))
        page = await driver.fetch(render(statements.READ), session)
        await connection.commit()
    used = await use(old, "acme"), await use(old, "")

    assert (first[-1], same, alone[1], len(many), len(page)) == (2, None, 3, 2, 4)
    assert used == (["1", "2", "3"],) * 2
    assert await rows.run("SELECT count(*) FROM agent_service_session_messages WHERE tenant_id <> 'acme'") == [(3,)]
    await old.upgrade()
    assert await use(old, "acme") == ["1", "2", "3"]
    assert len(await shown(old, "acme", session)) == 4
    assert (await old.check()).ok


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_two_appends_of_one_client_id_at_once_are_one_between_the_revisions(old: DatabaseManager) -> None:
    rows = Rows(old)
    session = await rows.session("acme")
    await old.upgrade(EXPANDED)
    order = (session, "acme", "mine", "user", "one", DATA, None, MOMENT, MOMENT, None, None)

    async with old.engine.connect() as connection:
        await connection.begin()
        driver: asyncpg.Connection = (await connection.get_raw_connection()).driver_connection
        statement = statements.APPEND.replace("agent_service_", "agent_service.")
        added = await driver.fetchrow(statement, *order)
        async with old.session() as db:
            again = asyncio.create_task(
                SessionRepository(db, "acme").add_message_to_session(session, {"role": "user"}, client_id="mine")
            )
            while not again.done() and not await rows.run(WAITING):
                await asyncio.sleep(0.01)
            await connection.commit()
            message = await again

    assert added[-1] == message.seq == 1
    assert message.content == "old"
    assert await rows.run("SELECT last_seq, total_messages FROM agent_service_sessions") == [(1, 1)]


async def test_ids_that_two_tenants_share_refuse_the_way_back(old: DatabaseManager) -> None:
    await old.upgrade(NOW)
    async with old.session() as db:
        session = await SessionRepository(db, "acme").create(Session(user_id="ada"))
        await SessionRepository(db, "other").create(Session(id=session.id, user_id="ada"))
    before = await Rows(old).contents()

    with pytest.raises(DatabaseError, match=f"two tenants use the same session id.*{session.id}"):
        await old.downgrade(EXPANDED)

    assert await Rows(old).contents() == before
    async with old.session() as db:
        await SessionRepository(db, "other").delete(session.id, hard=True)
    await old.downgrade(BEFORE)


async def test_links_across_tenants_and_circles_are_cut(old: DatabaseManager, caplog: pytest.LogCaptureFixture) -> None:
    rows = Rows(old)
    victim = await rows.session("acme", n=3)
    good = await rows.session("acme", parent=victim, fork_seq=2, n=1)
    thief = await rows.session("evil", parent=victim, fork_seq=3, n=1)
    fork = await rows.session("evil", parent=thief, fork_seq=4)
    itself = await rows.session("acme", n=2)
    ring = [await rows.session("acme", n=1) for _ in range(3)]
    link = "UPDATE agent_service_sessions SET parent_session_id = :parent, fork_seq = 1 WHERE id = :id"
    for child, parent in [(itself, itself), *zip(ring, [*ring[1:], ring[0]], strict=True)]:
        await rows.run(link, id=child, parent=parent)

    await old.upgrade()

    counters = "SELECT total_messages, total_tokens, last_seq FROM agent_service_sessions WHERE id = :id"
    assert "cut 1 sessions off from parents of another tenant, 4 from" in caplog.text
    assert await shown(old, "evil", thief) == await shown(old, "evil", fork) == ["needle evil 4"]
    assert await rows.run(counters, id=thief) == await rows.run(counters, id=fork) == [(1, 2, 4)]
    assert await shown(old, "acme", good) == ["needle acme 1", "needle acme 2", "needle acme 3"]
    assert await shown(old, "acme", itself) == ["needle acme 1", "needle acme 2"]
    assert [await shown(old, "acme", each) for each in ring] == [["needle acme 1"]] * 3
    async with old.session() as db:
        assert await SessionRepository(db, "acme").recount() == []
        assert await SessionRepository(db, "evil").recount() == []
        assert await SessionRepository(db, "acme").erase_user("ada") == 6
    assert await shown(old, "evil", thief) == ["needle evil 4"]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_long_chain_of_forks_is_looked_at_once(old: DatabaseManager, caplog: pytest.LogCaptureFixture) -> None:
    rows = Rows(old)
    chain = [await rows.session("acme", n=1)]
    for _ in range(300):
        chain.append(await rows.session("acme", parent=chain[-1], fork_seq=1))
    thousands: list[None] = []

    def count(connection: Any) -> None:
        connection.connection.driver_connection._conn.set_progress_handler(lambda: thousands.append(None), 1000)
        cut_links(connection)

    async with old.engine.begin() as connection:
        await connection.run_sync(count)

    assert 0 < len(thousands) < 300
    assert "cut" not in caplog.text


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_parent_that_is_lost_does_not_hold_the_upgrade_up(
    old: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    rows = Rows(old)
    parent, orphan = await rows.session("acme", n=2), await rows.session("acme", n=1)
    fork = await rows.session("acme", parent=parent, fork_seq=2, n=1)

    def lose(*ids: UUID) -> None:
        with closing(sqlite3.connect(str(old.engine.url.database))) as unchecked, unchecked:
            unchecked.executemany("DELETE FROM agent_service_sessions WHERE id = ?", [(each.hex,) for each in ids])

    lose(parent, orphan)

    await old.upgrade()

    assert "1 from parents that are not there" in caplog.text
    assert await shown(old, "acme", fork) == ["needle acme 3"]
    async with old.session() as db:
        assert await SessionRepository(db, "acme").recount() == []
        again = await SessionRepository(db, "acme").fork(fork, 3)
    assert await rows.run("PRAGMA foreign_key_check") == []
    lose(fork)
    await old.downgrade(BEFORE)
    assert await rows.run("PRAGMA foreign_key_check") == []
    await old.upgrade()
    assert await shown(old, "acme", again.id) == []


async def test_a_foreign_key_of_the_application_is_named_before_anything_changes(old: DatabaseManager) -> None:
    rows = Rows(old)
    session = await rows.session("acme", n=1)
    kind = "CHAR(32)" if old.embedded else "uuid"
    await rows.run(
        f"CREATE TABLE orders (id {kind} PRIMARY KEY REFERENCES agent_service_sessions (id) ON DELETE CASCADE)"
    )
    await rows.run("INSERT INTO orders VALUES (:id)", id=session)
    before = await rows.contents()

    with pytest.raises(DatabaseError, match=r"orders.*\(tenant_id, id\)"):
        await old.upgrade()

    assert await rows.contents() == before
    assert len(await rows.run("SELECT * FROM orders")) == 1
    await rows.run("DROP TABLE orders")
    await old.upgrade()
    assert (await old.check()).ok


async def test_a_foreign_key_of_the_application_refuses_the_way_back_before_anything_changes(
    old: DatabaseManager,
) -> None:
    rows = Rows(old)
    session = await rows.session("acme", n=1)
    await old.upgrade(NOW)
    kind = "CHAR(32)" if old.embedded else "uuid"
    await rows.run(
        f"CREATE TABLE orders (tenant VARCHAR(255), id {kind}, "
        "FOREIGN KEY (tenant, id) REFERENCES agent_service_sessions (tenant_id, id))"
    )
    await rows.run("INSERT INTO orders VALUES ('acme', :id)", id=session)

    with pytest.raises(DatabaseError, match=r"orders.*\(id\)"):
        await old.downgrade(EXPANDED)

    assert (await old.check()).current == NOW
    await old.upgrade()
    assert (await old.check()).ok
    await rows.run("DROP TABLE orders")
    await old.downgrade(EXPANDED)
    assert await shown(old, "acme", session) == ["needle acme 1"]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_a_view_that_is_made_of_a_key_is_named_before_anything_changes(old: DatabaseManager) -> None:
    rows = Rows(old)
    await rows.run("CREATE VIEW seen AS SELECT s.id, s.title, count(*) FROM agent_service_sessions AS s GROUP BY s.id")

    with pytest.raises(DatabaseError, match=r"GROUP BY of seen"):
        await old.upgrade()

    await old.downgrade(BEFORE)
    await rows.run("DROP VIEW seen")
    await old.upgrade()
    assert (await old.check()).ok


@pytest.mark.parametrize("table", ["sessions", "session_messages"])
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_columns_of_the_application_are_not_lost(old: DatabaseManager, table: str) -> None:
    rows = Rows(old)
    await rows.session("acme", n=1)
    await rows.run(f"ALTER TABLE agent_service_{table} ADD COLUMN note TEXT DEFAULT 'kept'")

    with pytest.raises(DatabaseError, match="note"):
        await old.upgrade()

    assert await rows.run(f"SELECT note FROM agent_service_{table}") == [("kept",)]
    await rows.run(f"ALTER TABLE agent_service_{table} DROP COLUMN note")
    await old.upgrade()
    assert (await old.check()).ok


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_views_triggers_and_indexes_of_the_application_stay(old: DatabaseManager) -> None:
    rows = Rows(old)
    await rows.session("acme", n=1)
    await rows.run("CREATE TABLE seen (id TEXT)")
    for statement in (
        "CREATE VIEW titles AS SELECT id, title FROM agent_service_sessions",
        "CREATE VIEW more AS SELECT t.title FROM titles t",
        "CREATE TRIGGER instead INSTEAD OF DELETE ON titles BEGIN DELETE FROM seen; END",
        "CREATE TRIGGER noted AFTER INSERT ON agent_service_sessions BEGIN INSERT INTO seen VALUES (new.id); END",
        "CREATE TRIGGER read AFTER INSERT ON seen BEGIN DELETE FROM seen WHERE id IN (SELECT title FROM titles); END",
        "CREATE INDEX ix_mine ON agent_service_sessions (title)",
    ):
        await rows.run(statement)
    query = (
        "SELECT name, sql FROM sqlite_master "
        "WHERE name IN ('titles', 'more', 'instead', 'noted', 'read', 'ix_mine') ORDER BY 1"
    )
    before = await rows.run(query)

    await old.upgrade()
    async with old.session() as db:
        await SessionRepository(db).create(Session(user_id="ada", title="new"))

    assert await rows.run(query) == before
    assert await rows.run("SELECT count(*) FROM more") == [(2,)]
    assert await rows.run("SELECT count(*) FROM seen") == [(1,)]


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_the_keys_change_whether_or_not_foreign_keys_are_checked(old: DatabaseManager, on: bool) -> None:
    rows = Rows(old)
    parent = await rows.session("acme", n=2)
    await rows.session("acme", parent=parent, fork_seq=2, n=1)
    before = await rows.contents()
    async with old.engine.connect() as connection:
        await connection.exec_driver_sql(f"PRAGMA foreign_keys = {'ON' if on else 'OFF'}")
        await connection.rollback()

    await old.upgrade(NOW)

    assert await rows.contents() == before
    assert await rows.run("PRAGMA foreign_key_check") == []
    assert await rows.run("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_a_message_s_policy_looks_at_its_own_tenant(old: DatabaseManager) -> None:
    query = "SELECT qual FROM pg_policies WHERE tablename = 'session_messages'"
    looks: dict[str, Callable[[], Any]] = {"before": lambda: old.upgrade(EXPANDED), "now": old.upgrade}
    quals = {}
    for name, move in looks.items():
        await move()
        ((quals[name],),) = await Rows(old).run(query)
    await old.downgrade(EXPANDED)
    ((quals["back"],),) = await Rows(old).run(query)

    assert "EXISTS" in quals["before"]
    assert "EXISTS" in quals["back"]
    assert "EXISTS" not in quals["now"]
    assert "tenant_id" in quals["now"]
