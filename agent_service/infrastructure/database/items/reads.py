"""Reading items within a connection's transaction."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from agent_service.infrastructure.database.items.engines import Postgres, Sqlite, draft
from agent_service.infrastructure.database.items.operations import Get, Item, ListNamespaces, Search
from agent_service.infrastructure.database.items.places import Namespace, end_of, read_namespace, write_namespace
from agent_service.infrastructure.database.items.vectors import similarity

__all__ = ["Expiring", "find_items", "get_items", "list_namespaces"]

Expiring = set[tuple[str, str]]
"""Namespaces and keys of items that were read and whose time to live begins again."""

_COLUMNS: Final = "i.namespace, i.key, CAST(i.value AS text), i.created_at, i.updated_at, i.ttl"
_PAGE: Final = 500
_TYPICAL_LENGTH: Final = 400.0


def get_items(
    connection: Connection, tenant_id: str, gets: Sequence[Get], expiring: Expiring, *, live_only: bool
) -> list[Item | None]:
    """Return the item of each operation, by one statement for all.

    :param expiring: takes those to refresh.
    :param live_only: leave out those whose time is over.
    """
    sql = draft(connection.dialect.name)
    tenant, places = sql.add(tenant_id), sql.places(sorted({(each.namespace, each.key) for each in gets}))
    condition = f" WHERE {sql.live()}" if live_only else ""
    found_by = f"i.tenant_id = {tenant} AND i.namespace = w.namespace AND i.key = w.key"
    statement = f"SELECT {_COLUMNS} FROM {places} {sql.look_up(found_by)}{condition}"  # noqa: S608
    rows = {(row[0], row[1]): row for row in connection.exec_driver_sql(statement, tuple(sql.parameters))}
    expiring.update(
        (each.namespace, each.key)
        for each in gets
        if each.refresh and (row := rows.get((each.namespace, each.key))) is not None and row[5] is not None
    )
    found = (rows.get((each.namespace, each.key)) for each in gets)
    return [None if row is None else _item(sql, row) for row in found]


def find_items(
    connection: Connection,
    tenant_id: str,
    search: Search,
    expiring: Expiring,
    *,
    live_only: bool,
    extension: str | None = None,
) -> list[Item]:
    """Return the items that a search finds.

    Cost grows with how many items there are in the namespace and below it.

    :param extension: the schema of pgvector, where the search has a vector.
    """
    sql = draft(connection.dialect.name)
    conditions = [f"i.tenant_id = {sql.add(tenant_id)}", sql.under(search.prefix)]
    conditions += [sql.live()] if live_only else []
    conditions += sql.filtered(search.conditions) if search.conditions else []
    score, joined, order = "NULL", "", f"i.updated_at DESC, {sql.order}, i.key"
    if search.vector is not None:
        joined, score = similarity(sql, search.vector, str(extension)), "s.score"
        order = f"s.score DESC NULLS LAST, {order}"
    elif search.words:
        content = sql.lower("i.content")
        words = [sql.lower(_text(sql, each)) for each in search.words]
        contained = [f"{sql.position(content, word)} > 0" for word in words]
        conditions.append(f"({' OR '.join(contained)})")
        score = f"({' + '.join(_rank(content, word) for word in words)}) / {len(words)}"
        order = f"score DESC, {order}"
    statement = (
        f"SELECT {_COLUMNS}, {score} AS score FROM agent_service_store_items AS i{joined} "  # noqa: S608
        f"WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT {search.limit} OFFSET {search.offset}"
    )
    rows = connection.exec_driver_sql(statement, tuple(sql.parameters)).all()
    if search.refresh:
        expiring.update((row[0], row[1]) for row in rows if row[5] is not None)
    return [_item(sql, row) for row in rows]


def _text(sql: Postgres | Sqlite, text: str) -> str:
    return f"CAST({sql.add(text)} AS text)"


def _rank(content: str, word: str) -> str:
    """BM25 for one word over a typical length, as searches of messages rank."""
    removed = f"length({content}) - length(replace({content}, {word}, ''))"
    count = f"CAST({removed} AS float) / length({word})"
    return f"({count}) / ({count} + 0.3 + 0.9 * length({content}) / {_TYPICAL_LENGTH})"


def list_namespaces(
    connection: Connection, tenant_id: str, operation: ListNamespaces, *, live_only: bool
) -> list[Namespace]:
    """Return the namespaces that an operation lists.

    Cost grows with how many namespaces there are up to the last one that is returned, not with their items.
    """
    wanted, shown = operation.offset + operation.limit, list[Namespace]()
    for namespace in _distinct(connection, tenant_id, operation, live_only=live_only):
        if len(shown) >= wanted:
            break
        cut = namespace[: operation.max_depth]
        if operation.shows(namespace) and (not shown or shown[-1] != cut):
            shown.append(cut)
    return shown[operation.offset : wanted]


def _distinct(
    connection: Connection, tenant_id: str, operation: ListNamespaces, *, live_only: bool
) -> Iterator[Namespace]:
    prefix = _literal_beginning(operation)
    least = prefix
    while True:
        sql = draft(connection.dialect.name)
        own, ends = f"i.tenant_id = {sql.add(tenant_id)}", [sql.live()] if live_only else []
        if prefix:
            ends.append(sql.compare("i.namespace", "<", sql.add(end_of(prefix))))
        first, following = (
            "SELECT i.namespace FROM agent_service_store_items AS i WHERE "  # noqa: S608
            f"{' AND '.join((own, sql.compare('i.namespace', sign, after), *ends))} ORDER BY {sql.order} LIMIT 1"
            for sign, after in ((">=", sql.add(least)), (">", "f.namespace"))
        )
        # From one namespace straight to the next along the index, however many items are between.
        statement = (
            f"WITH RECURSIVE found (namespace) AS (SELECT * FROM ({first}) AS i UNION ALL "  # noqa: S608
            f"SELECT ({following}) FROM found AS f WHERE f.namespace IS NOT NULL) "
            f"SELECT namespace FROM found WHERE namespace IS NOT NULL LIMIT {_PAGE}"
        )
        texts = [str(row[0]) for row in connection.exec_driver_sql(statement, tuple(sql.parameters))]
        namespaces = [read_namespace(each) for each in texts]
        yield from namespaces
        if len(texts) < _PAGE:
            return
        last = namespaces[-1]
        # Nothing is written with U+0001 after a label's end, so this is right behind the last one.
        least = texts[-1] + "\x01"
        if operation.max_depth is not None and operation.shows(last) and len(last) > operation.max_depth:
            least = end_of(write_namespace(last[: operation.max_depth]))


def _literal_beginning(operation: ListNamespaces) -> str:
    """Return the longest namespace that all namespaces that are shown begin with, of one prefix."""
    beginnings = [_until_wildcard(path) for kind, path in operation.matches if kind == "prefix"]
    return max((write_namespace(each) for each in beginnings), key=len, default="")


def _until_wildcard(path: Iterable[str]) -> Namespace:
    labels = list[str]()
    for label in path:
        if label == "*":
            break
        labels.append(label)
    return tuple(labels)


def _item(sql: Postgres | Sqlite, row: Any) -> Item:
    score = float(row[6]) if len(row) > 6 and row[6] is not None else None
    return Item(read_namespace(row[0]), row[1], sql.read(row[2]), sql.moment(row[3]), sql.moment(row[4]), score)
