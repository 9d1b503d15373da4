"""Where the package's tables are: by default, by choice, beside tables of others, on engines of others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session as SyncSession

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import ConfigurationError, DatabaseError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import DatabaseManager, SessionWriter, name_tables
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.names import CHECKPOINTS
from agent_service.infrastructure.database.outbox import add_rows, take_rows
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.application import Application
from tests.database.earlier import make_earlier
from tests.servers.postgres import PostgresServer

Open = Callable[..., Awaitable[DatabaseManager]]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
    empty: str = request.getfixturevalue("empty_postgres_url")
    return empty


@pytest.fixture
def application(url: str, tmp_path: Path) -> Application:
    return Application(tmp_path / "app", url)


@pytest.fixture
async def open_database(url: str) -> AsyncIterator[Open]:
    """Opens the database under some names, migrated; closes it at the end."""
    opened: list[DatabaseManager] = []

    async def open_(place: str = "", **names: Any) -> DatabaseManager:
        opened.append(DatabaseManager(place or url, **names))
        await opened[-1].upgrade()
        return opened[-1]

    yield open_
    for each in opened:
        await each.close()


async def talk(database: DatabaseManager, user: str = "ada") -> str:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id=user, title="Needle"))
        await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})
        found = await repo.search_messages(user, "needle")
        assert len(found) == 1
    return str(session.id)


async def users(database: DatabaseManager) -> list[Any]:
    async with database.session() as db:
        return list(await db.scalars(select(Session.user_id).order_by(Session.user_id)))


async def everything(application: Application) -> set[str]:
    """Every object in the database, with its schema."""
    if application.url.startswith("sqlite"):
        return {row[0] for row in await application.rows("SELECT name FROM sqlite_master")}
    found = await application.rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') "
        "UNION ALL SELECT n.nspname || '.' || p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE p.proname LIKE '%announce'"
    )
    return {row[0] for row in found}


async def test_a_new_database_gets_names_that_no_application_has(application: Application, open_database: Open) -> None:
    await talk(await open_database())

    beginning = "agent_service_" if application.url.startswith("sqlite") else "agent_service."
    found = {each for each in await everything(application) if not each.startswith("sqlite_autoindex_agent_service_")}
    assert found
    assert {each for each in found if not each.startswith(beginning)} == set()


@pytest.mark.parametrize("prefix", ["x_", "My-P "])
async def test_a_prefix_is_in_the_name_of_everything(
    application: Application, open_database: Open, prefix: str
) -> None:
    await talk(await open_database(table_prefix=prefix))

    found = {each.removeprefix("agent_service.") for each in await everything(application)}
    found = {each.removeprefix("sqlite_autoindex_") for each in found}
    assert found
    assert {each for each in found if not each.startswith(prefix)} == set()


async def test_an_application_keeps_its_own_tables_of_the_same_names(
    application: Application, open_database: Open
) -> None:
    for table in ("sessions", "session_messages", "context_store", "cache_outbox"):
        await application.rows(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, expires_at TEXT)")
    await application.rows("INSERT INTO sessions VALUES (1, 'soon')")

    database = await open_database()
    await talk(database)
    state = await database.check()
    await database.downgrade("base")

    assert state.ok
    assert await application.rows("SELECT * FROM sessions") == [(1, "soon")]
    assert {"sessions", "session_messages", "context_store", "cache_outbox"} <= await application.tables()


@pytest.mark.parametrize("table", ["sessions", "session_messages", "cache_outbox"])
async def test_a_table_that_is_in_the_way_is_an_error_that_names_the_settings(
    url: str, application: Application, table: str
) -> None:
    await application.rows(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    database = DatabaseManager(url, schema="public", table_prefix="")

    with pytest.raises(DatabaseError, match=rf"{table}.*DB_TABLE_PREFIX"):
        await database.upgrade()
    await database.close()

    assert await application.tables() == {table}


async def test_two_installations_in_one_database_do_not_meet(application: Application, open_database: Open) -> None:
    left, right = await open_database(table_prefix="left_"), await open_database(table_prefix="right_")

    await talk(left, "ada")
    await talk(right, "grace")
    for database, body in ((left, "{}"), (right, '{"keys":["k"]}')):
        async with database.session() as db:
            add_rows(db, [body], after_commit=lambda: None)
        await KeyValueTable(database.session).write({"k": body})
        await KeyValueTable(database.session, table="states").write({"k": body})
    await right.downgrade("agent_service_0005")
    await right.upgrade()
    async with left.session() as db:
        rows = [body for _, body in await take_rows(db, 10)]
    documents = [
        await KeyValueTable(left.session).read(["k"]),
        await KeyValueTable(left.session, table="states").read(["k"]),
        await KeyValueTable(right.session, table="states").read(["k"]),
    ]

    assert (await users(left), await users(right)) == (["ada"], ["grace"])
    assert rows == ["{}"]
    assert documents == [{"k": "{}"}, {"k": "{}"}, {"k": '{"keys":["k"]}'}]
    assert (await left.check()).ok


async def test_a_process_without_settings_does_not_take_an_installation_that_has_some(
    application: Application, open_database: Open, url: str
) -> None:
    names = {"table_prefix": "x_"} if url.startswith("sqlite") else {"schema": "elsewhere"}
    chosen = await open_database(**names)
    await talk(chosen, "theirs")
    await KeyValueTable(chosen.session, table="states").write({"k": "theirs"})

    unset = await open_database()
    await talk(unset, "ours")

    assert (await users(chosen), await users(unset)) == (["theirs"], ["ours"])
    assert await KeyValueTable(unset.session, table="states").read(["k"]) == {}


async def test_new_tables_come_before_those_of_an_earlier_version(url: str, open_database: Open) -> None:
    await talk(await open_database(), "new")
    make_earlier(url)

    database = DatabaseManager(url)
    found = await users(database)
    await database.close()

    assert found == ["new"]


async def test_the_settings_name_the_tables_of_every_engine(
    url: str, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_TABLE_PREFIX", "set_")
    monkeypatch.setenv("DB_SCHEMA", "by_setting")
    reset_settings()
    database = DatabaseManager(url)
    await database.upgrade()
    await talk(database)
    engine = create_async_engine(url)

    async with async_sessionmaker(engine)() as db:
        (session,) = await SessionRepository(db).get_user_sessions("ada")
        messages = await SessionRepository(db).get_messages(session.id)
    await engine.dispose()
    await database.close()

    assert len(messages) == 1
    found = await everything(application)
    assert {"set_sessions", "by_setting.set_sessions"} & found


@pytest.mark.parametrize("names", [{}, {"table_prefix": "x_"}, {"schema": "public", "table_prefix": ""}])
async def test_an_engine_of_the_callers_own_serves_the_tables(
    url: str, open_database: Open, names: dict[str, Any]
) -> None:
    database = await open_database(**names)
    session_id = await talk(database)
    engine = create_async_engine(url)
    if names:
        name_tables(engine, **names)

    async with async_sessionmaker(engine)() as db:
        await db.execute(text("SELECT 1"))
        history = await SessionRepository(db).get_messages(session_id)
        child = AsyncSession(engine.execution_options(logging_token="child"))
        again = await SessionRepository(child).get_messages(session_id)
        await child.close()
    async with SessionWriter(engine) as writer:
        written = await writer.append(session_id, {"role": "user", "content": "by the writer"})
    store = DatabaseContextStore(engine=engine)
    await store.set("k", {"v": 1})
    async with AsyncSession(engine) as db:
        add_rows(db, ["{}"], after_commit=lambda: None)
        await db.commit()
    async with database.session() as db:
        rows = await take_rows(db, 10)
    seen = await DatabaseContextStore(session_factory=database.session).get("k")
    await engine.dispose()

    assert [each.content for each in history] == [each.content for each in again] == ["needle"]
    assert (written.seq, seen, len(rows)) == (2, {"v": 1}, 1)


def test_a_synchronous_session_serves_the_tables_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_TABLE_PREFIX", "x_")
    reset_settings()
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}")
    engine = create_engine(f"sqlite:///{tmp_path / 'shared.db'}")

    async def run(work: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await work()
        finally:
            await database.close()

    async def bodies() -> list[str]:
        async with database.session() as db:
            return [body for _, body in await take_rows(db, 10)]

    asyncio.run(run(database.upgrade))
    with SyncSession(engine) as db:
        add_rows(db, ["{}"], after_commit=lambda: None)
        db.commit()
    engine.dispose()

    assert asyncio.run(run(bodies)) == ["{}"]


async def test_a_table_without_keys_and_values_is_no_table_of_documents(url: str, open_database: Open) -> None:
    database = await open_database(schema="public", table_prefix="x_")

    with pytest.raises(ConfigurationError, match=r"x_sessions.*keys and values"):
        await KeyValueTable(database.session, table="sessions").read(["k"])
    with pytest.raises(ConfigurationError, match="package's own"):
        KeyValueTable(database.session, table="agent_service_sessions")
    with pytest.raises(ConfigurationError, match="64 bytes"):
        await KeyValueTable(database.session, table="t" * 62).read(["k"])


async def test_an_engine_has_one_set_of_names(url: str) -> None:
    engine = create_async_engine(url)
    name_tables(engine, table_prefix="x_")
    name_tables(engine, table_prefix="x_")

    with pytest.raises(ConfigurationError, match="another engine"):
        name_tables(engine, table_prefix="y_")
    await engine.dispose()


async def test_engines_with_different_names_work_side_by_side(url: str, open_database: Open) -> None:
    managers = [await open_database(table_prefix=prefix) for prefix in ("a_", "b_", "c_")]

    await asyncio.gather(
        *(talk(manager, f"{number}-{turn}") for number, manager in enumerate(managers) for turn in "xy")
    )

    assert [await users(each) for each in managers] == [[f"{number}-x", f"{number}-y"] for number in range(3)]


async def test_names_are_found_by_whoever_comes_before_the_tables(url: str) -> None:
    early, late = DatabaseManager(url), DatabaseManager(url)
    if not early.embedded:
        with pytest.raises(DatabaseError, match="db upgrade"):
            await users(early)
    await late.upgrade()
    await talk(late)

    found = await users(early)
    await early.close()
    await late.close()

    assert found == ["ada"]


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
@pytest.mark.parametrize("path", ["", "nowhere", "theirs, public"])
async def test_the_search_path_of_the_role_decides_nothing(
    url: str, application: Application, postgres_server: PostgresServer, path: str
) -> None:
    name = url.rsplit("/", 1)[1]
    await application.rows("CREATE SCHEMA theirs")
    for table in ("sessions", "session_messages", "context_store", "cache_outbox", "agent_service_sessions"):
        await application.rows(f"CREATE TABLE theirs.{table} (id INTEGER)")
    setting = path or "''"
    await application.rows(f'ALTER DATABASE "{name}" SET search_path TO {setting}')
    database = DatabaseManager(url)

    await database.upgrade()
    session_id = await talk(database)
    state = await database.check()
    await database.switch_row_security(on=True)
    async with SessionWriter(database) as writer:
        await writer.append(session_id, {"role": "user", "content": "needle"})
    await KeyValueTable(database.session, table="states").write({"k": "v"})
    kept = await KeyValueTable(database.session, table="states").read(["k"])
    plan = await database_rows(
        database,
        "SET enable_seqscan = off",
        "EXPLAIN SELECT 1 FROM agent_service_sessions WHERE title ILIKE '%needle%'",
    )
    await database.downgrade("base")
    await database.close()

    assert (state.ok, kept) == (True, {"k": "v"})
    assert "ix_sessions_title_trigram" in str(plan)
    assert await application.rows("SELECT count(*) FROM theirs.sessions") == [(0,)]


async def database_rows(database: DatabaseManager, *statements: str) -> list[Any]:
    async with database.session() as db:
        for statement in statements[:-1]:
            await db.execute(text(statement))
        return list((await db.execute(text(statements[-1]))).all())


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_the_operators_of_trigrams_are_found_in_any_schema(url: str, application: Application) -> None:
    await application.rows('CREATE SCHEMA "Extra-Tools"')
    await application.rows('CREATE EXTENSION pg_trgm SCHEMA "Extra-Tools"')
    database = DatabaseManager(url)

    await database.upgrade()
    await talk(database)
    await database.close()

    assert "agent_service.ix_session_messages_content_trigram" in await everything(application)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_a_role_that_may_not_make_a_schema_is_told_what_to_do(
    url: str, application: Application, request: pytest.FixtureRequest
) -> None:
    await application.rows("CREATE ROLE poor LOGIN")
    poor = DatabaseManager(url.replace("postgres@", "poor@", 1))

    with pytest.raises(DatabaseError, match=r"'agent_service'.*permission denied.*DB_SCHEMA"):
        await poor.upgrade()
    await application.rows("CREATE SCHEMA agent_service AUTHORIZATION poor")
    await poor.upgrade()
    await talk(poor)
    state = await poor.check()
    await poor.close()
    await application.rows("DROP OWNED BY poor CASCADE")
    await application.rows("DROP ROLE poor")

    assert state.ok


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_subscriptions_of_two_installations_are_not_woken_by_one_another(
    url: str, open_database: Open, application: Application
) -> None:
    left, right = await open_database(schema="left"), await open_database(schema="right")
    channels = await application.rows(
        "SELECT DISTINCT substring(prosrc FROM 'pg_notify\\(''([^'']*)') FROM pg_proc WHERE proname LIKE '%announce'"
    )
    session_id = await talk(left)
    async with left.session() as db, aclosing(SessionRepository(db).subscribe(session_id, after_seq=1)) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        while not left.notifications.listening:
            await asyncio.sleep(0)
        await talk(right)
        async with SessionWriter(left) as writer:
            await writer.append(session_id, {"role": "user", "content": "heard"})
        heard = await waiting

    assert len(channels) == 2
    assert heard.content == "heard"


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
async def test_tables_of_an_earlier_version_can_be_moved_into_a_schema(
    url: str, application: Application, open_database: Open
) -> None:
    make_earlier(url)
    await open_database()

    await application.rows("CREATE SCHEMA chat")
    in_full = ("agent_service_fleet", "agent_service_version", *(f"agent_service_{each}" for each in CHECKPOINTS))
    for table in ("sessions", "session_messages", "context_store", "cache_outbox", *in_full):
        await application.rows(f"ALTER TABLE {table} SET SCHEMA chat")
    await application.rows("ALTER FUNCTION agent_service_announce SET SCHEMA chat")
    moved = await open_database(schema="chat")
    await talk(moved, "later")
    state = await moved.check()

    assert state.ok
    assert await users(moved) == ["ada", "later"]
