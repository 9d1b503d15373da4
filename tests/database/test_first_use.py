"""The first use of a SQLite file: what it makes is what the revisions make, and Alembic stays away where it can."""

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.schema import newest, revisions

USE = """
import asyncio, sys
from agent_service.infrastructure.database import get_session

async def main():
    async with get_session():
        pass

asyncio.run(main())
print(sorted(each for each in sys.modules if each.partition(".")[0] in ("alembic", "mako")))
"""


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def schema_of(path: Path) -> list[tuple[Any, ...]]:
    """Return what a file holds, in one spelling."""
    with closing(sqlite3.connect(path)) as raw:
        made = raw.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        version = [name for kind, name, *_ in made if kind == "table" and name.endswith("version")]
        revision = raw.execute(f'SELECT * FROM "{version[0]}"').fetchall()
        columns = [row for each in made if each[0] == "table" for row in raw.execute(f"PRAGMA table_info('{each[1]}')")]
    return [(*each[:3], spelling(each[3])) for each in made] + columns + revision


def spelling(sql: str | None) -> str:
    return "".join((sql or "").replace('"', "").split())


@pytest.mark.parametrize("prefix", [None, "", "x_", "My-"])
async def test_a_new_file_is_as_the_revisions_make_it(tmp_path: Path, prefix: str | None) -> None:
    used, migrated = tmp_path / "used.db", tmp_path / "migrated.db"
    for path in (used, migrated):
        database = DatabaseManager(url_of(path), table_prefix=prefix)
        await (database.prepare if path is used else database.upgrade)()
        state = await database.check()
        async with database.session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada", title="a needle"))
            assert await SessionRepository(db).search_sessions("ada", "needle") == [session]
        await database.close()
        assert state.ok

    assert schema_of(used) == schema_of(migrated)


@pytest.mark.parametrize("there", [False, True])
def test_alembic_is_loaded_for_migrations_only(tmp_path: Path, there: bool) -> None:
    surroundings = {"DATABASE_URL": url_of(tmp_path / "a.db"), "PYTHONPATH": ":".join(sys.path)}
    for _ in range(1 + there):
        used = subprocess.run([sys.executable, "-c", USE], env=surroundings, capture_output=True, text=True, check=True)

    assert used.stdout == "[]\n"


async def test_a_file_of_an_earlier_revision_is_migrated(tmp_path: Path) -> None:
    database = DatabaseManager(url_of(tmp_path / "a.db"))
    await database.upgrade("0009")
    await database.close()

    database = DatabaseManager(url_of(tmp_path / "a.db"))
    await database.prepare()
    state = await database.check()
    await database.close()

    assert state.ok


async def test_a_file_that_holds_something_else_is_migrated(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as raw:
        raw.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY)")
    database = DatabaseManager(url_of(tmp_path / "a.db"))

    await database.prepare()
    state = await database.check()
    await database.close()

    assert state.ok


async def test_a_file_with_two_revisions_is_refused(tmp_path: Path) -> None:
    database = DatabaseManager(url_of(tmp_path / "a.db"))
    await database.prepare()
    await database.close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as raw:
        raw.execute("INSERT INTO agent_service_version VALUES ('agent_service_0003')")
        raw.commit()

    database = DatabaseManager(url_of(tmp_path / "a.db"))
    with pytest.raises(DatabaseError, match="delete the rows that are wrong"):
        await database.prepare()
    await database.close()


async def test_many_that_use_a_new_file_at_once_make_it_once(tmp_path: Path) -> None:
    databases = [DatabaseManager(url_of(tmp_path / "a.db")) for _ in range(8)]

    await asyncio.gather(*(each.prepare() for each in databases))
    states = [await each.check() for each in databases]
    for each in databases:
        await each.close()

    assert all(each.ok for each in states)


def test_the_newest_revision_is_the_one_that_alembic_finds() -> None:
    assert newest.newest() == revisions.head()
