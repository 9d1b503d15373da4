"""An application with an Alembic of its own in the same database: neither stands in the other's way."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text

from agent_service.core.errors import ConfigurationError, DatabaseError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.beside import add_tables, complete_tables, include_name, include_object
from agent_service.infrastructure.database.contexts.table import KeyValueTable
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.application import Application
from tests.database.earlier import make_earlier
from tests.servers.prepared import Prepare

SAME_NUMBERS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> str:
    """An empty database."""
    if engine == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
    empty: str = request.getfixturevalue("empty_postgres_url")
    return empty


async def converse(url: str) -> int:
    database = DatabaseManager(url)
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", title="Needle"))
        await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})
        found = await repo.search_messages("ada", "needle")
    await database.close()
    return len(found)


async def upgrade_ours(url: str) -> bool:
    database = DatabaseManager(url)
    await database.upgrade()
    state = await database.check()
    await database.close()
    return state.ok


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
@pytest.mark.parametrize("revisions", [("a1b2", "c3d4"), SAME_NUMBERS, (*SAME_NUMBERS, "0008", "0009")])
async def test_both_are_upgraded_whoever_comes_first(
    url: str, order: str, revisions: tuple[str, ...], tmp_path: Path
) -> None:
    application = Application(tmp_path / "app", url)
    application.add_revisions(*revisions)

    if order == "theirs first":
        await application.upgrade()
    ok = await upgrade_ours(url)
    if order == "ours first":
        await application.upgrade()
    found = await converse(url)
    tables = await application.tables()
    version = await application.rows("SELECT version_num FROM alembic_version")

    assert (ok, found) == (True, 1)
    assert {f"app_{each}" for each in revisions} <= tables
    assert version == [(revisions[-1],)]


async def made(url: str, schema: str, table_prefix: str) -> None:
    database = DatabaseManager(url, schema=schema, table_prefix=table_prefix)
    await database.upgrade()
    await KeyValueTable(database.session, table="my_states").write({"k": "v"})
    await database.close()


async def made_by_default(url: str) -> None:
    await made(url, "agent_service", "agent_service_" if url.startswith("sqlite") else "")


async def made_with_odd_names(url: str) -> None:
    await made(url, "public", "x_")


async def made_by_earlier(url: str) -> None:
    make_earlier(url)
    await made(url, "public", "")


MADE = {"default": made_by_default, "odd": made_with_odd_names, "earlier": made_by_earlier}


@dataclass(frozen=True)
class Ours:
    """A database with our tables, and whose names they have."""

    names: str
    url: str


@pytest.fixture(params=MADE)
def ours(request: pytest.FixtureRequest, engine: str, prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> Ours:
    """Our tables in the database, under default names, chosen ones, and those of an earlier version."""
    if request.param == "odd":
        monkeypatch.setenv("DB_SCHEMA", "public")
        monkeypatch.setenv("DB_TABLE_PREFIX", "x_")
        reset_settings()
    return Ours(request.param, prepare(engine, MADE[request.param]))


def of_the_application() -> MetaData:
    metadata = MetaData()
    Table("sessions_of_mine", metadata, Column("id", Integer, primary_key=True), Column("data", Text))
    Table("orders", metadata, Column("id", Integer, primary_key=True))
    return metadata


@pytest.mark.parametrize("options", [{}, {"include_schemas": True}], ids=["one schema", "all schemas"])
@pytest.mark.parametrize("by_name", [False, True], ids=["include_object", "and include_name"])
async def test_autogenerate_makes_their_tables_and_drops_none_of_ours(
    ours: Ours, tmp_path: Path, options: dict[str, Any], by_name: bool
) -> None:
    url = ours.url
    if by_name:
        options = {**options, "include_name": include_name}
    unprotected = Application(tmp_path / "unprotected", url, metadata=of_the_application(), **options)
    application = Application(
        tmp_path / "app", url, metadata=of_the_application(), include_object=include_object, **options
    )

    without = by_name or [each for each in await unprotected.differences() if "remove" in str(each[0])]
    written = await application.generate()
    await application.upgrade()
    left = await application.differences()
    found = await converse(url)

    assert without or not (url.startswith("sqlite") or options or ours.names != "default")
    assert "drop_" not in written.partition("def downgrade")[0]
    assert written.count("op.create_table") == 2
    assert left == []
    assert found == 1


async def test_their_own_tables_that_go_are_still_dropped(ours: Ours, tmp_path: Path) -> None:
    application = Application(tmp_path / "app", ours.url, metadata=of_the_application(), include_object=include_object)
    await application.rows("CREATE TABLE sessions_of_old (id INTEGER PRIMARY KEY, tenant_id TEXT)")
    await application.rows("CREATE INDEX ix_of_old ON sessions_of_old (tenant_id)")
    if ours.names != "earlier":
        await application.rows("CREATE TABLE cache_outbox (id INTEGER PRIMARY KEY)")

    removed = {each[1].name for each in await application.differences() if each[0] == "remove_table"}

    assert removed == {"sessions_of_old"} | ({"cache_outbox"} if ours.names != "earlier" else set())


ONE_CHAIN = [{}, {"table_prefix": "x_"}, {"schema": "public", "table_prefix": ""}, {"schema": "My-Schema"}]


@pytest.mark.parametrize("names", ONE_CHAIN, ids=str)
async def test_one_chain_of_revisions_can_make_their_tables_and_ours(
    url: str, tmp_path: Path, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, value in names.items():
        monkeypatch.setenv(f"DB_{setting.upper()}", value)
    reset_settings()
    metadata = of_the_application()
    on_sqlite = url.startswith("sqlite")
    add_tables(metadata, "sqlite" if on_sqlite else "postgresql", **names)
    application = Application(
        tmp_path / "app", url, metadata=metadata, include_object=include_object, include_schemas=not on_sqlite
    )
    if not on_sqlite:
        schema = names.get("schema", "agent_service")
        await application.rows(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')

    written = await application.generate()
    (file,) = (application.folder / "versions").glob("*.py")
    complete = "complete_tables(op.get_bind())\n    op.execute('SELECT 1')\n"
    file.write_text(
        "from agent_service.infrastructure.database.beside import complete_tables\n"
        + written.replace("\n\ndef downgrade", f"\n    {complete}\ndef downgrade")
    )
    await application.upgrade()
    left = await application.differences()
    database = DatabaseManager(url, **names)
    state = await database.check()
    await database.upgrade()
    again = await database.check()
    found = await converse(url)
    made = await objects(application)
    await database.close()

    assert written.partition("def downgrade")[0].count("op.create_table") == 16
    assert left == []
    assert (state.current, state.ok, again) == (state.head, True, state)
    assert found == 1
    assert made == await objects_made_by_our_own_revisions(url, names, tmp_path)


async def objects(application: Application) -> list[Any]:
    """What there is besides tables and columns, which were compared: indexes, triggers, policies, functions."""
    if application.url.startswith("sqlite"):
        statement = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '%version%'"
    else:
        statement = (
            "SELECT 'i', schemaname || indexname, indexdef FROM pg_indexes WHERE schemaname <> 'pg_catalog' "
            "UNION ALL SELECT 't', tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger "
            "WHERE NOT tgisinternal UNION ALL SELECT 'p', schemaname || tablename, qual FROM pg_policies "
            "UNION ALL SELECT 'f', proname, prosrc FROM pg_proc WHERE proname LIKE '%announce%'"
        )
    theirs = ("orders", "sessions_of_mine", "alembic_version")
    found = [" ".join(re.sub(r"[\"'\\]", "", str(each)).split()) for each in await application.rows(statement)]
    # Constraints stand in the text of a table, in the order in which they were given.
    return sorted(each for each in found if not any(name in each for name in theirs) and "CREATE TABLE" not in each)


async def objects_made_by_our_own_revisions(url: str, names: dict[str, Any], tmp_path: Path) -> list[Any]:
    application = Application(tmp_path / "compared", url)
    database = DatabaseManager(url, **names)
    await database.downgrade("base")
    await database.upgrade()
    await database.close()
    return await objects(application)


async def test_completing_twice_does_nothing_more(ours: Ours, tmp_path: Path) -> None:
    application = Application(tmp_path / "app", ours.url)
    before = await objects(application)

    await application.run(complete_tables)
    await application.run(complete_tables)

    assert await objects(application) == before
    assert await converse(ours.url) == 1


async def test_completing_takes_over_what_an_earlier_version_made(url: str, tmp_path: Path) -> None:
    make_earlier(url)
    application = Application(tmp_path / "app", url)

    await application.run(complete_tables)
    database = DatabaseManager(url)
    state = await database.check()
    await database.close()

    assert state.ok
    assert "alembic_version" not in await application.tables()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
async def test_completing_leaves_the_applications_search_path_as_it_was(ours: Ours, tmp_path: Path) -> None:
    def complete(connection: Connection) -> Any:
        complete_tables(connection)
        return connection.exec_driver_sql("SHOW search_path").scalar()

    assert await Application(tmp_path / "app", ours.url).run(complete) == '"$user", public'


async def test_completing_what_is_not_there_is_refused(url: str, tmp_path: Path) -> None:
    application = Application(tmp_path / "app", url)

    with pytest.raises(DatabaseError, match="add_tables"):
        await application.run(complete_tables)

    assert await application.tables() == set()


def test_tables_of_the_usual_schema_are_refused_beside_a_metadata_with_another() -> None:
    with pytest.raises(ConfigurationError, match=r"'app'.*choose another schema"):
        add_tables(MetaData(schema="app"), "postgresql", schema="public")

    add_tables(MetaData(schema="app"), "postgresql", schema="elsewhere")
