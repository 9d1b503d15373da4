"""Connections to the outside: Redis, caches, databases."""

import importlib as _importlib
import typing as _typing

if _typing.TYPE_CHECKING:
    from agent_service.infrastructure import cache, database, outbox, redis  # noqa: F401

_PACKAGES = {"cache", "database", "outbox", "redis"}


def __getattr__(name: str) -> object:
    if name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _importlib.import_module(f"{__name__}.{name}")
