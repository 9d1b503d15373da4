"""Await from threads: run a coroutine on an event loop and wait for its result.

A call costs two thread switches, about 40 microseconds; it never runs the coroutine in the calling thread.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar

from agent_service.core.calling_thread import CallingThread
from agent_service.core.deadline import Deadline
from agent_service.core.errors import BridgeError, BridgeTimeoutError, ConfigurationError
from agent_service.core.forking import renew_after_fork

__all__ = ["SyncBridge"]

T = TypeVar("T")

_GLANCE: Final = 1.0
"""Seconds between two checks that the loop still runs: a closed loop wakes no waiting thread."""
_CLOSED: Final = "the bridge was closed; it takes no more calls"
_JOIN_TIMEOUT: Final = 5.0
"""Seconds that closing waits for the bridge's own loop to end."""


class SyncBridge:
    """Runs coroutines on one event loop and gives their results to threads that wait.

    The coroutine sees the ContextVars of the calling thread. Any number of threads may call at once. A call from a
    thread that runs an event loop raises at once: there it would block that loop, and on the bridge's own loop it
    would wait for itself forever.

    :param loop: where coroutines run, owned by the caller; None: a loop of the bridge's own, in a daemon thread that
        begins with the first call (again in a forked process) and ends with :meth:`close` or the interpreter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._given = loop
        self._own: _LoopThread | None = None
        self._renew_lock()
        renew_after_fork(self._renew_lock)
        self._waiting: dict[Future[Any], asyncio.AbstractEventLoop] = {}
        self._closed = False

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    @property
    def waiting(self) -> int:
        """How many calls wait for their result now."""
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def run(
        self, coro: Coroutine[Any, Any, T], timeout: float | None = 30.0, *, caller: CallingThread | None = None
    ) -> T:
        """Run a coroutine on the loop and return its result, or raise what it raises.

        :param timeout: seconds to wait; the coroutine is cancelled after them. None: wait as long as it takes.
        :param caller: this thread, which runs plain functions for the coroutine while it waits.
        :raises BridgeTimeoutError: the coroutine did not end in time (also a :class:`TimeoutError`).
        :raises BridgeError: called on the thread of a running loop, the loop does not run, the coroutine was
            cancelled, or the bridge was closed, now or while waiting.
        :raises TypeError: ``coro`` is no coroutine.
        :raises ConfigurationError: for a timeout below 0.
        """
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"coro must be a coroutine, not {type(coro).__name__}; call the async function first")
        try:
            _check_timeout(timeout)
            loop = self._usable_loop()
            future = asyncio.run_coroutine_threadsafe(coro, loop)
        except BaseException:
            coro.close()
            raise
        self._waiting[future] = loop
        try:
            if self._closed:  # closed since the check above, perhaps before close() could see this call
                _cancel(future, loop)
            return _result(future, loop, timeout, caller)
        finally:
            del self._waiting[future]
            _cancel(future, loop)

    def _usable_loop(self) -> asyncio.AbstractEventLoop:
        if _runs_a_loop():
            raise BridgeError("a blocking call on the thread of a running event loop would stop it; await it instead")
        if self._closed:
            raise BridgeError(_CLOSED)
        loop = self._given or self._own_loop()
        if not loop.is_running():
            raise BridgeError("the bridge's event loop does not run, so nothing would ever be awaited on it")
        return loop

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        own = self._own
        if own is None or own.pid != os.getpid():
            with self._lock:
                own = self._own
                if self._closed:
                    raise BridgeError(_CLOSED)
                if own is None or own.pid != os.getpid():
                    own = self._own = _LoopThread()
        return own.loop

    def close(self) -> None:
        """Refuse further calls and cancel those that wait; end the bridge's own loop, if it has one.

        Does not wait for a given loop. Calling it again does nothing.
        """
        self._closed = True
        for future, loop in list(self._waiting.items()):
            _cancel(future, loop)
        with self._lock:
            own, self._own = self._own, None
        if own is not None:
            own.close()


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ConfigurationError(f"timeout must be seconds, 0 or more, or None, got {timeout!r:.80}")


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _result(
    future: Future[T], loop: asyncio.AbstractEventLoop, timeout: float | None, caller: CallingThread | None
) -> T:
    deadline = Deadline.after(timeout)
    if caller is not None:
        future.add_done_callback(lambda _: caller.wake())
    try:
        while True:
            patience = min(deadline.left, _GLANCE)
            if caller is not None:
                caller.work_until(future, patience)
                patience = 0
            try:
                return future.result(patience)
            except TimeoutError:
                if future.done():  # it is the coroutine's own, or the result came just now
                    return future.result()
            if loop.is_closed():
                raise BridgeError("the bridge's event loop was closed before the coroutine ended")
            if deadline.over and future.cancel():
                raise BridgeTimeoutError(f"the coroutine did not end within {timeout:g} s and was cancelled")
    except CancelledError:
        raise BridgeError("the coroutine was cancelled before it ended; its loop or the bridge shuts down") from None


def _cancel(future: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
    if not future.done() and not loop.is_closed():
        future.cancel()


class _LoopThread:
    """An event loop that runs in a daemon thread until it is closed."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="agent-service-bridge", daemon=True)
        started = threading.Event()
        self.loop.call_soon(started.set)
        self._thread.start()
        started.wait()
        atexit.register(self.close)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(_end_tasks())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def close(self) -> None:
        atexit.unregister(self.close)
        if self.pid == os.getpid() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(_JOIN_TIMEOUT)


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
