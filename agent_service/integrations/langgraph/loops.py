"""On which event loop an object of LangGraph works, which calls it from tasks and from threads.

Connections belong to one loop. A synchronous call runs there and is waited for; on the thread of a running loop it is
refused, because it would wait for itself. Where no loop is known, or it does not run, it is a loop of the process's
own, in a thread.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from agent_service.core.bridge import SyncBridge
from agent_service.core.errors import BridgeError
from agent_service.integrations.langgraph.blocked import require_no_loop

__all__ = ["HomeLoop"]

T = TypeVar("T")

_OWN: Final = SyncBridge()
"""Where synchronous calls run that have no other loop: one for all such objects of the process."""


class HomeLoop:
    """The loop that something is used on.

    :param bound: whether it can be used on that loop alone; else each loop has connections of its own, and synchronous
        calls prefer the first one.
    """

    def __init__(self, *, bound: bool) -> None:
        self._bound = bound
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bridge: SyncBridge | None = None
        self._used_own = False
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            return

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do some work on the loop: this one, unless it is bound to another.

        :raises BridgeError: it is bound to a loop that does not run.
        """
        here = asyncio.get_running_loop()
        if self._loop is None or (not self._bound and self._loop.is_closed()):
            self._loop, self._bridge = here, None
        if not self._bound or self._loop is here:
            return await work()
        if not self._loop.is_running():
            raise BridgeError(
                "the database that was given belongs to an event loop that does not run any more; leave database out, "
                "so that each loop has connections of its own, or make both on this loop"
            )
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work(), self._loop))

    def wait(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do some work on the loop, and wait for it in this thread.

        :raises LoopBlockedError: this is the thread of a running loop.
        :raises BridgeError: the loop does not run.
        """
        require_no_loop()
        loop = self._loop
        if loop is None or (not self._bound and not loop.is_running()):
            self._used_own = True
            return _OWN.run(self.run(work), None)
        if self._bridge is None:
            self._bridge = SyncBridge(loop)
        return self._bridge.run(self.run(work), None)

    def close_own(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do some work on the process's own loop, if synchronous calls used it; other loops are their owners'.

        :raises BridgeError: this is the thread of a running loop.
        """
        if self._used_own:
            _OWN.run(work(), None)
