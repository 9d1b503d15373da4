"""When a subscription ends although its session goes on."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from agent_service.core.bell import Bell
from agent_service.core.errors import SessionValueError

__all__ = ["Ended", "Ending", "Until", "require_until"]

_GRACE: Final = 0.5
"""Seconds that a read has to end by itself once the event is set: cancelling it costs its connection."""


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


class Ended(Exception):  # noqa: N818 - no error: somebody asked for it
    """A read was interrupted because the subscription ends."""


class Ending:
    """Ends what a subscription does when its event is set. Without an event it costs nothing."""

    def __init__(self, until: Until | None) -> None:
        self._until = until
        self._reading: asyncio.Timeout | None = None

    @property
    def due(self) -> bool:
        """Whether the event is set."""
        return self._until is not None and self._until.is_set()

    @asynccontextmanager
    async def watched(self, bell: Bell) -> AsyncIterator[None]:
        """Watch the event while the block runs, and ring the bell when it is set."""
        if self._until is None:
            yield
            return
        watching = asyncio.ensure_future(self._until.wait())

        def end(_watching: "asyncio.Future[object]") -> None:
            bell.ring()
            if self._reading is not None and self._reading.when() is None:
                self._reading.reschedule(asyncio.get_running_loop().time() + _GRACE)

        watching.add_done_callback(end)
        try:
            yield
        finally:
            watching.remove_done_callback(end)
            watching.cancel()
            await asyncio.wait({watching})

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Let the block end by itself, at the latest half a second after the event is set.

        What gives a connection back belongs outside of the block: it is not to be interrupted.

        :raises Ended: it took longer.
        """
        if self._until is None:
            yield
            return
        scope = self._reading = asyncio.timeout(_GRACE if self.due else None)
        try:
            async with scope:
                yield
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise Ended from exc
        finally:
            self._reading = None
