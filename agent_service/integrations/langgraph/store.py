"""LangGraph's long-term memory in PostgreSQL or SQLite."""

import asyncio
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from agent_service.core.errors import ConfigurationError, SessionValueError
from agent_service.core.loop_registry import PerLoop
from agent_service.core.supervision import Supervised
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.items.joined import JoinedItems
from agent_service.infrastructure.database.items.operations import Get, ListNamespaces, Operation, Put, Search, Vectors
from agent_service.infrastructure.database.items.operations import Item as StoredItem
from agent_service.infrastructure.database.items.places import write_namespace
from agent_service.infrastructure.database.items.transactions import ItemTransactions
from agent_service.integrations.langgraph.index import TextIndex, VectorIndex
from agent_service.integrations.langgraph.loops import HomeLoop

__all__ = ["AgentServiceStore"]

_MINUTE: Final = 60.0
_TTL_OPTIONS: Final = TTLConfig.__annotations__.keys()


class AgentServiceStore(BaseStore):
    """LangGraph's store over the tables of this package; every process that opens the database shares it.

    ::

        store = AgentServiceStore(tenant_id="acme", ttl={"default_ttl": 60 * 24 * 30, "omit_expired": True})
        graph = builder.compile(store=store)

    Each call is one transaction: its reads see what was there before its writes, and its writes happen together or not
    at all. Of several writes of one key the last one holds. What many tasks get and put at the same time shares
    transactions. Methods without ``a`` work in threads, and in programs without an event loop; on the thread of a
    running loop they are refused (``BridgeError``), because they would stop it.

    An item that is put again keeps its ``created_at``. Searches without a query return what was updated last first.
    A query looks for its words in the texts of items; with ``index`` it compares vectors instead.

    :param database: a manager of the loop it is used on; None: that of DATABASE_URL, one for each loop.
    :param tenant_id: whose items these are; other tenants' are never seen.
    :param ttl: LangGraph's TTLConfig, in minutes. Without ``omit_expired`` what has expired may still be read until it
        is removed, by the scheduled cleanup or :meth:`sweep_ttl`.
    :param index: LangGraph's IndexConfig: ``dims``, ``embed``, ``fields``. Needs PostgreSQL with pgvector.
    :raises ConfigurationError: an option cannot be used.
    :raises SessionValueError: the tenant cannot be used. So it is for arguments of calls, before anything is sent.
    """

    __slots__ = ("_extension", "_home", "_index", "_items", "_joined", "_sweeping", "embeddings", "ttl_config")

    supports_ttl = True

    def __init__(
        self,
        database: DatabaseManager | None = None,
        *,
        tenant_id: str = "",
        ttl: TTLConfig | None = None,
        index: IndexConfig | None = None,
    ) -> None:
        if database is not None and not isinstance(database, DatabaseManager):
            raise ConfigurationError(f"database must be a DatabaseManager or None, got {type(database).__name__}")
        self.ttl_config = _require_ttl_config(ttl)
        self._items = ItemTransactions(tenant_id, live_only=bool(ttl and ttl.get("omit_expired")))
        self._index = None if index is None else VectorIndex(index)
        self.embeddings = None if self._index is None else self._index.embeddings
        self._extension: str | None = None
        self._home = HomeLoop(bound=database is not None)
        find = get_database if database is None else lambda: database
        self._joined = PerLoop(lambda: JoinedItems(self._items, find), JoinedItems.aclose)
        self._sweeping: asyncio.Task[None] | None = None

    async def setup(self) -> None:
        """Find out whether the database serves this store; the first call that needs it does so otherwise.

        :raises ConfigurationError: ``index`` was given and the database has no pgvector; the message says what to do.
        :raises DatabaseError: the database cannot be reached, or is not migrated.
        """
        await self._home.run(self._setup)

    async def _setup(self) -> None:
        if self._index is not None:
            self._extension = await self._items.find_vectors(self._joined.get().database)
        await self._joined.get().run([ListNamespaces.of(limit=1)])

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do operations in one transaction, and return what each gives, in their order.

        :raises SessionValueError: an operation cannot be used; none was done.
        :raises DatabaseError: the database failed; nothing was written, unless the connection was lost at the end.
        """
        listed = list(ops)
        for op in listed:
            if not isinstance(op, GetOp | PutOp | SearchOp | ListNamespacesOp):
                raise SessionValueError(f"{type(op).__name__} is no operation of a store")
            validate_op_namespace(op)
        return await self._home.run(lambda: self._batch(listed)) if listed else []

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what :meth:`abatch` does, from a thread without a running event loop.

        :raises BridgeError: called on the thread of a running event loop.
        """
        listed = list(ops)
        return self._home.wait(lambda: self.abatch(listed))

    async def _batch(self, ops: Sequence[Op]) -> list[Result]:
        if self._index is not None and self._extension is None:
            await self._setup()
        operations = await self._operations(ops)
        results = await self._joined.get().run(operations, extension=self._extension)
        return [_shown(op, result) for op, result in zip(ops, results, strict=True)]

    async def _operations(self, ops: Sequence[Op]) -> list[Operation]:
        """Check the operations, and then embed what is to be compared: that costs, and may fail."""
        operations: list[Operation] = [_operation(op) for op in ops]
        if self._index is None:
            return operations
        last = {(op.namespace, str(op.key)): number for number, op in enumerate(ops) if isinstance(op, PutOp)}
        puts = sorted(last.values())
        values = [(op.value, op.index) for number in puts if isinstance(op := ops[number], PutOp)]
        for number, vectors in zip(puts, await self._index.vectors_of(values), strict=True):
            operations[number] = _operation(ops[number], vectors=vectors)
        queries = list(dict.fromkeys(op.query for op in ops if isinstance(op, SearchOp) and op.query))
        vectors_of = dict(zip(queries, await asyncio.gather(*map(self._index.vector_of, queries)), strict=True))
        for number, op in enumerate(ops):
            if isinstance(op, SearchOp) and op.query:
                operations[number] = _operation(op, vector=vectors_of[op.query])
        return operations

    async def aclear(self, namespace_prefix: tuple[str, ...]) -> int:
        """Remove every item of a namespace and of those below it, in short transactions; return how many.

        ``()`` removes all items of the tenant.

        :raises SessionValueError: the namespace cannot be used.
        :raises DatabaseError: the database failed; what was removed before stays so.
        """
        prefix = write_namespace(namespace_prefix, "namespace_prefix")
        return await self._home.run(lambda: self._items.remove_under(self._joined.get().database, prefix))

    async def sweep_ttl(self) -> int:
        """Remove the items of this tenant whose time is over; return how many.

        :raises DatabaseError: the database failed; what was removed before stays so.
        """
        return await self._home.run(lambda: self._items.remove_expired(self._joined.get().database))

    async def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> "asyncio.Task[None]":
        """Remove what has expired now and then, until :meth:`stop_ttl_sweeper` or the task is cancelled.

        The scheduled cleanup of the package does that for all tenants, so a service that runs it needs no sweeper.

        :param sweep_interval_minutes: None: that of the TTLConfig, else 5.
        :raises ConfigurationError: the interval cannot be used.
        """
        configured = (self.ttl_config or {}).get("sweep_interval_minutes")
        minutes = (configured or 5) if sweep_interval_minutes is None else sweep_interval_minutes
        _require_minutes("sweep_interval_minutes", minutes, ConfigurationError)
        if self._sweeping is None or self._sweeping.done():
            supervised = Supervised("The sweeper of a store", lambda: self._sweep(minutes * _MINUTE))
            self._sweeping = asyncio.create_task(supervised.run(), name="ttl_sweeper")
        return self._sweeping

    async def _sweep(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self.sweep_ttl()

    async def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - LangGraph's signature
        """Stop what :meth:`start_ttl_sweeper` started; return whether it ended in time.

        :param timeout: seconds to wait; None: as long as it takes.
        """
        if self._sweeping is None:
            return True
        self._sweeping.cancel()
        await asyncio.wait({self._sweeping}, timeout=timeout)
        return self._sweeping.done()

    async def aclose(self) -> None:
        """End the sweeper, and wait for what is under way. The database stays open; it is closed by its owner."""
        await self.stop_ttl_sweeper()
        await self._joined.aclose()

    def close(self) -> None:
        """Close the connections that synchronous calls opened on a loop of the process's own.

        :raises BridgeError: called on the thread of a running event loop.
        """
        self._home.close_own(close_database)

    async def __aenter__(self) -> Self:
        """Set the store up, and start its sweeper if ``ttl`` says an interval."""
        await self.setup()
        if (self.ttl_config or {}).get("sweep_interval_minutes"):
            await self.start_ttl_sweeper()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _operation(op: Op, *, vectors: Vectors = (), vector: Sequence[float] | None = None) -> Operation:
    match op:
        case GetOp():
            return Get.of(op.namespace, str(op.key), refresh=op.refresh_ttl)
        case PutOp():
            texts = None if op.value is None else TextIndex.of(op.value, op.index)
            ttl = None if op.ttl is None else _require_minutes("ttl", op.ttl) * _MINUTE
            return Put.of(op.namespace, str(op.key), op.value, texts=texts, ttl=ttl, vectors=vectors)
        case SearchOp():
            return Search.of(
                op.namespace_prefix,
                filter=op.filter,
                query=op.query,
                vector=vector,
                limit=op.limit,
                offset=op.offset,
                refresh=op.refresh_ttl,
            )
        case _:
            return ListNamespaces.of(
                op.match_conditions or (), max_depth=op.max_depth, limit=op.limit, offset=op.offset
            )


def _shown(op: Op, result: Any) -> Result:
    if isinstance(op, SearchOp):
        return [_item(SearchItem, each, score=each.score) for each in result]
    return None if result is None else _item(Item, result) if isinstance(result, StoredItem) else result


def _item(kind: type[Any], item: StoredItem, **more: Any) -> Any:
    return kind(
        namespace=item.namespace,
        key=item.key,
        value=item.value,
        created_at=item.created_at,
        updated_at=item.updated_at,
        **more,
    )


def _require_ttl_config(ttl: TTLConfig | None) -> TTLConfig | None:
    if ttl is None:
        return None
    unknown = sorted(set(ttl) - _TTL_OPTIONS)
    if unknown:
        raise ConfigurationError(f"ttl has {', '.join(map(repr, unknown))}; it takes {', '.join(sorted(_TTL_OPTIONS))}")
    for name, minutes in (
        ("default_ttl", ttl.get("default_ttl")),
        ("sweep_interval_minutes", ttl.get("sweep_interval_minutes")),
    ):
        if minutes is not None:
            _require_minutes(name, minutes, ConfigurationError)
    return ttl


def _require_minutes(name: str, minutes: Any, error: type[Exception] = SessionValueError) -> float:
    if isinstance(minutes, int | float) and not isinstance(minutes, bool) and 0 < minutes <= sys.float_info.max:
        return float(minutes)
    raise error(f"{name} must be minutes above 0, or None, got {minutes!r:.80}")
