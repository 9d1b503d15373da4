"""Threads of LangGraph's own checkpointers, in the tables that they have on PostgreSQL and in the file of SQLite.

Values of channels are copied as bytes where that is possible. They are never made into objects, so that classes of the
graph's own need not be here, and nothing of theirs is run.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from agent_service.infrastructure.database.foreign import Reading, SourceDatabase, SourceTable
from agent_service.integrations.importing.conversations import Unreadable
from agent_service.integrations.importing.report import ImportReport, Outcome
from agent_service.integrations.importing.run import Job, Options, run_import
from agent_service.integrations.importing.threads import SourceCheckpoint, ThreadTarget

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

__all__ = ["import_langgraph"]


class ThreadReader(Protocol):
    """Reads the threads of one layout of tables."""

    def checkpoints(self, reading: Reading, thread_id: str, place: str) -> AsyncIterator[SourceCheckpoint | Unreadable]:
        """Return the checkpoints of a thread, namespace by namespace, the smallest ids first."""
        ...


async def import_langgraph(
    source: str,
    *,
    schema: str | None = None,
    serde: "SerializerProtocol | None" = None,
    options: Options | None = None,
) -> ImportReport:
    """Bring the threads of LangGraph's PostgreSQL or SQLite checkpointers over: all checkpoints, values and writes.

    What ``AgentServiceSaver`` then gives is what LangGraph's own saver gave. Each thread is one transaction, read back
    and compared before it is committed. What the target has already is compared and left as it is, so a run can be
    repeated: it goes on where one was interrupted, and adds what the source has got since.

    ::

        report = await import_langgraph("postgresql://app:secret@db/agents")

    :param source: URL of the database, as SQLAlchemy or psycopg takes it; for the file of SQLite ``sqlite:///file.db``.
    :param schema: the PostgreSQL schema of the tables; None: as the connection finds them.
    :param serde: the serializer of the source where it is not LangGraph's default, such as an encrypting one; what the
        source keeps without it, such as metadata, is encoded with it in the target. Give the saver the same one. It
        makes values into objects, so their classes must be here.
    :param options: target, tenant and what else all imports can be told.
    :raises ConfigurationError: ``source`` cannot be used, or has no such tables.
    :raises ImportError: LangGraph is not installed.
    :raises ImportStoppedError: a checkpoint cannot be brought over.
    :raises DatabaseError: one of the databases failed; another run goes on from there.
    """
    from agent_service.integrations.importing.langgraph_postgres import PostgresThreads  # noqa: PLC0415 - LangGraph's
    from agent_service.integrations.importing.langgraph_sqlite import SqliteThreads  # noqa: PLC0415
    from agent_service.integrations.importing.langgraph_values import Coding  # noqa: PLC0415

    options, coding = options or Options(), Coding(serde)
    database = SourceDatabase(source)
    try:
        key = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "metadata")
        checkpoints = await database.table("checkpoints", *key, schema=schema)
        reader: ThreadReader
        if database.embedded:
            reader = SqliteThreads(checkpoints, await database.table("writes", *_WRITES), coding)
        else:
            blobs = await database.table("checkpoint_blobs", "thread_id", "channel", "version", "blob", schema=schema)
            writes = await database.table("checkpoint_writes", *_WRITES, schema=schema)
            reader = PostgresThreads(checkpoints, blobs, writes, coding)
        phase = _Threads(checkpoints, reader, ThreadTarget(options, coding.digest))
        return await run_import(Job(database, ("langgraph", schema or ""), [phase]), options)
    finally:
        await database.close()


_WRITES = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type")


class _Threads:
    def __init__(self, checkpoints: SourceTable, reader: ThreadReader, target: ThreadTarget) -> None:
        self._checkpoints = checkpoints
        self._reader = reader
        self._target = target

    async def count(self, reading: Reading) -> int:
        """Return how many threads there are."""
        return await reading.count(self._checkpoints, "thread_id")

    async def keys(self, reading: Reading, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]:
        """Return the next threads."""
        return await reading.keys([(self._checkpoints, ("thread_id",))], after=after, limit=limit)

    async def bring(self, reading: Reading, key: tuple[Any, ...]) -> Outcome:
        """Bring a thread over."""
        (thread_id,) = key
        place = f"thread {thread_id!a:.80}"
        return await self._target.bring(thread_id, place, partial(self._reader.checkpoints, reading, thread_id, place))
