"""Taking over a SQLite table of ``key`` and ``value`` alone, as the documented example of a store makes it."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.exc import IntegrityError

from agent_service.core.codec import encode
from agent_service.core.errors import CacheSerializationError, DatabaseError

__all__ = ["RowOf", "is_documented", "take_over"]

RowOf: TypeAlias = Callable[[str, str], Mapping[str, str | None]]
"""Returns the columns of a row, from a key and a value."""

_ASIDE: Final = "_as_documented"
_ROWS: Final = 1000
_MARK: Final = "~"
"""How the text of a key begins that is no text: see :mod:`agent_service.context.keys`."""


def is_documented(connection: Connection, name: str) -> bool:
    """Whether a table is one that the documented example made."""
    if connection.dialect.name != "sqlite":
        return False
    inspector = inspect(connection)
    return inspector.has_table(name) and {each["name"] for each in inspector.get_columns(name)} == {"key", "value"}


def take_over(
    connection: Connection,
    name: str,
    make: Callable[[], Table],
    row_of: RowOf,
) -> None:
    """Put the table that ``make`` creates in place of the documented one, with its rows; all or nothing.

    Rows without a key or a value, which the example cannot read either, are dropped. A value that is no JSON of a
    dictionary stays as it is, and is an error when it is read.

    :param row_of: returns the columns of a row of the new table, from a key and a value.
    :raises DatabaseError: if a key exists more than once.
    """
    quote = connection.dialect.identifier_preparer.quote
    aside = quote(name + _ASIDE)
    # A table that was made WITHOUT ROWID has a primary key.
    keys = inspect(connection).get_pk_constraint(name)["constrained_columns"]
    order = "key" if keys == ["key"] else "rowid"
    connection.execute(text(f"ALTER TABLE {quote(name)} RENAME TO {aside}"))
    table = make()
    for rows in _rows(connection, aside, order):
        try:
            connection.execute(table.insert(), [dict(row_of(_key(key), _value(value))) for key, value in rows])
        except IntegrityError as exc:
            table_name = quote(name)
            newest = f"(SELECT max(rowid) FROM {table_name} GROUP BY key)"  # noqa: S608 - for the caller to run
            remedy = f"DELETE FROM {table_name} WHERE rowid NOT IN {newest}"  # noqa: S608
            raise DatabaseError(
                f"table {name!r} has no primary key and holds a key more than once, so it cannot be taken over; keep "
                f"the newest: {remedy}"
            ) from exc
    connection.execute(text(f"DROP TABLE {aside}"))


def _rows(connection: Connection, table: str, order: str) -> Iterator[list[tuple[str, str]]]:
    last = None
    page = text(
        f"SELECT {order}, CAST(key AS TEXT), CAST(value AS TEXT) FROM {table} "  # noqa: S608 - quoted names
        f"WHERE (:last IS NULL OR {order} > :last) AND key IS NOT NULL AND value IS NOT NULL "
        f"ORDER BY {order} LIMIT :rows"
    )
    while found := connection.execute(page, {"last": last, "rows": _ROWS}).all():
        last = found[-1][0]
        yield [(key, value) for _, key, value in found]


def _key(key: str) -> str:
    return f"{_MARK}{orjson.dumps(key).decode()}" if key.startswith(_MARK) or "\x00" in key else key


def _value(value: str) -> str:
    try:
        document: Any = json.loads(value)
        return encode(document)[0].decode() if isinstance(document, dict) else value
    except (ValueError, RecursionError, CacheSerializationError):
        return value
