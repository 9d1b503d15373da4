"""Statements written once for both engines, and how they are run.

A statement is written as PostgreSQL takes it, with ``EACH(x)`` and ``ITEMS(x)`` for the members of a JSON object
(``key`` and ``value``) and the texts of a JSON list (``value``), and with ``x IN KEYS($2)`` and ``x IN TEXTS($2)`` for
lists that are given. For SQLite the casts are left out. ``$1`` is the tenant.

``CROSS JOIN LATERAL (SELECT * FROM table AS t WHERE ... OFFSET 0) AS t`` looks up rows by their key, one key after the
other. A plain join is planned by estimates, which are worst for a thread that has just grown long, and may then read
the whole thread for each row. SQLite has ``CROSS JOIN`` instead, which it does in the order that is written: without
statistics, a plain join may begin with the table, and read all that the tenant has.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.driver import fetch_rows

__all__ = ["Statement", "new_id"]

_LISTS: Final = {"KEYS": "uuid", "TEXTS": "text"}
_IN: Final = re.compile(r"(NOT )?IN (KEYS|TEXTS)\((\$\d+)\)")
_EACH: Final = re.compile(r"EACH\(([^()]+)\)")
_ITEMS: Final = re.compile(r"ITEMS\(([^()]+)\)")
_CAST: Final = re.compile(r"::\w+")
_LOOKUP: Final = re.compile(
    r"CROSS JOIN LATERAL \(SELECT \* FROM (\w+) AS (\w+)\s+WHERE (.*?)\s+OFFSET 0\) AS \2\b", re.DOTALL
)
_TENANT: Final = re.compile(r"\$1(?!\d)")
_PLACE: Final = re.compile(r"\$(\d+)")
_LOCK: Final = re.compile(r"\s+FOR UPDATE(?: SKIP LOCKED)?")


class Statement:
    """A statement for both engines.

    :param text: see the head of the file. What it locks on PostgreSQL (FOR UPDATE) is left out for SQLite, where the
        transaction has to hold the write lock.
    """

    def __init__(self, text: str) -> None:
        text = _TENANT.sub("$1::varchar", text)
        self._postgres = _ITEMS.sub(r"LATERAL jsonb_array_elements_text(\1::text::jsonb)", _IN.sub(_in_array, text))
        self._postgres = _EACH.sub(r"LATERAL jsonb_each_text(\1::text::jsonb)", self._postgres)
        sqlite = _IN.sub(r"\1IN (SELECT item.value FROM ITEMS(\3) AS item)", _LOCK.sub("", text))
        sqlite = _LOOKUP.sub(r"CROSS JOIN \1 AS \2 ON \3", sqlite)
        sqlite = _EACH.sub(r"json_each(\1)", _ITEMS.sub(r"json_each(\1)", sqlite))
        self._sqlite = _PLACE.sub(r":p\1", _CAST.sub("", sqlite))

    def run(self, connection: Connection, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        """Run it in the connection's transaction and return its rows.

        :param parameters: of texts, numbers, keys as :func:`new_id` returns them, and lists of these.

        :raises DBAPIError: the database refused it, or the connection was lost.
        """
        if connection.dialect.name == "postgresql":
            return fetch_rows(connection, names_of(connection).render(self._postgres), parameters)
        given = (json.dumps(each) if isinstance(each, list) else each for each in parameters)
        named = {f"p{number}": each for number, each in enumerate(given, start=1)}
        result = connection.exec_driver_sql(self._sqlite, named)
        return [tuple(row) for row in result] if result.returns_rows else []


def _in_array(found: re.Match[str]) -> str:
    # An array is known when the statement is planned, with its length; a subquery is not.
    return f"{'<> ALL' if found[1] else '= ANY'} ({found[3]}::{_LISTS[found[2]]}[])"


def new_id(connection: Connection, value: UUID) -> UUID | str:
    """Return a UUID as the engine's driver takes it."""
    return value if connection.dialect.name == "postgresql" else value.hex
