"""One at a time in this process: Alembic keeps what a revision works on in globals of its modules.

Without it two databases that are migrated at once, by two tasks or two threads with event loops of their own, would run
their revisions on each other's connections.
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
    """Wait for the turn without keeping the event loop, and hold it."""
    loop = asyncio.get_running_loop()
    # Of each loop one task asks for the turn. No thread waits for it: whoever has it needs threads of the same pool.
    async with _turns_of_loops.setdefault(loop, asyncio.Lock()):
        while not _turn.acquire(blocking=False):  # noqa: ASYNC110 - threads have it, of any event loop
            await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            _turn.release()
