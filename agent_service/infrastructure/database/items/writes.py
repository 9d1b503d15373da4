"""Writing items within a connection's transaction. Rows are locked in the order of their namespaces and keys."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.infrastructure.database.items.engines import draft
from agent_service.infrastructure.database.items.operations import Put
from agent_service.infrastructure.database.items.vectors import keep_vectors
from agent_service.infrastructure.database.values.types import sqlite_moment

__all__ = ["put_items", "refresh_items", "remove_expired", "remove_under"]

_UPSERT: Final = """
ON CONFLICT (tenant_id, namespace, key) DO UPDATE SET
    value = excluded.value, content = excluded.content, ttl = excluded.ttl, expires_at = excluded.expires_at,
    created_at = CASE WHEN i.expires_at <= excluded.updated_at THEN excluded.created_at ELSE i.created_at END,
    updated_at = excluded.updated_at
"""
_PUT_POSTGRES: Final = f"""
WITH gone AS (
    DELETE FROM agent_service_store_vectors AS v USING unnest($2::text[], $3::text[]) AS w (n, k)
    WHERE v.tenant_id = $1 AND v.namespace = w.n AND v.key = w.k
)
INSERT INTO agent_service_store_items AS i
    (tenant_id, namespace, key, value, content, ttl, created_at, updated_at, expires_at)
