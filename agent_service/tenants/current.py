"""The shared state of the request that is being served, for code that is not handed it: tools, agents, callbacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from agent_service.tenants.base import DEFAULT_TTL, Seconds
from agent_service.tenants.shared_state import RedisSharedState

__all__ = ["RedisSharedState", "_current_ss", "current_shared_state", "shared_state_scope"]

current_shared_state: Final[ContextVar[RedisSharedState]] = ContextVar("current_shared_state")
"""Bound per task: a child task sees what was bound when it was created, and no other task sees what it binds.

``get()`` raises LookupError if nothing is bound.
"""

_current_ss: Final = current_shared_state
"""Another name of the same variable, used in the documents."""


@contextmanager
def shared_state_scope(tenant: str, user_id: str, ttl_default: Seconds = DEFAULT_TTL) -> Iterator[RedisSharedState]:
    """Bind a user's shared state inside the ``with`` block, and restore the previous binding when it ends.

    :raises RecordValueError: if the tenant, user_id or TTL cannot be used.
    """
    shared_state = RedisSharedState(tenant, user_id, ttl_default)
    token = current_shared_state.set(shared_state)
    try:
        yield shared_state
    finally:
        current_shared_state.reset(token)
