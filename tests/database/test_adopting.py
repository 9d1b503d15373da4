"""Databases that an earlier version made are served where they are, taken over by an upgrade, and can be given back."""

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.outbox import take_rows
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.application import Application
from tests.database.earlier import SESSION_ID, left_by_earlier, make_earlier, taken_over
from tests.servers.prepared import Prepare

SQLITE_OBJECTS = "SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2"
POSTGRES_OBJECTS = """
SELECT c.relkind::text, n.nspname::text, c.relname::text, pg_get_indexdef(i.indexrelid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
UNION ALL SELECT 'c', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
UNION ALL SELECT 't', tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid) FROM pg_trigger
WHERE NOT tgisinternal
UNION ALL SELECT 'p', schemaname || tablename, policyname, qual FROM pg_policies
UNION ALL SELECT 'f', '', proname, prosrc FROM pg_proc WHERE proname LIKE '%announce%'
ORDER BY 1, 2, 3, 4
"""
GONE = r"alembic|uq_session_messages_client_id|ix_sessions_parent|parent_session_id|_session_id|pg_toast"
"""What is not there any more after the upgrade: keys that do not begin with the tenant."""
VERSION = "SELECT version_num FROM {}alembic_version ORDER BY 1"


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(engine: str, prepare: Prepare) -> str:
    """A database as the earlier version left it."""
    return prepare(engine, left_by_earlier)


@pytest.fixture
def taken_url(engine: str, prepare: Prepare) -> str:
    """The same, taken over by the newest revision."""
    return prepare(engine, taken_over)


@pytest.fixture
def application(url: str, tmp_path: Path) -> Application:
    made = Application(tmp_path / "app", url)
    made.add_revisions("0001", "0002", "0003")
    return made


async def objects(application: Application) -> list[Any]:
    """Everything there is in the database."""
    rows = await application.rows(SQLITE_OBJECTS if application.url.startswith("sqlite") else POSTGRES_OBJECTS)
    return [tuple(" ".join(str(field).replace('"', "").split()) for field in row) for row in rows]


async def versions(application: Application, schema: str = "") -> list[str] | None:
    """The rows of ``alembic_version``, if there is one."""
    if not schema and "alembic_version" not in await application.tables():
        return None
    return [row[0] for row in await application.rows(VERSION.format(schema and f'"{schema}".'))]


async def contents(database: DatabaseManager) -> dict[str, Any]:
    """What the earlier version had stored, read through this version."""
    async with database.session() as db:
        repo = SessionRepository(db, "acme")
        (session,) = await repo.get_user_sessions("ada")
        messages = await repo.get_messages(SESSION_ID)
        found = await repo.search_messages("ada", "needle")
        titles = await repo.search_sessions("ada", "before", in_content=False)
        outbox = await take_rows(db, 10)
    return {
        "session": (str(session.id), session.title, session.context, session.session_metadata, session.last_seq),
        "messages": [(each.seq, each.client_id, each.to_dict()) for each in messages],
        "found": sorted(each.seq for each in found),
        "titles": len(titles),
        "outbox": [body for _, body in outbox],
        "documents": await KeyValueTable(database.session).read(["k"]),
        "states": await KeyValueTable(database.session, table="agent_state").read(["ada"]),
    }


STORED = {
    "session": (SESSION_ID, "Needle before", {"a": 1}, {"z": 1, "a": "\x00"}, 3),
    "messages": [(n, f"c{n}", {"role": "user", "content": f"needle {n}"}) for n in (1, 2, 3)],
    "found": [1, 2, 3],
    "titles": 1,
    "outbox": ['{"namespace":"users","keys":["user:7"]}'],
    "documents": {"k": '{"v": 1}'},
    "states": {"ada": '{"v": 2}'},
}


