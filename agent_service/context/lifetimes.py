"""How long what is stored lives: the rules that stores share."""

import math

from agent_service.core.errors import CacheValueError, ContextStoreError
from agent_service.core.ttl import NEVER, TTL, resolve_ttl

__all__ = ["refuse_ttl", "resolve_store_ttl"]


def resolve_store_ttl(ttl: TTL | None, default: float, *, name: str = "ttl") -> float:
    """Return seconds, infinity for NEVER.

    :raises ContextStoreError: for what is no time to live, or is not above 0: a store keeps what it is given.
    """
    try:
        seconds = resolve_ttl(ttl, default, name=name)
    except CacheValueError as exc:
        raise ContextStoreError(str(exc)) from exc
    if seconds <= 0:
        raise ContextStoreError(f"{name} must be above 0, got {ttl!r:.80}; use delete() to remove a key")
    return seconds


def refuse_ttl(ttl: TTL | None, reason: str) -> None:
    """Accept only None and NEVER, for a store that cannot expire entries.

    :raises ContextStoreError: saying the reason.
    """
    if ttl is not None and ttl is not NEVER:
        resolve_store_ttl(ttl, math.inf)
        raise ContextStoreError(f"ttl is {ttl!r:.80}, but {reason}; leave it out")
