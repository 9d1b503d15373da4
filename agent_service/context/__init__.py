"""Context: a mapping from any hashable key to a dictionary, on the backend of your choice."""

from agent_service.context.adapters import BaseContextAdapter, PandasContextAdapter
from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.factory import get_context_store, set_context_store
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.outside.repository import (
    DbRepository,
    SyncDbRepository,
    VersionedDbRepository,
    adapt_repository,
)
from agent_service.context.redis import RedisContextConfig, RedisContextStore
from agent_service.context.resolver import (
    clear_context,
    get_context,
    resolve_context_key,
    set_context,
    set_context_key_resolver,
    update_context,
)
from agent_service.context.session import SessionContextStore
from agent_service.context.shards.manager import RebalanceProgress, ShardManager
from agent_service.context.sync_store import SyncContextStore
from agent_service.core.errors import ContextConfigError, ContextError, ContextKeyError, ContextStoreError
from agent_service.infrastructure.database.contexts.repository import SqlContextRepository

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
    "DbRepository",
    "FileContextStore",
    "InMemoryContextStore",
    "PandasContextAdapter",
    "RebalanceProgress",
    "RedisContextConfig",
    "RedisContextStore",
    "SessionContextStore",
    "ShardManager",
    "SqlContextRepository",
    "SyncContextStore",
    "SyncDbRepository",
    "VersionedDbRepository",
    "adapt_repository",
    "clear_context",
    "get_context",
    "get_context_store",
    "resolve_context_key",
    "set_context",
    "set_context_key_resolver",
    "set_context_store",
    "update_context",
]
