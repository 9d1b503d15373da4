"""Reading tables of other libraries page by page: each page begins after the last row of the one before.

A page is as many rows as a budget of bytes allows, so that memory is bounded whatever the rows hold.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, LargeBinary, RowMapping, Select, Text, and_, func, literal, select, tuple_, union
from sqlalchemy import cast as cast_to
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_service.infrastructure.database.foreign.tables import SourceTable

__all__ = ["Reading", "Row"]

Row: TypeAlias = RowMapping
"""The values of a row by the names of its columns."""

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 4_000_000
"""Size of a page; a row that is larger comes alone."""
_BEFORE, _FOUND = "source_bytes_before", "source_rows_found"


class _Page(NamedTuple):
    rows: Sequence[Row]
    last: bool


class Reading:
    """One read-only transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def walk(
        self,
        table: SourceTable,
        columns: Sequence[str],
        *,
        where: Mapping[str, Any],
        order: Sequence[str],
        weigh: Sequence[str] = (),
    ) -> AsyncIterator[Row]:
        """Return all rows of which columns have these values, in an order, one page in memory at a time.

        :param columns: what is read of each row.
        :param order: columns that are in ``columns``, are not null, and together tell any two of these rows apart.
        :param weigh: the columns that may be large.
        """
        after: Sequence[Any] | None = None
        while True:
            page = await self._page(table, columns, where=where, order=order, after=after, weigh=weigh)
            for row in page.rows:
                yield row
            if page.last:
                return
            after = [page.rows[-1][name] for name in order]

    async def one(self, table: SourceTable, columns: Sequence[str], *, where: Mapping[str, Any]) -> Row | None:
        """Return the row whose columns have these values, or None."""
        read = select(*self._values(table, columns)).where(*_equal(table, where)).limit(1)
        return (await self._connection.execute(read)).mappings().first()

    async def among(
        self,
        table: SourceTable,
        columns: Sequence[str],
        *,
        where: Mapping[str, Any],
        names: Sequence[str],
        values: Sequence[Sequence[Any]],
    ) -> Sequence[Row]:
        """Return the rows whose columns have these values, and others one of some combinations of values.

        :param names: those other columns.
        :param values: for each combination a value of each of them.
        """
        if not values:
            return []
        keys = [table.clause.c[name] for name in names]
        wanted = [tuple_(*(literal(each, key.type) for each, key in zip(row, keys, strict=True))) for row in values]
        read = select(*self._values(table, columns)).where(*_equal(table, where), tuple_(*keys).in_(wanted))
        return (await self._connection.execute(read)).mappings().all()

    async def keys(
        self,
        places: Sequence[tuple[SourceTable, Sequence[str]]],
        *,
        after: Sequence[Any] | None,
        limit: int,
    ) -> list[tuple[Any, ...]]:
        """Return the next keys that any of some tables have, each once, in their order.

        :param places: tables, and the columns that are the key there. Indexes that begin with them make it cheap.
        """
        parts = []
        for table, names in places:
            key = [table.clause.c[name] for name in names]
            part = select(*key).distinct().order_by(*key).limit(limit)
            parts.append(part if after is None else part.where(_beyond(key, after)))
        if len(parts) == 1:
            return [tuple(row) for row in await self._connection.execute(parts[0])]
        width = range(len(places[0][1]))
        both = union(*(_renamed(part) for part in parts)).subquery()
        merged = [both.c[f"key_{index}"] for index in width]
        read = select(*merged).order_by(*merged).limit(limit)
        return [tuple(row) for row in await self._connection.execute(read)]

    async def count(self, table: SourceTable, distinct: str | None = None) -> int:
        """Return how many rows a table has, or how many values a column."""
        counted = func.count() if distinct is None else func.count(table.clause.c[distinct].distinct())
        return int((await self._connection.scalar(select(counted).select_from(table.clause))) or 0)

    async def _page(
        self,
        table: SourceTable,
        columns: Sequence[str],
        *,
        where: Mapping[str, Any],
        order: Sequence[str],
        after: Sequence[Any] | None,
        weigh: Sequence[str],
    ) -> _Page:
        keys = [table.clause.c[name] for name in order]
        read: Any = select(*self._values(table, columns)).where(*_equal(table, where))
        read = read.order_by(*keys).limit(PAGE_ROWS)
        if after is not None:
            read = read.where(_beyond(keys, after))
        if not weigh:
            rows = (await self._connection.execute(read)).mappings().all()
            return _Page(rows, len(rows) < PAGE_ROWS)
        rows = (await self._connection.execute(self._within_budget(read, columns, order, weigh))).mappings().all()
        return _Page(rows, not rows or len(rows) == rows[0][_FOUND] < PAGE_ROWS)

    def _within_budget(
        self, read: Select[Any], columns: Sequence[str], order: Sequence[str], weigh: Sequence[str]
    ) -> Select[Any]:
        """Take of a page only so many rows that those before the last one fit into the budget."""
        page = read.subquery()
        size = self._size(page.c[weigh[0]])
        for name in weigh[1:]:
            size = size + self._size(page.c[name])
        along = [page.c[name] for name in order]
        weighed = select(
            *(page.c[name] for name in columns),
            (func.sum(size).over(order_by=along) - size).label(_BEFORE),
            func.count().over().label(_FOUND),
        ).subquery()
        shown = [weighed.c[name] for name in (*columns, _FOUND)]
        return select(*shown).where(weighed.c[_BEFORE] < PAGE_BYTES).order_by(*(weighed.c[name] for name in order))

    def _size(self, value: Any) -> Any:
        # Neither reads a value that lies apart from its row on PostgreSQL.
        measure = func.pg_column_size if self._connection.dialect.name == "postgresql" else func.length
        return func.coalesce(measure(value), 0)

    def _values(self, table: SourceTable, columns: Sequence[str]) -> list[Any]:
        return [table.value(name).label(name) for name in columns]


def _renamed(part: Select[Any]) -> Select[Any]:
    page = part.subquery()
    return select(*(each.label(f"key_{index}") for index, each in enumerate(page.c)))


def _equal(table: SourceTable, where: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    return [table.clause.c[name] == literal(value, table.clause.c[name].type) for name, value in where.items()]


def _beyond(keys: Sequence[Any], after: Sequence[Any]) -> ColumnElement[bool]:
    given = [_given(value, key.type) for key, value in zip(keys, after, strict=True)]
    return and_(keys[0] > given[0]) if len(keys) == 1 else tuple_(*keys) > tuple_(*given)


def _given(value: Any, kind: Any) -> ColumnElement[Any]:
    if isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
        # Text that is no UTF-8, which only SQLite has and its driver does not take as text.
        return cast_to(literal(value.encode("utf-8", "surrogateescape"), LargeBinary), Text)
    return literal(value, kind)
