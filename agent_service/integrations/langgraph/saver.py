"""Checkpoints of LangGraph in the package's database."""

import copy
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.checkpoints.reading import Question
from agent_service.infrastructure.database.checkpoints.store import CheckpointStore
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.values.validation import require_tenant
from agent_service.integrations.langgraph.saver_config import Address, thread_name
from agent_service.integrations.langgraph.saver_encoding import Codec
from agent_service.integrations.langgraph.saver_listing import Listing
from agent_service.integrations.langgraph.saver_loop import SaverLoop
from agent_service.integrations.langgraph.serializers import refuse_pickle

__all__ = ["AgentServiceSaver"]

T = TypeVar("T")
Work = Callable[[CheckpointStore], Coroutine[Any, Any, T]]

_STRATEGIES: Final = ("keep_latest", "delete")


class AgentServiceSaver(BaseCheckpointSaver[str]):
    """A checkpointer for graphs, on PostgreSQL or SQLite. Use one per process, for any number of graphs and threads.

    ::

        async with AgentServiceSaver() as saver:
            graph = builder.compile(checkpointer=saver)
            await graph.ainvoke(state, {"configurable": {"thread_id": "chat 1", "user_id": "ada"}})

    Within ``async with`` it belongs to the running event loop; ``graph.invoke`` works in other threads. Code without an
    event loop uses ``with``: then the saver has a loop of its own, in a thread. A call that waits on the thread of a
    running event loop is refused (BridgeError, also asyncio.InvalidStateError), because it would stop that loop.

    ``put`` and ``put_writes`` return after the commit, which they share with all callers of this process; both may be
    repeated. No lock is held between calls, and a listing holds no connection while its caller works. ``user_id`` in
    ``configurable`` or in the metadata says whose thread it is: ``erase_user`` removes it with all else of that user.

    :param database: None is the one of the settings. It is not closed here.
    :param tenant_id: whose threads these are; another tenant's are never seen.
    :param serde: encodes values; None is LangGraph's own. Nothing is pickled, and nothing pickled is read.
    :param timeout: seconds after which a write gives up.
    :raises ConfigurationError: ``serde`` falls back to pickle.
    :raises SessionValueError: an argument cannot be used; it is named.
    """

    def __init__(
        self,
        database: AsyncEngine | DatabaseManager | None = None,
        *,
        tenant_id: str = "",
        serde: SerializerProtocol | None = None,
        timeout: float = 30.0,
    ) -> None:
        super().__init__(serde=serde)
        refuse_pickle(self.serde)
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 < timeout <= 86_400:
            raise SessionValueError(f"timeout must be seconds above 0, at most a day, got {timeout!r:.80}")
        self.tenant_id = require_tenant(tenant_id)
        # Copies of this saver share it: ``with_allowlist`` makes some.
        self._loop = SaverLoop(database, timeout)

    async def __aenter__(self) -> Self:
        await self._loop.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._loop.close()

    def __enter__(self) -> Self:
        self._loop.open_for_threads()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.close_for_threads()

    def for_tenant(self, tenant_id: str) -> Self:
        """Return this saver for another tenant's threads. It costs nothing to make, and is open as long as this one.

        :raises SessionValueError: ``tenant_id`` cannot name a tenant.
        """
        clone = copy.copy(self)
        clone.tenant_id = require_tenant(tenant_id)
        return clone

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint, as a default the latest of the thread's namespace, in one statement."""
        return await self._loop.call(self._get(config))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return what :meth:`aget_tuple` returns."""
        return self._loop.wait(self._get(config))

    def _get(self, config: RunnableConfig) -> Work[CheckpointTuple | None]:
        question, codec = Question(*Address.of(config)), Codec(self.serde)

        async def get(store: CheckpointStore) -> CheckpointTuple | None:
            found = await store.page(self.tenant_id, question, 1)
            return codec.tuple_of(found[0]) if found else None

        return get

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, the greatest ids first, read page by page.

        :param config: a thread, and if it names them a namespace and a checkpoint; None: all threads of the tenant.
        :param filter: what the metadata have: equal values under these names.
        :param before: a config whose checkpoint comes after them.
        :param limit: most checkpoints that are yielded.
        """
        listing = self._listing(config, filter, before, limit)
        while not listing.over:
            for each in await self._loop.call(listing.next):
                yield each

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield what :meth:`alist` yields."""
        listing = self._listing(config, filter, before, limit)
        while not listing.over:
            yield from self._loop.wait(listing.next)

    def _listing(self, config: RunnableConfig | None, conditions: Any, before: Any, limit: int | None) -> Listing:
        codec = Codec(self.serde)
        return Listing(codec, self.tenant_id, config, conditions=conditions, before=before, limit=limit)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint and the values that are new in it, and return its config after the commit.

        :param config: its thread and namespace; its checkpoint_id is the parent.
        :param new_versions: channels that have a new version; only their values are stored.
        """
        return await self._loop.call(self._put(config, checkpoint, metadata, new_versions))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do what :meth:`aput` does."""
        return self._loop.wait(self._put(config, checkpoint, metadata, new_versions))

    def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Work[RunnableConfig]:
        change = Codec(self.serde).new_checkpoint(config, checkpoint, metadata, new_versions)

        async def put(store: CheckpointStore) -> RunnableConfig:
            await store.write(self.tenant_id, change)
            return Address(change.thread_id, change.namespace, None).config(change.checkpoint_id)

        return put

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote after a checkpoint, and return after the commit.

        Of each task and place the first write stays; errors, interrupts and the like replace what is there.
        """
        await self._loop.call(self._put_writes(config, writes, task_id, task_path))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do what :meth:`aput_writes` does."""
        self._loop.wait(self._put_writes(config, writes, task_id, task_path))

    def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Work[None]:
        change = Codec(self.serde).new_writes(config, writes, task_id, task_path)

        async def put_writes(store: CheckpointStore) -> None:
            if change.writes:
                await store.write(self.tenant_id, change)

        return put_writes

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove a thread with everything of all its namespaces. A thread that is not there is no error."""
        await self._loop.call(self._delete([thread_id]))

    def delete_thread(self, thread_id: str) -> None:
        """Do what :meth:`adelete_thread` does."""
        self._loop.wait(self._delete([thread_id]))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints that were made by these runs, with their writes, thread by thread.

        :raises SessionConflictError: a checkpoint that would stay rebuilds a DeltaChannel from writes of one of them.
        """
        await self._loop.call(self._delete_for_runs(run_ids))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do what :meth:`adelete_for_runs` does."""
        self._loop.wait(self._delete_for_runs(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread: checkpoints and writes. Values of channels are shared, whatever their size.

        :raises SessionConflictError: the target exists.
        """
        await self._loop.call(self._copy(source_thread_id, target_thread_id))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do what :meth:`acopy_thread` does."""
        self._loop.wait(self._copy(source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove old checkpoints of threads, each thread in a transaction of its own.

        :param strategy: ``keep_latest`` keeps the latest checkpoint of each namespace, with the earlier ones that its
            DeltaChannels are rebuilt from; ``delete`` removes the threads.
        """
        await self._loop.call(self._prune(thread_ids, strategy))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do what :meth:`aprune` does."""
        self._loop.wait(self._prune(thread_ids, strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what DeltaChannels are rebuilt from, in one statement for a thousand ancestors."""
        return await self._loop.call(self._histories(config, channels))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what :meth:`aget_delta_channel_history` returns."""
        return self._loop.wait(self._histories(config, channels))

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002 - LangGraph's argument
        """Return a version of a channel that is greater than ``current``, and that no other branch has."""
        try:
            number = 0 if current is None else int(str(current).partition(".")[0])
        except ValueError:
            raise SessionValueError(f"the version of a channel begins with a number, got {current!r:.80}") from None
        return f"{number + 1:032}.{secrets.randbelow(10**16):016}"

    def _delete(self, thread_ids: Sequence[Any]) -> Work[None]:
        names = [thread_name(each) for each in thread_ids]

        async def delete(store: CheckpointStore) -> None:
            await store.remove(self.tenant_id, names)

        return delete

    def _delete_for_runs(self, run_ids: Sequence[str]) -> Work[None]:
        async def delete(store: CheckpointStore) -> None:
            await store.remove_runs(self.tenant_id, run_ids)

        return delete

    def _copy(self, source_thread_id: str, target_thread_id: str) -> Work[None]:
        source, target = thread_name(source_thread_id), thread_name(target_thread_id)

        async def copy_thread(store: CheckpointStore) -> None:
            await store.copy(self.tenant_id, source, target)

        return copy_thread

    def _prune(self, thread_ids: Sequence[str], strategy: str) -> Work[None]:
        if strategy not in _STRATEGIES:
            raise SessionValueError(f"strategy must be one of {', '.join(_STRATEGIES)}, got {strategy!r:.80}")
        if isinstance(thread_ids, str):
            raise SessionValueError(f"thread_ids must be a list, got one text {thread_ids!r:.80}; put it into a list")
        names = [thread_name(each) for each in thread_ids]

        async def prune(store: CheckpointStore) -> None:
            await (store.remove if strategy == "delete" else store.keep_latest)(self.tenant_id, names)

        return prune

    def _histories(self, config: RunnableConfig, channels: Sequence[str]) -> Work[Mapping[str, DeltaChannelHistory]]:
        address, codec, names = Address.of(config), Codec(self.serde), list(dict.fromkeys(channels))

        async def histories(store: CheckpointStore) -> Mapping[str, DeltaChannelHistory]:
            if not names:
                return {}
            found = await store.histories(self.tenant_id, address[:2], address.checkpoint_id, names)
            return {channel: codec.history_of(channel, found[channel]) for channel in names}

        return histories
