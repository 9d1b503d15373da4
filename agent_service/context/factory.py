"""The process's context store: the one that was set, else the one that the configuration names."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.config import ContextConfig, load_context_config
from agent_service.context.database import DatabaseContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.outside_store import as_store
from agent_service.context.redis import RedisContextConfig, RedisContextStore
from agent_service.core.errors import ConfigurationError, ContextConfigError, ContextStoreError
from agent_service.core.forking import renew_after_fork
from agent_service.core.settings import get_settings
from agent_service.infrastructure.database.connection import get_session

__all__ = ["get_context_store", "make_context_store", "set_context_store"]

logger = logging.getLogger("agent_service.context")

_store: ContextStore | None = None
_lock = threading.Lock()


def set_context_store(store: Any) -> None:
    """Make a store the process's own, at startup. None: the next :func:`get_context_store` reads the configuration.

    The store that was there is not closed.

    :param store: of this package, or any object with ``get``, ``set`` and ``delete``; see
        :class:`~agent_service.context.outside.calls.OutsideCalls`.
    :raises ConfigurationError: for what is no store.
    """
    global _store
    try:
        adapted = None if store is None else as_store(store)
    except ContextStoreError as exc:
        raise ConfigurationError(str(exc)) from exc
    with _lock:
        _store = adapted


def get_context_store() -> ContextStore:
    """Return the process's store, the same for every task and thread.

    Where none was set, it is the one that the file of DYNA_CONTEXT_CONFIG_PATH names, and without it one in memory.

    :raises ContextConfigError: when the file cannot be used.
    """
    global _store
    with _lock:
        if _store is None:
            _store = _configured()
        return _store


def _configured() -> ContextStore:
    path = get_settings().dyna_context_config_path
    if path is None:
        return InMemoryContextStore()
    if not path.exists():
        logger.warning("DYNA_CONTEXT_CONFIG_PATH names %s, which is not there: contexts are kept in memory", path)
        return InMemoryContextStore()
    try:
        return make_context_store(load_context_config(path))
    except ContextConfigError:
        raise
    except ConfigurationError as exc:
        raise ContextConfigError(f"{path}: {exc}") from exc


def make_context_store(config: ContextConfig) -> ContextStore:
    """Make the store that a configuration describes; nothing is connected yet.

    :raises ConfigurationError: when a URL cannot be used.
    """
    match config.backend:
        case "memory":
            return InMemoryContextStore()
        case "redis":
            return _redis(config)
        case "database":
            return _database(config)
        case "cache_backed":
            ttl = get_settings().context_cache_ttl
            return CacheBackedContextStore(db=_database(config), cache=_redis(config), ttl=ttl)


def _redis(config: ContextConfig) -> ContextStore:
    if config.redis is not None:
        url, prefix = config.redis.url.get_secret_value(), config.redis.prefix
        with _key("context.redis.prefix"):
            RedisContextStore(prefix=prefix)  # the Redis of REDIS_URL, of which only the prefix is looked at
        with _key("context.redis.url"):
            return RedisContextStore(RedisContextConfig(url, prefix))
    if get_settings().redis_url is not None:
        return RedisContextStore()
    raise ConfigurationError("context.redis.url is missing, and REDIS_URL is not set; give one of them")


def _database(config: ContextConfig) -> ContextStore:
    if config.database is None:
        return DatabaseContextStore(session_factory=get_session)
    with _key("context.database.url"):
        return DatabaseContextStore(url=config.database.url.get_secret_value())


@contextmanager
def _key(name: str) -> Iterator[None]:
    """Name the key of the file in what its value is refused with, in place of the setting of that kind."""
    try:
        yield
    except ConfigurationError as exc:
        message = str(exc)
        for setting in ("REDIS_URL", "DATABASE_URL"):
            message = message.replace(setting, name)
        raise ConfigurationError(message if message.startswith(name) else f"{name}: {message}") from exc


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


renew_after_fork(_renew_lock)
