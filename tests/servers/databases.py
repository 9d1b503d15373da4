"""
Databases of a PostgreSQL server that tests take one after the other.

To copy a template costs the server a quarter of a second, more than most tests. So a database that comes back is
emptied and used again. Only what is as good as a copy is: a database whose catalog is as it was, without statistics,
hardly grown, and with the template's own rows unchanged. Any other is dropped.

One connection to each database stays open for that, because a new one reads the catalog anew. It is idle while a test
runs, and a test may end it.
"""

import asyncio
import itertools
import os
import threading
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

T = TypeVar("T")

GROWTH = 2_000_000
"""Bytes by which a database may have grown; what was deleted stays in its files."""

_CATALOGS = (
    "pg_attrdef", "pg_attribute", "pg_cast", "pg_class", "pg_collation", "pg_constraint", "pg_default_acl",
    "pg_description", "pg_event_trigger", "pg_extension", "pg_index", "pg_inherits", "pg_namespace", "pg_operator",
    "pg_policy", "pg_proc", "pg_publication", "pg_rewrite", "pg_sequence", "pg_statistic_ext", "pg_trigger", "pg_type",
)  # fmt: skip
# Every change of a catalog's row gives it a new xmin, higher than all before. The first transaction is 3; 2147483647 is
# the age of rows that are older.
_NEWEST = "age('3'::xid) - nullif(min(age(xmin)), 2147483647)"
_STATE = " UNION ALL ".join(f"SELECT '{name}', count(*), {_NEWEST} FROM pg_catalog.{name}" for name in _CATALOGS)
_STATE += f"""
UNION ALL SELECT 'settings', count(*), {_NEWEST} FROM pg_db_role_setting WHERE setdatabase IN
  (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL SELECT 'database', datconnlimit, datdba::bigint FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'statistics', count(*), 0 FROM pg_statistic WHERE starelid >= 16384
UNION ALL SELECT 'large objects', count(*), 0 FROM pg_largeobject_metadata
"""
_TABLES = """
SELECT c.oid::regclass::text AS name, c.relkind AS kind
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1
"""
_TOUCHED = _TABLES.replace("ORDER BY", "AND (c.relkind = 'S' OR pg_relation_size(c.oid) > 0) ORDER BY")
_KEEPER = "tests-keeper"
_SIZE = "SELECT coalesce(sum(pg_relation_size(oid)), 0)::bigint FROM pg_class WHERE oid >= 16384 AND relkind <> 'v'"


class Admin:
    """One connection to the server's own database, on a loop in a thread, for whoever has no loop or another one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tests-postgres-admin", daemon=True)
        self._thread.start()
        self._connection: asyncpg.Connection | None = None

    def close(self) -> None:
        self.run(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end on the loop of this object, and give the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def execute(self, statement: str) -> None:
        self.run(self._execute(statement))

    async def _execute(self, statement: str) -> None:
        await (await self._connected()).execute(statement)

    async def connections(self, name: str) -> int:
        """Count the connections of tests to a database; a backend needs a moment to leave after its client has."""
        connection = await self._connected()
        question = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND application_name <> $2"
        for _ in range(200):
            left: int = await connection.fetchval(question, name, _KEEPER)
            if left == 0:
                break
            await asyncio.sleep(0.005)
        return left

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self.url)
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()


@dataclass(frozen=True)
class State:
    """What a copy of a template is like before anybody has used it."""

    catalog: frozenset[tuple[Any, ...]]
    rows: dict[str, str]
    size: int


class Databases:
    """
    Copies of templates, lent to one test after the other.

    :param admin: a connection to the server.
    """

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._names = (f"test_{os.getpid()}_lent_{number}" for number in itertools.count(1))
        self._free: dict[str, list[str]] = defaultdict(list)
        self._fresh: dict[str, State] = {}
        self._keepers: dict[str, asyncpg.Connection] = {}

    def close(self) -> None:
        """Drop what is not lent."""
        for name in itertools.chain(*self._free.values()):
            self._drop(name)
        self._free.clear()

    def url(self, name: str) -> str:
        """Return the URL of a database, as asyncpg takes it."""
        return urlunsplit(urlsplit(self._admin.url)._replace(path=f"/{name}"))

    @contextmanager
    def lent(self, template: str) -> Iterator[str]:
        """
        Give the name of an empty database for as long as the block runs.

        :raises AssertionError: connections to it were left open.
        """
        name = self._free[template].pop() if self._free[template] else self._copied(template)
        left = None
        try:
            yield name
            left = self._admin.run(self._admin.connections(name))
        finally:
            if left == 0 and self._admin.run(self._emptied(name, self._fresh[template])):
                self._free[template].append(name)
            else:
                self._drop(name)
        assert left == 0, f"{left} connections to the database were left open"

    def _copied(self, template: str) -> str:
        name = next(self._names)
        self._admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        if template not in self._fresh:
            self._fresh[template] = self._admin.run(self._state(name))
        return name

    async def _state(self, name: str) -> State:
        return await _state(await self._keeper(name))

    async def _emptied(self, name: str, fresh: State) -> bool:
        try:
            return await _emptied(await self._keeper(name), fresh)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            return False

    async def _keeper(self, name: str) -> asyncpg.Connection:
        keeper = self._keepers.get(name)
        if keeper is None or keeper.is_closed():
            settings = {"application_name": _KEEPER}
            keeper = self._keepers[name] = await asyncpg.connect(self.url(name), server_settings=settings)
        return keeper

    async def _dismiss(self, name: str) -> None:
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.terminate()

    def _drop(self, name: str) -> None:
        self._admin.run(self._dismiss(name))
        self._admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _state(connection: asyncpg.Connection) -> State:
    tables = [each["name"] for each in await connection.fetch(_TABLES) if each["kind"] == b"r"]
    filled = [name for name in tables if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {name})")]
    rows = {name: await _digest(connection, name) for name in filled}
    return State(await _catalog(connection), rows, await connection.fetchval(_SIZE))


async def _emptied(connection: asyncpg.Connection, fresh: State) -> bool:
    """Empty a database, and say whether it is as good as a copy of its template again."""
    if await _catalog(connection) != fresh.catalog or await connection.fetchval(_SIZE) > fresh.size + GROWTH:
        return False
    # No trigger and no foreign key has anything to do with it.
    clearing = ["SET session_replication_role = replica", "SET lock_timeout = '2s'"]
    for name, kind in await connection.fetch(_TOUCHED):
        if kind == b"S":
            clearing.append(
                f"SELECT setval('{name}', seqstart, false) FROM pg_sequence WHERE seqrelid = '{name}'::regclass"
            )
        elif name not in fresh.rows:
            clearing.append(f"DELETE FROM {name}")
    await connection.execute(";".join(clearing))
    return {name: await _digest(connection, name) for name in fresh.rows} == fresh.rows


async def _catalog(connection: asyncpg.Connection) -> frozenset[tuple[Any, ...]]:
    return frozenset(tuple(row) for row in await connection.fetch(_STATE))


async def _digest(connection: asyncpg.Connection, table: str) -> str:
    digest: str = await connection.fetchval(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t")
    return digest
