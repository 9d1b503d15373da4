"""What the services of an event loop share, because the settings name one of it: closed by the last that leaves."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from agent_service.core.loop_registry import LoopRegistry

__all__ = ["join", "joined", "leave"]

_users: Final = LoopRegistry[Counter[str]]()


def join(name: str) -> None:
    """Count one more user of what has this name, on the running loop."""
    _users.get(Counter)[name] += 1


def joined(name: str) -> bool:
    """Return whether what has this name has users on the running loop."""
    return _users.get(Counter)[name] > 0


async def leave(name: str, close: Callable[[], Awaitable[object]]) -> None:
    """Count one user less; the last one closes it."""
    users = _users.get(Counter)
    users[name] -= 1
    if users[name] < 1:
        del users[name]
        await close()
