"""Copies of databases of PostgreSQL, made by the server itself; for tests."""

import re
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import text

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors

__all__ = ["copy_database", "cut_off", "drop_database", "url_of_copy"]

_NAME = re.compile(r"[a-z0-9_]{1,63}")


def url_of_copy(url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{_checked(name)}"))


async def copy_database(url: str, name: str, template: str = "template1") -> None:
    """Create a database as a copy of another, to which nobody may be connected.

    :param url: of any database on the server, whose user may create databases.
    :raises DatabaseError: if the server refuses.
    """
    await _administer(url, f"CREATE DATABASE {_checked(name)} TEMPLATE {_checked(template)}")


async def drop_database(url: str, name: str) -> None:
    """Drop a database, and the connections to it, if it is there."""
    await _administer(url, f"DROP DATABASE IF EXISTS {_checked(name)} WITH (FORCE)")


async def cut_off(url: str, name: str, *, lost: bool) -> None:
    """Have the server refuse connections to a database and end those that are open, or permit them again."""
    ending = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_checked(name)}'"  # noqa: S608
    permission = f"ALTER DATABASE {_checked(name)} WITH ALLOW_CONNECTIONS {not lost}"
    await _administer(url, permission, *([ending] if lost else []))


async def _administer(url: str, *statements: str) -> None:
    database = DatabaseManager(url)
    try:
        with database_errors("copy a database"):
            async with database.engine.connect() as plain:
                connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
                for each in statements:
                    await connection.execute(text(each))
    finally:
        await database.close()


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"a copy's name has lower-case letters, digits and underscores only, got {name!r:.80}")
    return name