async def test_it_is_upgraded_in_place_with_all_that_is_in_it(url: str, application: Application) -> None:
    before = await objects(application)
    database = DatabaseManager(url)

    await database.upgrade()
    state, stored = await database.check(), await contents(database)
    async with database.session() as db:
        repo = SessionRepository(db, "acme")
        again = await repo.add_message_to_session(SESSION_ID, {"role": "user", "content": "needle 3"}, client_id="c3")
        added = await repo.add_message_to_session(SESSION_ID, {"role": "user", "content": "needle 4"})
        found = await repo.search_messages("ada", "needle")
    await database.close()
    after = await objects(application)

    assert (state.current, state.ok) == (state.head, True)
    assert stored == STORED
    assert (again.seq, added.seq, len(found)) == (3, 4, 4)
    name = slice(0, 2) if database.embedded else slice(1, 3)
    assert {each[name] for each in before if not re.search(GONE, str(each[:3]))} <= {each[name] for each in after}
    assert [each for each in after if "alembic_version" in str(each)] == []


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_before_anybody_upgrades_it_errors_say_what_to_do(url: str, application: Application) -> None:
    before = await objects(application)
    database = DatabaseManager(url)

    with pytest.raises(DatabaseError, match="agent-service db upgrade"):
        await contents(database)
    state, health = await database.check(), await database.health_check()
    await database.close()

    assert (state.current, state.ok, health["ok"]) == ("agent_service_0007", False, False)
    assert await objects(application) == before


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_it_is_served_from_the_revision_on_that_serves_both_versions(url: str) -> None:
    database = DatabaseManager(url)
    await database.upgrade("0009")

    assert await contents(database) == STORED
    await database.close()


async def test_afterwards_the_applications_alembic_starts_from_nothing(taken_url: str, tmp_path: Path) -> None:
    application, database = Application(tmp_path / "app", taken_url), DatabaseManager(taken_url)
    application.add_revisions("0001", "0002", "0003")

    await application.upgrade()
    stored, state = await contents(database), await database.check()
    await database.close()

    assert (await versions(application), stored, state.ok) == (["0003"], STORED, True)
    assert {"app_0001", "app_0002", "app_0003"} <= await application.tables()


async def test_upgrading_again_and_at_the_same_time_changes_nothing_more(url: str, application: Application) -> None:
    databases = [DatabaseManager(url) for _ in range(4)]

    await asyncio.gather(*(each.upgrade() for each in databases))
    once = await objects(application)
    await databases[0].upgrade()
    stored = await contents(databases[1])
    for each in databases:
        await each.close()

    assert await objects(application) == once
    assert stored == STORED


@pytest.mark.parametrize("rows", [["a1b2"], ["0003"], ["0012"], ["0007", "a1b2"], []])
async def test_rows_of_the_application_stay_and_only_ours_goes(
    url: str, application: Application, rows: list[str]
) -> None:
    await application.rows("DELETE FROM alembic_version")
    for row in rows:
        await application.rows(f"INSERT INTO alembic_version VALUES ('{row}')")
    database = DatabaseManager(url)

    await database.upgrade()
    stored, state = await contents(database), await database.check()
    await database.close()

    assert (stored, state.ok) == (STORED, True)
    assert await versions(application) == [each for each in rows if each != "0007"]


async def test_a_downgrade_gives_it_back_as_it_was(url: str, application: Application) -> None:
    before = await objects(application)
    database = DatabaseManager(url)
    await database.upgrade()

    await database.downgrade("0007")
    after, row, state = await objects(application), await versions(application), await database.check()
    await database.upgrade()
    stored, again = await contents(database), await database.check()
    await database.close()

    assert after == before
    assert row == ["0007"]
    assert state.current == "agent_service_0007"
    assert (stored, again.ok) == (STORED, True)


@pytest.mark.parametrize("number", range(1, 7))
async def test_every_revision_of_earlier_versions_is_recognised(taken_url: str, tmp_path: Path, number: int) -> None:
    application, database = Application(tmp_path / "app", taken_url), DatabaseManager(taken_url)
    await database.downgrade(str(number))
    row, state = await versions(application), await database.check()

    await database.upgrade()
    async with database.session() as db:
        messages = await SessionRepository(db, "acme").get_messages(SESSION_ID)
    again, left = await database.check(), await versions(application)
    await database.close()

    assert (row, state.current) == ([f"{number:04d}"], f"agent_service_{number:04d}")
    assert (again.ok, left, len(messages)) == (True, None, 3)


