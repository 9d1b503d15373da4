"""What a database does wrong arrives as an error of ours, with its cause; and the pool heals."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import NoResultFound, SQLAlchemyError
from sqlalchemy.orm import make_transient_to_detached

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.servers.postgres import PostgresServer, running_postgres


def _stored() -> Session:
    """Return a session as one that was loaded earlier."""
    session = Session(user_id="ada", tenant_id="")
    make_transient_to_detached(session)
    session.title = "new"
    return session


CALLS: dict[str, Callable[[SessionRepository], Awaitable[object]]] = {
    "create": lambda repo: repo.create(Session(user_id="ada")),
    "get": lambda repo: repo.get(uuid4()),
    "get_by_external_id": lambda repo: repo.get_by_external_id("x"),
    "get_session_with_messages": lambda repo: repo.get_session_with_messages(uuid4()),
    "update": lambda repo: repo.update(_stored()),
    "delete": lambda repo: repo.delete(uuid4()),
    "add_message_to_session": lambda repo: repo.add_message_to_session(uuid4(), {"role": "user"}),
    "get_messages": lambda repo: repo.get_messages(uuid4()),
    "pop_message": lambda repo: repo.pop_message(uuid4()),
    "update_session_context": lambda repo: repo.update_session_context(uuid4(), {"a": 1}),
    "update_session_metadata": lambda repo: repo.update_session_metadata(uuid4(), {"a": 1}),
    "set_session_context": lambda repo: repo.set_session_context(uuid4(), {"a": 1}),
    "set_session_metadata": lambda repo: repo.set_session_metadata(uuid4(), {"a": 1}),
    "get_user_sessions": lambda repo: repo.get_user_sessions("ada"),
    "get_paginated_user_sessions": lambda repo: repo.get_paginated_user_sessions("ada"),
    "get_user_sessions_page": lambda repo: repo.get_user_sessions_page("ada"),
    "search_sessions": lambda repo: repo.search_sessions("ada", "needle"),
    "get_session_stats": lambda repo: repo.get_session_stats("ada"),
    "count_active_sessions": lambda repo: repo.count_active_sessions(),
    "bulk_update_session_status": lambda repo: repo.bulk_update_session_status([uuid4()], "failed"),
    "cleanup_expired_sessions": lambda repo: repo.cleanup_expired_sessions(),
}


async def use(database: DatabaseManager, call: Callable[[SessionRepository], Awaitable[object]]) -> object:
    async with database.session() as db:
        return await call(SessionRepository(db))


def without_tables(url: str) -> str:
    """Take the tables out of a migrated database."""

    async def take() -> None:
        database = DatabaseManager(url)
        await database.downgrade("base")
        await database.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, take()).result()
    return url


@pytest.fixture(scope="module")
def bare_postgres(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """One database for all tests: without tables nothing can be left in it."""
    yield without_tables(postgres_server.create_database("without_tables", postgres_template))
    postgres_server.drop_database("without_tables")


@pytest.fixture(scope="module")
def bare_file(sqlite_template: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bare") / "sessions.db"
    path.write_bytes(sqlite_template)
    without_tables(f"sqlite+aiosqlite:///{path}")
    return path.read_bytes()


@pytest.fixture(params=["sqlite", "postgres"])
async def bare(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DatabaseManager]:
    """A database whose tables were taken out; SQLite's after the manager has prepared it."""
    if request.param == "postgres":
        database = DatabaseManager(request.getfixturevalue("bare_postgres"))
    else:
        database = DatabaseManager(request.getfixturevalue("sqlite_url"))
        await database.prepare()
        await database.engine.dispose()
        (tmp_path / "sessions.db").write_bytes(request.getfixturevalue("bare_file"))
    yield database
    await database.close()


@pytest.mark.parametrize("method", CALLS)
async def test_a_database_without_our_tables_is_explained(bare: DatabaseManager, method: str) -> None:
    with pytest.raises(DatabaseError, match="agent-service db upgrade") as caught:
        await use(bare, CALLS[method])

    assert isinstance(caught.value.__cause__, SQLAlchemyError)


async def test_a_statement_of_the_callers_own_that_fails_is_a_database_error(database: DatabaseManager) -> None:
    async def fail() -> None:
        async with database.session() as db:
            await db.execute(text("SELECT * FROM nowhere WHERE secret = :secret"), {"secret": "hunter2"})

    with pytest.raises(DatabaseError, match="nowhere") as caught:
        await fail()

    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


async def test_a_callers_misuse_of_sqlalchemy_stays_what_it_is(database: DatabaseManager) -> None:
    async def fail() -> None:
        async with database.session() as db:
            (await db.execute(text("SELECT id FROM agent_service_sessions"))).one()

    with pytest.raises(NoResultFound):
        await fail()


async def test_no_free_connection_in_time_is_an_error_of_ours(database_url: str) -> None:
    database = DatabaseManager(database_url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    await database.prepare()
    async with database.session() as db:
        await SessionRepository(db).get(uuid4())
        with pytest.raises(DatabaseUnavailableError, match="DB_POOL_SIZE"):
            await use(database, CALLS["get"])
    await database.close()


async def test_connections_that_were_cut_are_replaced(postgres_url: str) -> None:
    database, other = DatabaseManager(postgres_url), DatabaseManager(postgres_url)
    session = await use(database, CALLS["create"])
    assert isinstance(session, Session)

    async def be_cut(repo: SessionRepository) -> None:
        await repo.get(session.id)
        async with other.session() as db:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            await db.execute(text(f"{cut} AND pid <> pg_backend_pid()"))
        await repo.add_message_to_session(session.id, {"role": "user"})

    with pytest.raises(DatabaseUnavailableError):
        await use(database, be_cut)
    await other.close()
    added = await use(database, lambda repo: repo.add_message_to_session(session.id, {"role": "user"}))
    await database.close()

    assert getattr(added, "seq", None) == 1


@pytest.fixture(scope="module")
def stopped_url(postgres_server: PostgresServer) -> str:
    if postgres_server.pid is None:
        pytest.skip("the server of TEST_DATABASE_URL is not ours to stop")
    with running_postgres() as server:
        return server.database_url("postgres")


@pytest.mark.parametrize("method", CALLS)
async def test_every_method_says_that_a_stopped_server_is_unavailable(stopped_url: str, method: str) -> None:
    database = DatabaseManager(stopped_url)

    with pytest.raises(DatabaseUnavailableError, match="DATABASE_URL") as caught:
        await use(database, CALLS[method])

    assert isinstance(caught.value.__cause__, OSError)


async def test_a_server_killed_in_the_middle_is_unavailable_at_once(postgres_server: PostgresServer) -> None:
    if postgres_server.pid is None:
        pytest.skip("the server of TEST_DATABASE_URL is not ours to stop")
    with running_postgres() as server:
        database = DatabaseManager(server.database_url("postgres"))
        await database.upgrade()

        async def append_while_it_dies() -> None:
            async with database.session() as db:
                repo = SessionRepository(db)
                session = await repo.create(Session(user_id="ada"))
                assert server.pid is not None
                os.kill(server.pid, signal.SIGQUIT)
                while True:
                    await repo.add_message_to_session(session.id, {"role": "user"})

        with pytest.raises(DatabaseUnavailableError):
            await append_while_it_dies()
        await database.close()
