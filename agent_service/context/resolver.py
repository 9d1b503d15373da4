"""Which context belongs to an agent's state: the key resolver, and helpers that take a key or a state."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from agent_service.context.factory import get_context_store
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.core.errors import ContextKeyError
from agent_service.core.store_metrics import translated

__all__ = [
    "DEFAULT_KEY",
    "clear_context",
    "get_context",
    "resolve_context_key",
    "set_context",
    "set_context_key_resolver",
    "update_context",
]

logger = logging.getLogger("agent_service.context")

DEFAULT_KEY: Final = "default"
"""The key of a state that names none. All such states share one context."""

ContextKeyResolver = Callable[[Mapping[str, Any]], str]

_resolver: ContextKeyResolver | None = None
_require_key = False
_warned = False


def set_context_key_resolver(resolver: ContextKeyResolver | None, *, required: bool = False) -> None:
    """Say, at startup, how the key of a context follows from an agent's state.

    ::

        set_context_key_resolver(lambda state: state.get("user_name") or "default")

    :param resolver: given the state, gives the key, to which the store adds its prefix. None: ``state["context_key"]``.
    :param required: refuse a state that names no key, which otherwise shares the context ``"default"`` with all others.
    """
    global _resolver, _require_key, _warned
    if resolver is not None and not callable(resolver):
        raise ContextKeyError(f"resolver must be a function of the state, or None, not {type(resolver).__name__}")
    _resolver, _require_key, _warned = resolver, required, False


def resolve_context_key(state: Mapping[str, Any]) -> str:
    """Return the key of the context that belongs to a state.

    :raises ContextKeyError: when the resolver returns no text, or a key is required and the state names none.
    """
    global _warned
    key = _resolver(state) if _resolver is not None else state.get("context_key") or DEFAULT_KEY
    if not isinstance(key, str):
        raise ContextKeyError(f"the context key must be text, and is a {type(key).__name__}; correct the resolver")
    if key == DEFAULT_KEY:
        if _require_key:
            raise ContextKeyError("the state names no context key; put one into the input state, or what it is made of")
        if not _warned:
            _warned = True
            logger.warning("A state names no context key: all such states share the context %r", DEFAULT_KEY)
    return key


def key_of(key_or_state: Key | Mapping[str, Any]) -> Key:
    """Return a key as it is, and the key of a state."""
    return resolve_context_key(key_or_state) if isinstance(key_or_state, Mapping) else key_or_state


async def get_context(key_or_state: Key | Mapping[str, Any]) -> Document:
    """Return the context of a key, or of a state; ``{}`` where there is none."""
    key = key_of(key_or_state)
    with _errors("read a context") as store:
        return await store.get(key) or {}


async def set_context(key_or_state: Key | Mapping[str, Any], value: Mapping[str, Any]) -> None:
    """Store the context of a key, or of a state, in place of any other."""
    key = key_of(key_or_state)
    with _errors("write a context") as store:
        await store.set(key, value)


async def update_context(
    key_or_state: Key | Mapping[str, Any], patch: Mapping[str, Any], *, drop_none: bool = False
) -> Document:
    """Set top-level entries of the context of a key, or of a state, and return the whole.

    :param drop_none: ignore entries that are None, as tools do whose arguments a model left out.
    """
    key = key_of(key_or_state)
    with _errors("update a context") as store:
        return await store.update(key, patch, drop_none=drop_none)


async def clear_context(key_or_state: Key | Mapping[str, Any]) -> None:
    """Remove the context of a key, or of a state."""
    key = key_of(key_or_state)
    with _errors("delete a context") as store:
        await store.delete(key)


@contextmanager
def _errors(action: str) -> Iterator[ContextStore]:
    """Yield the process's store; exceptions of a store that others wrote are translated and name it."""
    store = get_context_store()
    with translated(type(store).__name__, action):
        yield store
