"""Run a coroutine's plain functions in the thread that waits for the coroutine.

Some objects belong to the thread that made them; a connection of ``sqlite3`` is one. A synchronous call runs its
coroutine on another thread's event loop. The calling thread is idle meanwhile, so it runs the functions that must not
block that loop. A coroutine that no thread waits for uses a thread pool (:mod:`agent_service.core.plain_threads`).
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from agent_service.core.errors import BridgeError
from agent_service.core.plain_threads import PlainThreads

__all__ = ["CallingThread", "calling_thread", "run_plain", "run_plain_to_its_end"]

T = TypeVar("T")

_current: Final[contextvars.ContextVar["CallingThread | None"]] = contextvars.ContextVar("calling_thread", default=None)


class _LeftError(Exception):
    """The thread left before it ran the function."""


class CallingThread:
    """Runs functions, in order of arrival, in the thread that calls :meth:`work_until`."""

    def __init__(self) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._here = True

    def submit(self, function: Callable[[], T]) -> "Future[T]":
        """Queue a function; its future fails with an exception of this module if the thread leaves first."""
        future: Future[T] = Future()
        self._work.put((future, function))
        if not self._here:  # perhaps it left between, and did not see the function
            self._refuse_the_rest()
        return future

    def work_until(self, future: "Future[Any]", seconds: float) -> None:
        """Run queued functions until the future is done or, with nothing queued, ``seconds`` are over."""
        while not future.done():
            try:
                item = self._work.get(timeout=seconds)
            except Empty:
                return
            if item is not None:
                _run(*item)

    def wake(self) -> None:
        """Make :meth:`work_until` check its future."""
        self._work.put(None)

    def leave(self) -> None:
        """Stop running functions."""
        self._here = False
        self._refuse_the_rest()

    def _refuse_the_rest(self) -> None:
        while True:
            try:
                item = self._work.get_nowait()
            except Empty:
                return
            if item is not None and item[0].set_running_or_notify_cancel():
                item[0].set_exception(_LeftError())


@contextmanager
def calling_thread() -> Iterator[CallingThread]:
    """Make this thread the place where plain functions run, for coroutines that are started in the block."""
    thread = CallingThread()
    token = _current.set(thread)
    try:
        yield thread
    finally:
        _current.reset(token)
        thread.leave()


async def run_plain(threads: PlainThreads, function: Callable[..., T], /, *arguments: Any) -> T:
    """Run a function that may block, in the caller's context: in the thread that waits for this coroutine, if one does,
    else in one of ``threads``. A cancelled caller does not wait for it.
    """
    return await _run_somewhere(threads, function, arguments)


async def run_plain_to_its_end(threads: PlainThreads, function: Callable[..., T], /, *arguments: Any) -> T:
    """Do what :func:`run_plain` does, for a function that changes something.

    A function in a thread cannot be stopped, so a cancellation waits for its end: once the caller sees the
    cancellation, nothing changes any more.
    """
    running = asyncio.ensure_future(_run_somewhere(threads, function, arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # looked at, so that asyncio does not report it
        raise


async def _run_somewhere(threads: PlainThreads, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    context = contextvars.copy_context()
    # The function may start coroutines of its own; the thread does not wait for those.
    context.run(_current.set, None)
    call = partial(context.run, _result_of, function, arguments)
    thread = _current.get()
    if thread is not None:
        try:
            return await asyncio.wrap_future(thread.submit(call))
        except _LeftError:
            pass
    return await asyncio.get_running_loop().run_in_executor(threads.pool, call)


def _result_of(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    try:
        return function(*arguments)
    except StopIteration as exc:  # no future can hold StopIteration, so its waiter would wait for ever
        raise RuntimeError("a plain function raised StopIteration") from exc


def _run(future: "Future[Any]", function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as exc:  # noqa: BLE001 - it is raised where the future is awaited
        future.set_exception(exc)
    except BaseException:
        # Ctrl-C and exits are the thread's; an event loop that got them would end.
        future.set_exception(BridgeError("the calling thread was interrupted"))
        raise
    else:
        future.set_result(result)
