"""Checkpoints in a database: written in groups, everything else in short transactions of its own."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.backoff import Backoff
from agent_service.core.errors import SessionValueError, TransactionConflictError
from agent_service.infrastructure.database.checkpoints.ancestry import History, find_parent, read_histories
from agent_service.infrastructure.database.checkpoints.changes import Change, require_thread_id
from agent_service.infrastructure.database.checkpoints.committing import CheckpointWriter
from agent_service.infrastructure.database.checkpoints.pruning import keep_latest, remove_runs, threads_of_runs
from agent_service.infrastructure.database.checkpoints.reading import Question, StoredCheckpoint, read_page
from agent_service.infrastructure.database.checkpoints.threads import copy_thread, remove_threads
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.naming.engines import naming_of
from agent_service.infrastructure.database.sqlite.cancelled import keep_clean
from agent_service.infrastructure.database.transactions.isolation import LEVEL
from agent_service.infrastructure.database.transactions.own_sessions import require_engine
from agent_service.infrastructure.database.transactions.tenants import says_tenant, tenant_engine
from agent_service.infrastructure.database.values.validation import require_text

__all__ = ["CheckpointStore"]

T = TypeVar("T")

_ATTEMPTS: Final = 10
_PAUSES: Final = Backoff(0.01, 0.5)


class CheckpointStore:
    """The checkpoints of all tenants in one database. Make one with :meth:`open`, on the event loop that uses it."""

    def __init__(self, engine: AsyncEngine, *, timeout: float) -> None:
        # A single statement needs no BEGIN, unless that is where the tenant is said.
        self._begins = engine.dialect.name == "postgresql" and says_tenant(engine)
        if engine.dialect.name == "postgresql":
            self._reading = engine.execution_options(isolation_level=LEVEL if self._begins else "AUTOCOMMIT")
            self._changing = engine.execution_options(isolation_level=LEVEL)
        else:
            keep_clean(engine.sync_engine)
            self._reading = self._changing = engine
        for each in (self._reading, self._changing):
            naming_of(each.sync_engine)
        self._writer = CheckpointWriter(engine, timeout=timeout)

    @classmethod
    async def open(cls, database: AsyncEngine | DatabaseManager | None, *, timeout: float = 30.0) -> "CheckpointStore":  # noqa: ASYNC109 - of each write
        """Return a store that works until :meth:`close`; it does not close the engine.

        :param database: None is the one of the settings.
        :param timeout: seconds after which a :meth:`write` gives up.
        :raises ConfigurationError: DATABASE_URL cannot be used.
        :raises SessionValueError: an argument cannot be used.
        """
        given = get_database() if database is None else database
        if isinstance(given, DatabaseManager):
            await given.prepare()
            given = given.engine
        require_engine(given)
        return cls(given, timeout=timeout)

    async def close(self) -> None:
        """Wait until what is being written is committed."""
        await self._writer.close()

    async def write(self, tenant_id: str, change: Change) -> None:
        """Write a checkpoint or writes and return after the commit: see :meth:`CheckpointWriter.write`."""
        await self._writer.write(tenant_id, change)

    async def page(self, tenant_id: str, question: Question, limit: int) -> list[StoredCheckpoint]:
        """Return the checkpoints with the greatest ids that are asked for, the greatest first.

        :raises DatabaseError: the database failed, or is not migrated.
        """
        return await self._read(tenant_id, lambda connection: read_page(connection, tenant_id, question, limit))

    async def histories(
        self, tenant_id: str, place: tuple[str, str], checkpoint_id: str | None, channels: Collection[str]
    ) -> dict[str, History]:
        """Return what the values of channels at a checkpoint are rebuilt from: see :class:`History`.

        :param place: the thread's id and the namespace.
        :param checkpoint_id: None: the latest.
        """

        def read(connection: Connection) -> dict[str, History]:
            found = find_parent(connection, tenant_id, place, checkpoint_id)
            if found is None:
                return {channel: History() for channel in channels}
            return read_histories(connection, found[0], found[1], channels)

        return await self._read(tenant_id, read)

    async def remove(self, tenant_id: str, thread_ids: Sequence[str]) -> int:
        """Remove threads with all that belongs to them, all or none; return how many there were."""
        named = _threads(thread_ids)
        return await self._change(tenant_id, "remove threads", remove_threads, named) if named else 0

    async def remove_runs(self, tenant_id: str, run_ids: Sequence[str]) -> int:
        """Remove the checkpoints that were made by these runs, thread by thread; return how many there were.

        :raises SessionConflictError: a checkpoint that would stay is rebuilt from writes of one of the runs.
        """
        runs = _texts(run_ids, "run_ids")
        if not runs:
            return 0
        action, removed = "remove checkpoints of runs", 0
        for thread_id in await self._change(tenant_id, action, threads_of_runs, runs):
            removed += await self._change(tenant_id, action, remove_runs, thread_id, runs)
        return removed

    async def copy(self, tenant_id: str, source_id: str, target_id: str) -> bool:
        """Copy a thread under another id; values of channels are not copied, but shared.

        :return: False: there is no such thread.
        :raises SessionConflictError: the other thread exists.
        """
        source, target = require_thread_id(source_id), require_thread_id(target_id)
        return await self._change(tenant_id, "copy a thread", copy_thread, source, target)

    async def keep_latest(self, tenant_id: str, thread_ids: Sequence[str]) -> int:
        """Remove all checkpoints of threads but the latest of each namespace, and what that one is rebuilt from.

        Each thread in a transaction of its own, during which whoever writes to it waits.

        :return: how many checkpoints were removed.
        """
        removed = 0
        for thread_id in _threads(thread_ids):
            removed += await self._change(tenant_id, "prune a thread", keep_latest, thread_id)
        return removed

    async def _read(self, tenant_id: str, read: Callable[[Connection], T]) -> T:
        with database_errors("read checkpoints"):
            engine = tenant_engine(self._reading, tenant_id)
            async with engine.begin() if self._begins else engine.connect() as connection:
                return await connection.run_sync(read)

    async def _change(self, tenant_id: str, action: str, change: Callable[..., T], *arguments: Any) -> T:
        """Call ``change`` in a transaction, again if it was rolled back because of another one."""
        for failures in range(_ATTEMPTS - 1):
            try:
                return await self._transact(tenant_id, action, change, *arguments)
            except TransactionConflictError:
                await asyncio.sleep(_PAUSES.pause(failures))
        return await self._transact(tenant_id, action, change, *arguments)

    async def _transact(self, tenant_id: str, action: str, change: Callable[..., T], *arguments: Any) -> T:
        with database_errors(action):
            async with tenant_engine(self._changing, tenant_id).begin() as connection:
                return await connection.run_sync(change, tenant_id, *arguments)


def _threads(thread_ids: Sequence[str]) -> list[str]:
    for each in _texts(thread_ids, "thread_ids"):
        require_thread_id(each)
    return sorted(set(thread_ids))


def _texts(given: Sequence[str], name: str) -> list[str]:
    if isinstance(given, str | bytes):
        raise SessionValueError(f"{name} must be a list of texts, got one text {given!r:.80}; put it into a list")
    return sorted({require_text(str(each), name) for each in given})