async def test_a_downgrade_into_an_alembic_version_of_the_application_is_refused_whole(
    taken_url: str, tmp_path: Path
) -> None:
    application, database = Application(tmp_path / "app", taken_url), DatabaseManager(taken_url)
    application.add_revisions("0001", "0002", "0003")
    await application.upgrade()
    before = await objects(application)

    with pytest.raises(DatabaseError, match=r"alembic_version.*0003"):
        await database.downgrade("agent_service_0005")
    state, stored = await database.check(), await contents(database)
    await database.close()

    assert (state.ok, stored) == (True, STORED)
    assert (await objects(application), await versions(application)) == (before, ["0003"])


async def test_a_downgrade_to_base_leaves_nothing_of_ours(taken_url: str, tmp_path: Path) -> None:
    application, database = Application(tmp_path / "app", taken_url), DatabaseManager(taken_url)

    await database.downgrade("base")
    tables = await application.tables()
    await database.upgrade()
    state = await database.check()
    await database.close()

    assert tables == {"agent_state"}
    assert state.ok


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_it_is_found_in_whatever_schema_the_role_had_put_it(
    url: str, application: Application, request: pytest.FixtureRequest
) -> None:
    database = DatabaseManager(url)
    await application.rows('ALTER SCHEMA public RENAME TO "Old ""Place"""')
    await application.rows("CREATE SCHEMA public")
    await application.rows("CREATE TABLE alembic_version (version_num TEXT)")
    await application.rows("INSERT INTO alembic_version VALUES ('0007')")

    await database.upgrade()
    stored, state = await contents(database), await database.check()
    await database.downgrade("7")
    row = await versions(application, 'Old ""Place""')
    await database.close()

    assert (stored, state.ok) == (STORED, True)
    assert row == ["0007"]
    assert await versions(application) == ["0007"]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_our_row_is_found_in_another_schema_than_the_tables(url: str, application: Application) -> None:
    await application.rows("CREATE SCHEMA elsewhere")
    await application.rows("ALTER TABLE alembic_version SET SCHEMA elsewhere")
    database = DatabaseManager(url)

    await database.upgrade()
    state = await database.check()
    await database.close()

    assert state.ok
    assert "alembic_version" not in str(await objects(application))


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_of_two_places_one_has_to_be_named(url: str, application: Application) -> None:
    make_earlier(url, schema="second")
    database, chosen = DatabaseManager(url), DatabaseManager(url, schema="second")

    with pytest.raises(DatabaseError, match=r"public, second.*DB_SCHEMA"):
        await database.upgrade()
    await chosen.upgrade()
    stored, state = await contents(chosen), await chosen.check()
    with pytest.raises(DatabaseError, match="DB_SCHEMA"):
        await contents(database)
    await database.close()
    await chosen.close()

    assert (stored, state.ok) == (STORED, True)
    assert await versions(application) == ["0007"]


async def test_tables_that_lack_what_their_revision_makes_are_refused(url: str, application: Application) -> None:
    await application.rows("DROP TABLE context_store")
    await application.rows("DROP TABLE alembic_version")
    database = DatabaseManager(url)

    with pytest.raises(DatabaseError, match="0002"):
        await database.upgrade()
    await database.close()

    assert "agent_service_version" not in await application.tables()


async def test_taking_it_over_is_said_once_in_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    database = DatabaseManager(url)

    with caplog.at_level(logging.INFO, "agent_service"):
        await database.upgrade()
        await database.upgrade()
    await database.close()

    said = [each.message for each in caplog.records if "took over" in each.message]
    assert len(said) == 1
    assert "agent_service_0007" in said[0]
    assert "alembic_version" in said[0]
