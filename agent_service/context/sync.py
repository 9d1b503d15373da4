"""Contexts without ``await``: the names of :mod:`agent_service.context`, for code in threads and for scripts.

::

    from agent_service.context.sync import DatabaseContextStore

    with DatabaseContextStore(db_path="context.db") as store:
        store.set(("column", "ColumnA"), {"desc": "Integer values"})

One registry serves both faces: what :func:`set_context_store` sets here,
:func:`agent_service.context.get_context_store` returns there.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agent_service.context import database, factory, memory, redis, resolver, session
from agent_service.context.adapters.sync import BaseContextAdapter, PandasContextAdapter
from agent_service.context.caching import cache_adapter, cache_backed
from agent_service.context.files import store as files
from agent_service.context.interface import Document, Key
from agent_service.context.resolver import resolve_context_key, set_context_key_resolver
from agent_service.context.shards import manager
from agent_service.context.sync_store import SyncContextStore
from agent_service.core.errors import ContextConfigError, ContextError, ContextKeyError, ContextStoreError
from agent_service.infrastructure.cache.interface import ICache

__all__ = [
    "BaseContextAdapter",
    "CacheBackedContextStore",
    "CacheContextStore",
    "ContextConfigError",
    "ContextError",
    "ContextKeyError",
    "ContextStore",
    "ContextStoreError",
    "DatabaseContextStore",
    "FileContextStore",
    "InMemoryContextStore",
    "PandasContextAdapter",
    "RedisContextStore",
    "SessionContextStore",
    "ShardManager",
    "clear_context",
    "get_context",
    "get_context_store",
    "resolve_context_key",
    "set_context",
    "set_context_key_resolver",
    "set_context_store",
    "update_context",
]

ContextStore = SyncContextStore


class InMemoryContextStore(SyncContextStore):
    """:class:`agent_service.context.InMemoryContextStore`, callable on any thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__(memory.InMemoryContextStore(**options))


class RedisContextStore(SyncContextStore):
    """:class:`agent_service.context.RedisContextStore`, with the same arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(redis.RedisContextStore(*arguments, **options))


class DatabaseContextStore(SyncContextStore):
    """:class:`agent_service.context.DatabaseContextStore`, with the same arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(database.DatabaseContextStore(*arguments, **options))


class FileContextStore(SyncContextStore):
    """:class:`agent_service.context.FileContextStore`, with the same arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(files.FileContextStore(*arguments, **options))


class SessionContextStore(SyncContextStore):
    """:class:`agent_service.context.SessionContextStore`, with the same arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(session.SessionContextStore(*arguments, **options))


class CacheContextStore(SyncContextStore):
    """:class:`agent_service.context.CacheContextStore`; the cache must be used through this face alone."""

    def __init__(self, cache: ICache[Any]) -> None:
        super().__init__(cache_adapter.CacheContextStore(cache))


class CacheBackedContextStore(SyncContextStore):
    """:class:`agent_service.context.CacheBackedContextStore`; ``db`` and ``cache`` may be stores of either face."""

    def __init__(self, db: Any, cache: Any, **options: Any) -> None:
        super().__init__(cache_backed.CacheBackedContextStore(db, cache, **options))


class ShardManager(SyncContextStore):
    """:class:`agent_service.context.ShardManager`; its shards may be stores of either face."""

    def __init__(self, shards: Mapping[str, Any], *, previous: Mapping[str, Any] | None = None) -> None:
        super().__init__(manager.ShardManager(shards, previous=previous))

    def shard_of(self, key: Key) -> str:
        """Return the name of the shard that a key belongs to."""
        name: str = self.store.shard_of(key)
        return name

    def rebalance(
        self, progress: Callable[[manager.RebalanceProgress], None] | None = None
    ) -> manager.RebalanceProgress:
        """Move every key to the shard it belongs to, and return what was done."""
        done: manager.RebalanceProgress = self.run(self.store.rebalance(progress))
        return done


def set_context_store(store: Any) -> None:
    """Make a store of either face the process's own. None: the configuration says."""
    factory.set_context_store(store)


def get_context_store() -> SyncContextStore:
    """Return the process's store in its synchronous face."""
    return factory.get_context_store().sync


def get_context(key_or_state: Key | Mapping[str, Any]) -> Document:
    """Return the context of a key, or of a state; ``{}`` where there is none."""
    return get_context_store().get(resolver.key_of(key_or_state)) or {}


def set_context(key_or_state: Key | Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Store the context of a key, or of a state, in place of any other."""
    get_context_store().set(resolver.key_of(key_or_state), value)


def update_context(
    key_or_state: Key | Mapping[str, Any], patch: Mapping[str, Any], *, drop_none: bool = False
) -> Document:
    """Set top-level entries of the context of a key, or of a state, and return the whole."""
    return get_context_store().update(resolver.key_of(key_or_state), patch, drop_none=drop_none)


def clear_context(key_or_state: Key | Mapping[str, Any]) -> None:
    """Remove the context of a key, or of a state."""
    get_context_store().delete(resolver.key_of(key_or_state))
