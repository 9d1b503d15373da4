"""Synchronous calls are refused where they would stop an event loop."""

import asyncio

from agent_service.core.errors import BridgeError

__all__ = ["LoopBlockedError", "require_no_loop"]


class LoopBlockedError(BridgeError, asyncio.InvalidStateError):
    """A call that waits was made on the thread of a running event loop, which it would stop."""


def require_no_loop() -> None:
    """Refuse to wait on the thread of a running event loop.

    :raises LoopBlockedError: this is such a thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise LoopBlockedError(
        "a call that waits was made on the thread of a running event loop, which it would stop; await the method that "
        "begins with a (graph.ainvoke, aget), or call in a thread: await asyncio.to_thread(graph.invoke, ...)"
    )
