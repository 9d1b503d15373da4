"""Locks by key, for any number of event loops and threads' loops at once."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager

from agent_service.core.forking import renew_after_fork

__all__ = ["KeyLocks"]


class KeyLocks:
    """A lock for each key that is held, handed on in order of arrival. asyncio's own lock belongs to one loop."""

    def __init__(self) -> None:
        self._begin()
        renew_after_fork(self._begin)  # what the parent process holds is not held here

    def _begin(self) -> None:
        self._queues: dict[str, deque[Future[None]]] = {}
        self._lock = threading.Lock()

    @asynccontextmanager
    async def hold(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Hold the locks of all these keys; taken in sorted order, so that no two holders wait for one another."""
        held: list[str] = []
        try:
            for key in sorted(set(keys)):
                await self._acquire(key)
                held.append(key)
            yield
        finally:
            for key in held:
                self._release(key)

    async def _acquire(self, key: str) -> None:
        with self._lock:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return
            turn: Future[None] = Future()
            queue.append(turn)
        try:
            await asyncio.wrap_future(turn)
        except BaseException:
            if not turn.cancel():  # the lock was handed to us in the moment we were cancelled
                self._release(key)
            raise

    def _release(self, key: str) -> None:
        with self._lock:
            queue = self._queues[key]
            while queue:
                turn = queue.popleft()
                if turn.set_running_or_notify_cancel():
                    turn.set_result(None)
                    return
            del self._queues[key]
