"""When a subscription ends although its session goes on."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from agent_service.core.errors import SessionValueError

__all__ = ["Ending", "Until", "require_until"]


class Until(Protocol):
    """What ends a subscription: an :class:`asyncio.Event`, or what has its ``is_set`` and ``wait``."""

    def is_set(self) -> bool:
        """Whether the subscription is over."""
        ...

    async def wait(self) -> object:
        """Return once it is."""
        ...


def require_until(value: Any) -> Until | None:
    """Return an event, or None for a subscription that only its session ends."""
    if value is None or _is_event(value):
        checked: Until | None = value
        return checked
    raise SessionValueError(f"until must be an asyncio.Event or None, not {type(value).__name__}: {value!r:.80}")


def _is_event(value: Any) -> bool:
    # threading.Event has both methods too, and its wait() would block the event loop.
    is_set, wait = getattr(value, "is_set", None), getattr(value, "wait", None)
    return callable(is_set) and inspect.iscoroutinefunction(wait) and not isinstance(value, type)


class Ending:
    """Ends what a subscription does when its event is set. Without an event it costs nothing."""

    def __init__(self, until: Until | None) -> None:
        self._until = until
        self._scope: asyncio.Timeout | None = None

    @property
    def due(self) -> bool:
        """Whether the event is set."""
        return self._until is not None and self._until.is_set()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch the event while the block runs."""
        if self._until is None:
            yield
            return
        watching = asyncio.ensure_future(self._until.wait())
        watching.add_done_callback(self._interrupt)
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    @asynccontextmanager
    async def interrupting(self) -> AsyncIterator[None]:
        """Cancel the block when the event is set; what follows asks :attr:`due`."""
        if self._until is None:
            yield
            return
        try:
            async with asyncio.timeout(0 if self.due else None) as self._scope:
                yield
        except TimeoutError:
            if not self._scope.expired():
                raise
        finally:
            self._scope = None

    def _interrupt(self, watching: "asyncio.Future[object]") -> None:
        scope = self._scope
        if scope is not None and scope.when() is None and not watching.cancelled():
            scope.reschedule(0)
