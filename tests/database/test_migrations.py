"""The revisions add up to the models, forward and back, on both engines."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Base
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.servers.postgres import PostgresServer

SQLITE_SCHEMA = """
SELECT type, name, sql FROM sqlite_master
WHERE tbl_name IN ('agent_service_sessions', 'agent_service_session_messages') AND type IN ('index') AND sql IS NOT NULL
ORDER BY name
"""
SQLITE_COLUMNS = """
SELECT m.name, c.name, c.type, c."notnull", c.dflt_value, c.pk FROM sqlite_master m, pragma_table_info(m.name) c
WHERE m.name IN ('agent_service_sessions', 'agent_service_session_messages') ORDER BY m.name, c.cid
"""
SQLITE_KEYS = """
SELECT m.name, k."from", k."table", k."to", k.on_delete FROM sqlite_master m, pragma_foreign_key_list(m.name) k
WHERE m.name IN ('agent_service_sessions', 'agent_service_session_messages') ORDER BY 1, 2
"""
POSTGRES_COLUMNS = """
SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
FROM information_schema.columns WHERE table_name IN ('sessions', 'session_messages')
ORDER BY table_name, ordinal_position
"""
POSTGRES_CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid::regclass::text IN ('agent_service.sessions', 'agent_service.session_messages') ORDER BY 1, 2
"""
POSTGRES_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename IN ('sessions', 'session_messages') AND indexname NOT LIKE '%trigram' ORDER BY 1
"""


async def schema(connection: AsyncConnection) -> list[Any]:
    sqlite = connection.dialect.name == "sqlite"
    postgres = (POSTGRES_COLUMNS, POSTGRES_CONSTRAINTS, POSTGRES_INDEXES)
    queries = (SQLITE_SCHEMA, SQLITE_COLUMNS, SQLITE_KEYS) if sqlite else postgres
    found = [row for query in queries for row in await rows(connection, query)]
    return [tuple(" ".join(str(field).split()) for field in row) for row in found]


async def rows(connection: AsyncConnection, query: str) -> list[Any]:
    return list((await connection.execute(text(query))).all())


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    if request.param == "sqlite":
        names = iter(("first", "second"))
        return lambda: f"sqlite+aiosqlite:///{tmp_path / next(names)}.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    made: list[str] = []

    def create() -> str:
        made.append(f"empty_{id(made)}_{len(made)}")
        request.addfinalizer(lambda name=made[-1]: server.drop_database(name))  # type: ignore[misc]
        return server.create_database(made[-1])

    return create


async def test_the_revisions_make_exactly_what_the_models_say(empty_url: Callable[[], str]) -> None:
    migrated, modelled = DatabaseManager(empty_url()), DatabaseManager(empty_url())
    await migrated.upgrade()
    async with modelled.engine.begin() as connection:
        if not modelled.embedded:
            await connection.execute(text("CREATE SCHEMA agent_service"))
        await connection.run_sync(Base.metadata.create_all)

    async with migrated.engine.connect() as left, modelled.engine.connect() as right:
        made, meant = await schema(left), await schema(right)
    state = await migrated.check()
    await migrated.close()
    await modelled.close()

    assert made == meant
    assert state.differences == ()
    assert state.ok


async def test_up_down_up(empty_url: Callable[[], str]) -> None:
    database = DatabaseManager(empty_url())
    await database.upgrade()
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", title="before"))
        await repo.add_message_to_session(session.id, {"role": "user", "content": "before"})

    await database.downgrade("base")
    async with database.engine.connect() as connection:
        tables = await connection.run_sync(_tables)
    below = await database.check()
    await database.upgrade()
    again = await database.check()
    async with database.session() as db:
        left = await SessionRepository(db).get_user_sessions("ada")
    await database.close()

    assert tables == []
    assert (below.current, below.ok) == (None, False)
    assert again.ok
    assert left == []


def _tables(connection: Connection) -> list[str]:
    query = (
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        if connection.dialect.name == "sqlite"
        else "SELECT tablename FROM pg_tables WHERE schemaname IN ('public', 'agent_service')"
    )
    return sorted(connection.execute(text(query)).scalars())


async def test_a_table_that_drifted_is_reported(database_url: str) -> None:
    database = DatabaseManager(database_url)
    async with database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE agent_service_sessions ADD COLUMN stray TEXT"))

    state = await database.check()
    await database.close()

    assert not state.ok
    assert "stray" in str(state.differences)


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        ("DROP TABLE agent_service_fleet", "the table agent_service_fleet is missing"),
        (
            "ALTER TABLE agent_service_sessions ADD COLUMN stray TEXT",
            "the column stray of agent_service_sessions is not the package's",
        ),
        (
            "ALTER TABLE agent_service_sessions DROP COLUMN truncations",
            "the column truncations of agent_service_sessions is missing",
        ),
        (
            "DROP INDEX agent_service_ix_sessions_agent",
            (
                "the index agent_service_ix_sessions_agent on agent_service_sessions "
                "(tenant_id, agent_id, last_activity_at, id) is missing"
            ),
        ),
        (
            "CREATE UNIQUE INDEX other ON agent_service_fleet (snapshot)",
            "the unique index other on agent_service_fleet (snapshot) is not the package's",
        ),
    ],
)
async def test_a_difference_is_told_in_words(database_url: str, drift: str, words: str) -> None:
    database = DatabaseManager(database_url)
    async with database.engine.begin() as connection:
        await connection.execute(text(drift))

    state = await database.check()
    await database.close()

    # PostgreSQL has the tables in a schema of that name instead.
    assert words.replace("agent_service_", "") in [each.replace("agent_service_", "") for each in state.differences]


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (
            "ALTER TABLE agent_service_fleet ALTER snapshot TYPE varchar(9)",
            "the column snapshot of agent_service_fleet has the type VARCHAR(9), not TEXT",
        ),
        (
            "ALTER TABLE agent_service_fleet ALTER snapshot DROP NOT NULL",
            "the column snapshot of agent_service_fleet allows NULL",
        ),
        (
            "ALTER TABLE agent_service_fleet ALTER snapshot SET DEFAULT 'x'",
            "the column snapshot of agent_service_fleet has another default",
        ),
        (
            "ALTER TABLE agent_service_fleet ADD CONSTRAINT one UNIQUE (snapshot)",
            "the constraint one on agent_service_fleet (snapshot) is not the package's",
        ),
        (
            "ALTER TABLE agent_service_sessions DROP CONSTRAINT agent_service_fk_sessions_parent",
            (
                "the foreign key agent_service_fk_sessions_parent on agent_service_sessions "
                "(tenant_id, parent_session_id) to agent_service_sessions.tenant_id, "
                "agent_service_sessions.id is missing"
            ),
        ),
    ],
)
async def test_a_difference_of_postgres_is_told_in_words(postgres_url: str, drift: str, words: str) -> None:
    await test_a_difference_is_told_in_words(postgres_url, drift, words)


async def test_tables_of_the_caller_are_left_alone(empty_url: Callable[[], str]) -> None:
    database = DatabaseManager(empty_url())
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE users (id INTEGER PRIMARY KEY)"))
    await database.upgrade()

    state = await database.check()
    await database.downgrade("base")
    async with database.engine.connect() as connection:
        tables = await connection.run_sync(_tables)
    await database.close()

    assert state.ok
    assert "users" in tables


async def test_a_database_newer_than_the_package_is_an_error_of_ours(database_url: str) -> None:
    database = DatabaseManager(database_url)
    version = "agent_service_version" if database.embedded else "agent_service.agent_service_version"
    async with database.engine.begin() as connection:
        await connection.execute(text(f"UPDATE {version} SET version_num = 'agent_service_9999'"))

    with pytest.raises(DatabaseError, match="9999"):
        await database.upgrade()
    await database.close()


async def test_upgrades_that_race_take_turns(empty_url: Callable[[], str]) -> None:
    url = empty_url()
    databases = [DatabaseManager(url) for _ in range(4)]

    await asyncio.gather(*(each.upgrade() for each in databases))

    state = await databases[0].check()
    for database in databases:
        await database.close()
    assert state.ok


async def test_a_server_without_pg_trgm_is_migrated_and_searched(
    postgres_server: PostgresServer, request: pytest.FixtureRequest
) -> None:
    # A role that may not create extensions stands in for a server that has none.
    name = "without_trigram"
    url = postgres_server.create_database(name)
    request.addfinalizer(lambda: postgres_server.drop_database(name))
    owner = DatabaseManager(url, schema="public")
    async with owner.engine.begin() as connection:
        await connection.execute(text("CREATE ROLE plain LOGIN"))
        await connection.execute(text("GRANT ALL ON SCHEMA public TO plain"))
    plain = DatabaseManager(url.replace("postgres@", "plain@", 1), schema="public")

    await plain.upgrade()
    async with plain.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", title="Needle in a haystack"))
        found = await repo.search_sessions("ada", "needle")
        extensions = (await db.execute(text("SELECT extname FROM pg_extension WHERE extname = 'pg_trgm'"))).all()
        await repo.delete(session.id, hard=True)
    state = await plain.check()
    await plain.close()
    async with owner.engine.begin() as connection:
        await connection.execute(text("DROP OWNED BY plain CASCADE"))
        await connection.execute(text("DROP ROLE plain"))
    await owner.close()

    assert extensions == []
    assert found == [session]
    assert state.ok


def test_alembic_itself_works_in_a_checkout(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"}
    program = """
import sys
from alembic.config import main  # as the command calls it

for line in ("upgrade head", "check", "downgrade base"):
    main(["-c", sys.argv[1], *line.split()])
    print(line)
"""

    done = subprocess.run(
        [sys.executable, "-c", program, str(root / "alembic.ini")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line != "No new upgrade operations detected."] == [
        "upgrade head",
        "check",
        "downgrade base",
    ]
