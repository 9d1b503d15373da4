"""A thread pool for one owner's blocking functions.

The event loop has one thread pool for the whole process, host name lookups included. A few functions there that wait
for a slow disk or another process would stop everything else.
"""

import threading
from concurrent.futures import Executor, ThreadPoolExecutor

from agent_service.core.forking import renew_after_fork

__all__ = ["PlainThreads"]


class PlainThreads:
    """A pool that is created when first needed, again in a forked process, and ends with its owner.

    :param most: threads; further functions wait their turn.
    :param name: begins the names of the threads.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._begin()
        renew_after_fork(self._begin)

    def _begin(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    @property
    def pool(self) -> Executor:
        """The pool, created when first needed."""
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool = self._pool or ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
        return pool

    def close(self) -> None:
        """End the threads once the submitted functions are done; the next call starts new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
