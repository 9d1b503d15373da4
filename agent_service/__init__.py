"""Async-first caching and durable sessions for agent services.

The names people start with. Each room is imported when one of its names is first used, so that a service that only
caches never pays for the database.
"""

import importlib as _importlib
import typing as _typing

from agent_service.core.errors import (
    AgentServiceError,
    BridgeError,
    BridgeTimeoutError,
    CacheError,
    CacheKeyError,
    CacheSerializationError,
    CacheValueError,
    ConfigurationError,
    ContextConfigError,
    ContextError,
    ContextKeyError,
    ContextStoreError,
    DatabaseError,
    DatabaseUnavailableError,
    LoadTimeoutError,
    RateLimitError,
    RateLimitExceededError,
    RateLimitValueError,
    RecordValueError,
    RedisBusyError,
    RedisCommandError,
    RedisDeniedError,
    RedisOperationError,
    RedisRefusedError,
    RedisUnavailableError,
    RedisUnreplicatedError,
    ReentrantLoadError,
    RuntimeStateError,
    SessionConflictError,
    SessionError,
    SessionNotFoundError,
    SessionValueError,
    StateConflictError,
    StateStoreError,
    TransactionConflictError,
    UndecodableError,
)

if _typing.TYPE_CHECKING:
    from agent_service import cli, context, infrastructure, runtime, state, tenants, testing  # noqa: F401
    from agent_service.core.logging import logger, setup_logging
    from agent_service.core.settings import Settings, get_settings, reset_settings
    from agent_service.core.ttl import NEVER
    from agent_service.infrastructure.cache import (
        ICache,
        cache_invalidate,
        cached,
        close_cache,
        get_cache,
        get_redis_manager,
    )
    from agent_service.infrastructure.database import (
        SessionWriter,
        cleanup_once,
        close_database,
        get_database,
        get_session,
        run_cleanup,
    )
    from agent_service.infrastructure.database.models.session import Session, SessionStatus
    from agent_service.infrastructure.database.repositories import SessionRepository
    from agent_service.infrastructure.outbox import invalidate_in, run_outbox

    __version__: str

__all__ = [
    "NEVER",
    "AgentServiceError",
    "BridgeError",
    "BridgeTimeoutError",
    "CacheError",
    "CacheKeyError",
    "CacheSerializationError",
    "CacheValueError",
    "ConfigurationError",
    "ContextConfigError",
    "ContextError",
    "ContextKeyError",
    "ContextStoreError",
    "DatabaseError",
    "DatabaseUnavailableError",
    "ICache",
    "LoadTimeoutError",
    "RateLimitError",
    "RateLimitExceededError",
    "RateLimitValueError",
    "RecordValueError",
    "RedisBusyError",
    "RedisCommandError",
    "RedisDeniedError",
    "RedisOperationError",
    "RedisRefusedError",
    "RedisUnavailableError",
    "RedisUnreplicatedError",
    "ReentrantLoadError",
    "RuntimeStateError",
    "Session",
    "SessionConflictError",
    "SessionError",
    "SessionNotFoundError",
    "SessionRepository",
    "SessionStatus",
    "SessionValueError",
    "SessionWriter",
    "Settings",
    "StateConflictError",
    "StateStoreError",
    "TransactionConflictError",
    "UndecodableError",
    "cache_invalidate",
    "cached",
    "cleanup_once",
    "close_cache",
    "close_database",
    "get_cache",
    "get_database",
    "get_redis_manager",
    "get_session",
    "get_settings",
    "invalidate_in",
    "logger",
    "reset_settings",
    "run_cleanup",
    "run_outbox",
    "setup_logging",
]

_ROOMS = {
    "logger": "agent_service.core.logging",
    "setup_logging": "agent_service.core.logging",
    "Settings": "agent_service.core.settings",
    "get_settings": "agent_service.core.settings",
    "reset_settings": "agent_service.core.settings",
    "NEVER": "agent_service.core.ttl",
    "ICache": "agent_service.infrastructure.cache",
    "cache_invalidate": "agent_service.infrastructure.cache",
    "cached": "agent_service.infrastructure.cache",
    "close_cache": "agent_service.infrastructure.cache",
    "get_cache": "agent_service.infrastructure.cache",
    "get_redis_manager": "agent_service.infrastructure.cache",
    "SessionWriter": "agent_service.infrastructure.database",
    "cleanup_once": "agent_service.infrastructure.database",
    "close_database": "agent_service.infrastructure.database",
    "get_database": "agent_service.infrastructure.database",
    "get_session": "agent_service.infrastructure.database",
    "run_cleanup": "agent_service.infrastructure.database",
    "Session": "agent_service.infrastructure.database.models.session",
    "SessionStatus": "agent_service.infrastructure.database.models.session",
    "SessionRepository": "agent_service.infrastructure.database.repositories",
    "invalidate_in": "agent_service.infrastructure.outbox",
    "run_outbox": "agent_service.infrastructure.outbox",
}


_PACKAGES = {"cli", "context", "infrastructure", "runtime", "state", "tenants", "testing"}


def __getattr__(name: str) -> object:
    if name in _PACKAGES:
        return _importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        return _importlib.import_module("importlib.metadata").version("agent-service")
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(_importlib.import_module(_ROOMS[name]), name)
    return value
