"""
Databases that take long to make, because revisions run: each kind is made once in a run, and copied for each test.

For tests about what such a database does next. A test about how it is made begins with an empty one.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.servers.databases import Databases
from tests.servers.postgres import PostgresServer, _in_thread

Make = Callable[[str], Coroutine[Any, Any, None]]
"""Fills the empty database of a URL. It says all names itself, because the settings are those of the first test."""
Prepare = Callable[[str, Make], str]
"""Returns the URL of a new copy for an engine, ``sqlite`` or ``postgres``; what makes it also identifies its kind."""


@pytest.fixture(scope="session")
def prepared_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], bytes]:
    """Returns the content of a database of SQLite, by what makes it."""
    folder = tmp_path_factory.mktemp("prepared")
    made: dict[Make, bytes] = {}

    def content(make: Make) -> bytes:
        if make not in made:
            path = folder / f"{len(made)}.db"
            path.touch(0o600)
            _in_thread(make(f"sqlite+aiosqlite:///{path}"))
            made[make] = path.read_bytes()
        return made[make]

    return content


@pytest.fixture(scope="session")
def prepared_templates(postgres_server: PostgresServer) -> Iterator[Callable[[Make], str]]:
    """Returns the name of a database of PostgreSQL to copy, by what makes it."""
    made: dict[Make, str] = {}

    def template(make: Make) -> str:
        if make not in made:
            name = f"prepared_{id(made)}_{len(made)}"
            _in_thread(make(postgres_server.create_database(name)))
            made[make] = name
        return made[make]

    yield template
    for name in made.values():
        postgres_server.drop_database(name)


@pytest.fixture
def prepare(
    request: pytest.FixtureRequest, prepared_files: Callable[[Make], bytes], tmp_path: Path
) -> Iterator[Prepare]:
    """Copies prepared databases; a connection left open to one of PostgreSQL fails the test."""
    with ExitStack() as copies:

        def copy(engine: str, make: Make) -> str:
            if engine == "sqlite":
                path = tmp_path / "prepared.db"
                path.touch(0o600)
                path.write_bytes(prepared_files(make))
                return f"sqlite+aiosqlite:///{path}"
            template: Callable[[Make], str] = request.getfixturevalue("prepared_templates")
            databases: Databases = request.getfixturevalue("postgres_databases")
            server: PostgresServer = request.getfixturevalue("postgres_server")
            return server.database_url(copies.enter_context(databases.lent(template(make))))

        yield copy
