"""Threads of one owner, for functions that may wait.

The event loop has one pool of threads for everything in the process, looking up host names included: a few functions
there that wait for a slow disk, or for another process, stop all the rest.
"""

import threading
from concurrent.futures import Executor, ThreadPoolExecutor

from agent_service.core.forking import renew_after_fork

__all__ = ["PlainThreads"]


class PlainThreads:
    """A pool that is made when it is first needed, in a forked process anew, and ends with its owner.

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
        """Where functions are to be submitted."""
        pool = self._pool
        if pool is None:
            with self._lock:
                pool = self._pool = self._pool or ThreadPoolExecutor(self._most, thread_name_prefix=self._name)
        return pool

    def close(self) -> None:
        """End the threads when they are done with what was submitted; the next call makes new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
