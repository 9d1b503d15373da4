"""One transaction for a batch of operations: reads see what was there before its writes."""

import asyncio
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.backoff import Backoff
from agent_service.core.errors import TransactionConflictError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.items.operations import (
    Get,
    Item,
    ListNamespaces,
    Operation,
    Put,
    Result,
    Search,
)
from agent_service.infrastructure.database.items.reads import Expiring, find_items, get_items, list_namespaces
from agent_service.infrastructure.database.items.vectors import find_extension
from agent_service.infrastructure.database.items.writes import put_items, refresh_items, remove_expired, remove_under
from agent_service.infrastructure.database.queries.locks import TAKE_WRITE_LOCK
from agent_service.infrastructure.database.transactions.tenants import TenantSession, serve_tenant
from agent_service.infrastructure.database.values.validation import require_tenant

__all__ = ["ItemTransactions"]

_ATTEMPTS: Final = 100
_PAUSES: Final = Backoff(0.005, 0.05)
_REMOVED_AT_ONCE: Final = 500


def _options(db: AsyncSession, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return how the database is told where a transaction begins and ends.

    PostgreSQL does one statement alone as a whole, and reads need no more; so two round trips are spared. Where it is
    told the tenant, that takes a transaction.
    """
    kinds = {_kind(each) for each in operations}
    told = isinstance(db.sync_session, TenantSession) or db.get_bind().dialect.name != "postgresql"
    return {"isolation_level": "AUTOCOMMIT"} if len(kinds) == 1 and "several" not in kinds and not told else {}


def _kind(operation: Operation) -> str:
    if not isinstance(operation, Put):
        return "read"
    return "several" if operation.value is None or operation.vectors else "write"


class ItemTransactions:
    """The items of one tenant; each call is a transaction, or several where it says so.

    :param live_only: leave out of reads what has expired and is not removed yet.
    """

    def __init__(self, tenant_id: str = "", *, live_only: bool = False) -> None:
        self.tenant_id = require_tenant(tenant_id)
        self._live_only = live_only

    async def run(
        self, database: DatabaseManager, operations: Sequence[Operation], *, extension: str | None = None
    ) -> list[Result]:
        """Do operations, all or none, and return what each gives; of a write that is None.

        :param extension: the schema of pgvector, for searches with vectors.
        :raises DatabaseError: the database failed; no write was done.
        """
        for failures in range(_ATTEMPTS - 1):
            try:
                return await self._run(database, operations, extension)
            except TransactionConflictError:  # rolled back as a whole
                await asyncio.sleep(_PAUSES.pause(failures))
        return await self._run(database, operations, extension)

    async def _run(
        self, database: DatabaseManager, operations: Sequence[Operation], extension: str | None
    ) -> list[Result]:
        writes = [each for each in operations if isinstance(each, Put)]
        expiring: Expiring = set()
        async with database.session(read_committed=True) as db:
            serve_tenant(db, self.tenant_id)
            with database_errors("read and write items"):
                if writes and database.embedded:
                    await db.execute(TAKE_WRITE_LOCK)
                connection = await db.connection(execution_options=_options(db, operations))
                results = await connection.run_sync(self._read, operations, expiring, extension)
                if expiring and not writes:
                    # What has been read is not held while this waits for others who write.
                    await db.commit()
                    connection = await db.connection(execution_options=_options(db, operations))
                    if database.embedded:
                        await db.execute(TAKE_WRITE_LOCK)
                if expiring or writes:
                    await connection.run_sync(self._write, writes, expiring)
        return results

    def _read(
        self, connection: Connection, operations: Sequence[Operation], expiring: Expiring, extension: str | None
    ) -> list[Result]:
        results: list[Result] = [None] * len(operations)
        known = dict[str, list[Item]]()
        gets = {number: each for number, each in enumerate(operations) if isinstance(each, Get)}
        options: dict[str, Any] = {"live_only": self._live_only}
        if gets:
            read = get_items(connection, self.tenant_id, list(gets.values()), expiring, **options)
            for number, item in zip(gets, read, strict=True):
                results[number] = item
        for number, each in enumerate(operations):
            if isinstance(each, Search):
                # Tasks that begin alike search alike: of equal searches one is made, and each caller has its own list.
                if (same := repr(each)) in known:
                    results[number] = [replace(item, value=deepcopy(item.value)) for item in known[same]]
                    continue
                found = find_items(connection, self.tenant_id, each, expiring, extension=extension, **options)
                results[number] = known[same] = found
            elif isinstance(each, ListNamespaces):
                results[number] = list_namespaces(connection, self.tenant_id, each, **options)
        return results

    def _write(self, connection: Connection, writes: Iterable[Put], expiring: Expiring) -> None:
        written = {(each.namespace, each.key) for each in writes}
        if left := expiring - written:
            refresh_items(connection, self.tenant_id, left, live_only=self._live_only)
        put_items(connection, self.tenant_id, writes)

    async def find_vectors(self, database: DatabaseManager) -> str:
        """Return the schema of pgvector.

        :raises ConfigurationError: the database cannot compare vectors.
        """
        async with database.session() as db:
            serve_tenant(db, self.tenant_id)
            with database_errors("look for pgvector"):
                connection = await db.connection()
                return await connection.run_sync(find_extension)

    async def remove_expired(self, database: DatabaseManager) -> int:
        """Remove the items whose time is over, in short transactions; return how many.

        :raises DatabaseError: the database failed; what was removed before stays so.
        """
        return await self._remove(database, remove_expired, self.tenant_id)

    async def remove_under(self, database: DatabaseManager, prefix: str) -> int:
        """Remove the items of a namespace and below it, in short transactions; return how many.

        :raises DatabaseError: the database failed; what was removed before stays so.
        """
        return await self._remove(database, remove_under, self.tenant_id, prefix)

    async def _remove(self, database: DatabaseManager, remove: Any, *arguments: Any) -> int:
        total = 0
        while True:
            async with database.session(read_committed=True) as db:
                serve_tenant(db, self.tenant_id)
                with database_errors("remove items"):
                    if database.embedded:
                        await db.execute(TAKE_WRITE_LOCK)
                    connection = await db.connection()
                    removed: int = await connection.run_sync(remove, _REMOVED_AT_ONCE, *arguments)
            total += removed
            if removed < _REMOVED_AT_ONCE:
                return total
