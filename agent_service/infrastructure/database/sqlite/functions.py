"""What a connection needs before our statements run on it: functions, pragmas, and a library that is new enough."""

import sqlite3
from functools import lru_cache
from typing import Any, Final

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.sqlite.connection import SqliteConnection
from agent_service.infrastructure.database.values.conditions import Condition, holds
from agent_service.infrastructure.database.values.documents import dumps, loads, read_json

__all__ = ["create_functions", "prepare_connection", "require_version"]

_MINIMUM_VERSION: Final = (3, 35)
"""The first with RETURNING; the trigram tokenizer came one before."""


def require_version() -> None:
    """Refuse an SQLite library that lacks what we use.

    :raises DatabaseError: naming the version that is there, and the one that is needed.
    """
    if sqlite3.sqlite_version_info < _MINIMUM_VERSION:
        raise DatabaseError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")


def prepare_connection(connection: SqliteConnection) -> None:
    """Set up a new connection: our functions, pragmas and WAL mode."""
    create_functions(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    # Two processes that open a new file at once: SQLite refuses the second without waiting by itself.
    connection.run(lambda cursor: cursor.execute("PRAGMA journal_mode = WAL"))


def create_functions(connection: Any) -> None:
    """Register the functions that our statements call on a connection."""
    connection.create_function("json_merge", 2, _merge, deterministic=True)
    connection.create_function("lower_unicode", 1, _lower, deterministic=True)
    connection.create_function("json_holds", 2, _holds, deterministic=True)


def _merge(stored: str, patch: str) -> str:
    return dumps({**loads(stored), **loads(patch)})


def _holds(stored: str, conditions: str) -> bool:
    value = read_json(stored)
    return all(holds(value, each) for each in _conditions(conditions))


@lru_cache(maxsize=64)
def _conditions(text: str) -> tuple[Condition, ...]:
    return tuple(Condition(tuple(path), operator, operand) for path, operator, operand in loads(text))


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()
