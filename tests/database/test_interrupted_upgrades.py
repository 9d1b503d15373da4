"""An upgrade that ends anywhere leaves tables that the version before can use, and the next one goes on from there."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.util import await_only

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.earlier import SESSION_ID, back_at_the_first, taken_over
from tests.database.old_load import Load
from tests.database.test_adopting import POSTGRES_OBJECTS
from tests.database.test_upgrading_under_load import LAST_OF_THE_OLD
from tests.servers.postgres import PostgresServer
from tests.servers.prepared import Make
from tests.support.forked import Forked

_numbers = itertools.count()


class Copies:
    """Copies of one database with a conversation in it."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self.made: list[str] = []

    def new(self) -> str:
        """Make one, and return its URL."""
        self.made.append(f"{self._template}_{next(_numbers)}")
        return self._server.create_database(self.made[-1], self._template)

    def drop(self) -> None:
        """Drop them."""
        while self.made:
            self._server.drop_database(self.made.pop())


@pytest.fixture
def copies(postgres_server: PostgresServer, prepared_templates: Callable[[Make], str]) -> Iterator[Copies]:
    """Copies of a database at the first revision."""
    made = Copies(postgres_server, prepared_templates(back_at_the_first))
    yield made
    made.drop()


@pytest.fixture
def newest(postgres_server: PostgresServer, prepared_templates: Callable[[Make], str]) -> Iterator[Copies]:
    """Copies of it at the newest revision."""
    made = Copies(postgres_server, prepared_templates(taken_over))
    yield made
    made.drop()


async def end(url: str, pid: int) -> None:
    """Have the server end a connection."""
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await connection.close()


@contextmanager
def lost_at(number: int, url: str) -> Iterator[list[str]]:
    """Have the connection die with the statement of that number; yield the statements."""
    statements: list[str] = []

    def count(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)
        if len(statements) == number:
            raw: Any = connection.connection.driver_connection
            await_only(end(url, raw.get_server_pid()))

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", count)


async def objects(url: str) -> list[Any]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    found = [tuple(map(str, row)) for row in await connection.fetch(POSTGRES_OBJECTS)]
    await connection.close()
    return found


async def serve_the_version_before(url: str) -> None:
    """Append and read as it does."""
    load = Load(url)
    connection = await load.connect()
    session = await load.create(connection)
    await load.append(connection, session)
    await connection.close()


async def finish(url: str, expected: list[Any] | None = None) -> list[Any]:
    """Upgrade again, and return what is there."""
    database = DatabaseManager(url)
    await database.upgrade()
    state = await database.check()
    async with database.session() as db:
        messages = await SessionRepository(db, "acme").get_messages(SESSION_ID)
    await database.close()
    found = await objects(url)
    assert state.ok
    assert len(messages) == 3
    assert expected is None or found == expected
    return found


async def upgrade(url: str, revision: str = "head") -> None:
    database = DatabaseManager(url)
    try:
        await database.upgrade(revision)
    finally:
        await database.close()


async def downgrade(url: str) -> None:
    database = DatabaseManager(url)
    try:
        await database.downgrade("0001")
    finally:
        await database.close()


OFTEN = pytest.mark.parametrize(
    "times", [4, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(3600)])], ids=["a few", "each"]
)
"""How many of the statements are the last one."""


def spread(statements: list[str], times: int) -> range:
    """Return the numbers of that many statements."""
    return range(1, len(statements) + 1, -(-len(statements) // times))


@OFTEN
async def test_a_connection_that_is_lost_at_any_statement(copies: Copies, times: int) -> None:
    with lost_at(0, uninterrupted := copies.new()) as statements:
        await upgrade(uninterrupted, LAST_OF_THE_OLD)
    expected = await finish(uninterrupted)

    for number in spread(statements, times):
        url = copies.new()
        with lost_at(number, url), pytest.raises(DatabaseUnavailableError):
            await upgrade(url, LAST_OF_THE_OLD)
        await serve_the_version_before(url)
        await finish(url, expected)
        copies.drop()


@OFTEN
async def test_a_downgrade_whose_connection_is_lost_at_any_statement(newest: Copies, times: int) -> None:
    with lost_at(0, uninterrupted := newest.new()) as statements:
        await downgrade(uninterrupted)
    expected = await objects(uninterrupted)

    for number in spread(statements, times):
        url = newest.new()
        with lost_at(number, url), pytest.raises(DatabaseUnavailableError):
            await downgrade(url)
        await downgrade(url)
        assert await objects(url) == expected
        newest.drop()


@pytest.mark.parametrize(
    "after", [(2, 4), pytest.param((1,) * 8, marks=[pytest.mark.faults, pytest.mark.timeout(300)])]
)
async def test_a_process_that_is_killed_in_the_middle_of_it(copies: Copies, after: tuple[int, ...]) -> None:
    url = copies.new()

    for lines in after:
        with await Forked.start("tests.database.upgrader", url, LAST_OF_THE_OLD) as process:
            for _ in range(lines):
                assert "step" in await process.line()
        await serve_the_version_before(url)

    await finish(url, await finish(copies.new()))
