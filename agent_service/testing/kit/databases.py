"""A fresh database for each test: a copy of one that was made once in a run."""

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from agent_service.infrastructure.database.connection import close_database
from agent_service.infrastructure.database.copies import copy_database, cut_off, drop_database, url_of_copy
from agent_service.infrastructure.database.engine.manager import DatabaseManager

__all__ = ["PostgresTemplate", "ServiceDatabase", "SqliteTemplate"]


class ServiceDatabase(Protocol):
    """The database of one test."""

    url: str
    """What DATABASE_URL is set to."""

    def lost(self) -> Any:
        """Use it in ``async with``: in the block the database cannot be reached; afterwards it is back, with its data.

        Connections of this event loop are closed before and after.
        """


class SqliteTemplate:
    """Makes files of SQLite.

    :param folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "template.db"
        self._path.touch(0o600)
        _in_thread(_prepare(f"sqlite+aiosqlite:///{self._path}"))

    def copy(self, folder: Path) -> "SqliteDatabase":
        """Return a new database in a folder."""
        path = folder / "service.db"
        path.touch(0o600)
        shutil.copyfile(self._path, path)
        return SqliteDatabase(path)


class SqliteDatabase:
    """A file of SQLite."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite+aiosqlite:///{path}"
        self._path = path

    @asynccontextmanager
    async def lost(self) -> AsyncIterator[None]:
        """See :class:`ServiceDatabase`. A folder stands in the place of the file meanwhile."""
        await close_database()
        kept = self._path.with_suffix(".lost")
        os.rename(self._path, kept)  # noqa: PTH104 - not Path.rename, which a linter takes for one that blocks
        os.mkdir(self._path)  # noqa: PTH102
        try:
            yield
        finally:
            await close_database()
            os.rmdir(self._path)  # noqa: PTH106
            os.rename(kept, self._path)  # noqa: PTH104

    def drop(self) -> None:
        """Remove it, with what SQLite keeps beside it."""
        for each in self._path.parent.glob(f"{self._path.name}*"):
            each.unlink()


class PostgresTemplate:
    """Makes databases on a server of PostgreSQL.

    :param url: of any database there, whose user may create databases; that database itself is not touched.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = f"agent_service_kit_{os.getpid()}_{os.urandom(4).hex()}"
        self._copies = 0
        _in_thread(copy_database(url, self._name))
        _in_thread(_prepare(url_of_copy(url, self._name)))

    def copy(self, _folder: Path) -> "PostgresDatabase":
        """Return a new database."""
        self._copies += 1
        name = f"{self._name}_{self._copies}"
        _in_thread(copy_database(self._url, name, self._name))
        return PostgresDatabase(self._url, name)

    def drop(self) -> None:
        """Drop the template."""
        _in_thread(drop_database(self._url, self._name))


class PostgresDatabase:
    """A database of PostgreSQL."""

    def __init__(self, server: str, name: str) -> None:
        self.url = url_of_copy(server, name)
        self._server = server
        self._name = name

    @asynccontextmanager
    async def lost(self) -> AsyncIterator[None]:
        """See :class:`ServiceDatabase`. The server ends its connections and refuses new ones."""
        await cut_off(self._server, self._name, lost=True)
        try:
            yield
        finally:
            await close_database()
            await cut_off(self._server, self._name, lost=False)

    def drop(self) -> None:
        """Drop it."""
        _in_thread(drop_database(self._server, self._name))


async def _prepare(url: str) -> None:
    database = DatabaseManager(url)
    try:
        await database.upgrade()
    finally:
        await database.close()


def _in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run work to its end, whether or not an event loop runs in this thread."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as exc:  # noqa: BLE001 - raised below, in the thread that waits
            problems.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