SELECT $1, n, k, v::jsonb, c, t, now, now, now + make_interval(secs => t)
FROM (
    SELECT *, clock_timestamp() AS now
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::float8[]) AS w (n, k, v, c, t)
) AS w
{_UPSERT}
"""  # noqa: S608
_PUT_SQLITE: Final = f"""
INSERT INTO agent_service_store_items AS i
    (tenant_id, namespace, key, value, content, ttl, created_at, updated_at, expires_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8)
{_UPSERT}
"""  # noqa: S608


def put_items(connection: Connection, tenant_id: str, puts: Iterable[Put]) -> None:
    """Store and remove items; of several operations for one item the last one holds."""
    last = {(each.namespace, each.key): each for each in puts}
    ordered = [last[place] for place in sorted(last)]
    removed = [(each.namespace, each.key) for each in ordered if each.value is None]
    stored = [each for each in ordered if each.value is not None]
    if connection.dialect.name == "postgresql":
        if removed and stored:
            # Also what is not there is locked by being stored, in its place in the order, before it is removed.
            stored = [replace(each, value="{}") if each.value is None else each for each in ordered]
        elif removed:
            _lock(connection, tenant_id, removed)
        if stored:
            _store_postgres(connection, tenant_id, stored)
    elif stored:
        _store_sqlite(connection, tenant_id, stored)
    if removed:
        _remove(connection, tenant_id, removed)


def _store_postgres(connection: Connection, tenant_id: str, stored: Sequence[Put]) -> None:
    columns = zip(*((each.namespace, each.key, each.value, each.content, each.ttl) for each in stored), strict=True)
    connection.exec_driver_sql(_PUT_POSTGRES, (tenant_id, *map(list, columns)))
    if any(each.vectors for each in stored):
        keep_vectors(connection, tenant_id, stored)


def _store_sqlite(connection: Connection, tenant_id: str, stored: Sequence[Put]) -> None:
    moment = SYSTEM_CLOCK.now()
    now = sqlite_moment(moment)
    values = [
        (
            *(tenant_id, each.namespace, each.key, each.value, each.content, each.ttl, now),
            None if each.ttl is None else sqlite_moment(moment + timedelta(seconds=each.ttl)),
        )
        for each in stored
    ]
    connection.exec_driver_sql(_PUT_SQLITE, values)


def _lock(connection: Connection, tenant_id: str, places: Sequence[tuple[str, str]]) -> None:
    sql = draft(connection.dialect.name)
    tenant, table = sql.add(tenant_id), sql.places(places)
    connection.exec_driver_sql(
        f"SELECT 1 FROM agent_service_store_items AS i JOIN {table} "  # noqa: S608 - numbers of parameters
        f"ON i.namespace = w.namespace AND i.key = w.key WHERE i.tenant_id = {tenant} "
        f"ORDER BY {sql.order}, i.key USING ~<~ FOR UPDATE OF i",
        tuple(sql.parameters),
    )


def _remove(connection: Connection, tenant_id: str, places: Sequence[tuple[str, str]]) -> None:
    sql = draft(connection.dialect.name)
    tenant, table = sql.add(tenant_id), sql.places(places)
    connection.exec_driver_sql(
        f"DELETE FROM agent_service_store_items WHERE tenant_id = {tenant} "  # noqa: S608 - numbers of parameters
        f"AND (namespace, key) IN (SELECT w.namespace, w.key FROM {table})",
        tuple(sql.parameters),
    )


def refresh_items(
    connection: Connection, tenant_id: str, places: Iterable[tuple[str, str]], *, live_only: bool
) -> None:
    """Let the time to live of items begin again.

    An item that another transaction has locked is left out: that one stores, refreshes or removes it.
    """
    sql = draft(connection.dialect.name)
    tenant, table = sql.add(tenant_id), sql.places(sorted(places))
    own = f"i.tenant_id = {tenant} AND i.ttl IS NOT NULL"
    conditions = f"{own} AND {sql.live()}" if live_only else own
    if connection.dialect.name == "postgresql":
        statement = (
            "WITH locked AS (SELECT i.namespace, i.key FROM agent_service_store_items AS i "  # noqa: S608
            f"JOIN {table} ON i.namespace = w.namespace AND i.key = w.key WHERE {conditions} "
            "FOR UPDATE OF i SKIP LOCKED) "
            "UPDATE agent_service_store_items AS i SET expires_at = clock_timestamp() + make_interval(secs => i.ttl) "
            f"FROM locked AS w WHERE i.tenant_id = {tenant} AND i.namespace = w.namespace AND i.key = w.key"
        )
    else:
        moved = f"strftime('%Y-%m-%d %H:%M:%f000', {sql.now()}, i.ttl || ' seconds')"
        statement = (
            f"UPDATE agent_service_store_items AS i SET expires_at = {moved} "  # noqa: S608
            f"WHERE {conditions} AND (i.namespace, i.key) IN (SELECT w.namespace, w.key FROM {table})"
        )
    connection.exec_driver_sql(statement, tuple(sql.parameters))


def remove_expired(connection: Connection, size: int, tenant_id: str | None = None) -> int:
    """Remove at most ``size`` items whose time is over, the longest first; return how many.

    Those that others have locked stay for the next time.

    :param tenant_id: None: of all tenants.
    """
    sql = draft(connection.dialect.name)
    conditions = f"i.expires_at <= {sql.now()}"
    if tenant_id is not None:
        conditions += f" AND i.tenant_id = {sql.add(tenant_id)}"
    return _remove_some(connection, sql.parameters, conditions, "i.expires_at", size)


def remove_under(connection: Connection, size: int, tenant_id: str, prefix: str) -> int:
    """Remove at most ``size`` items of a namespace and those below it; return how many."""
    sql = draft(connection.dialect.name)
    conditions = f"i.tenant_id = {sql.add(tenant_id)} AND {sql.under(prefix)}"
    return _remove_some(connection, sql.parameters, conditions, f"{sql.order}, i.key", size, skip=False)


def _remove_some(
    connection: Connection, parameters: list[object], conditions: str, order: str, size: int, *, skip: bool = True
) -> int:
    locking = ""
    if connection.dialect.name == "postgresql":
        locking = " FOR UPDATE SKIP LOCKED" if skip else " FOR UPDATE"
    statement = (
        "WITH chosen AS (SELECT i.tenant_id, i.namespace, i.key FROM agent_service_store_items AS i "  # noqa: S608
        f"WHERE {conditions} ORDER BY {order} LIMIT {size}{locking}) "
        "DELETE FROM agent_service_store_items WHERE (tenant_id, namespace, key) IN (SELECT * FROM chosen) RETURNING 1"
    )
    return len(connection.exec_driver_sql(statement, tuple(parameters)).all())
