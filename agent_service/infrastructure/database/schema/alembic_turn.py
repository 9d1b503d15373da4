"""A lock of the process around Alembic, which keeps the connection of a running revision in module globals.

Without it two databases that are migrated at once, by two tasks or by two event loops in threads, would run their
revisions on each other's connections.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["alembic_turn"]

_POLL: Final = 0.01

_turn: Final = threading.Lock()
_turns_of_loops: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]] = WeakKeyDictionary()


@asynccontextmanager
async def alembic_turn() -> AsyncIterator[None]:
    """Hold the lock; waiting for it does not block the event loop."""
    loop = asyncio.get_running_loop()
    # One task of each loop polls for the lock. No thread waits for it: its holder needs threads of the same pool.
    async with _turns_of_loops.setdefault(loop, asyncio.Lock()):
        while not _turn.acquire(blocking=False):  # noqa: ASYNC110 - threads have it, of any event loop
            await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            _turn.release()
