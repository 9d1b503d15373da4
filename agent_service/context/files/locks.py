"""Locks between the processes that write into one folder, and what to do when one of them does not let go.

``flock`` waits without a limit, and the thread that waits can do nothing else meanwhile. So a lock is only ever tried;
a writer that finds it taken tries again later, from the event loop, until the time is up. Within a process writers
of a key queue, so that one of them at most tries.

A lock is held by an open file. A process that dies lets go of it whatever it was doing; one that was stopped does not.
"""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, Generic, TypeVar

from agent_service.context.key_locks import KeyLocks
from agent_service.core.backoff import Backoff
from agent_service.core.calling_thread import run_plain_to_its_end
from agent_service.core.deadline import Deadline
from agent_service.core.errors import ContextStoreError
from agent_service.core.forking import renew_after_fork
from agent_service.core.plain_threads import PlainThreads
from agent_service.core.private_files import make_folder, open_folder

__all__ = ["LOCKS", "FileLocks", "digest"]

T = TypeVar("T")

LOCKS: Final = ".locks"
"""The folder of the lock files, in that of the documents."""

_STRIPES: Final = 64
_PAUSES: Final = Backoff(0.001, 0.05)
_TAKEN: Final = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})


class FileLocks:
    """The locks of one folder: a key has one of 64.

    :param folder: made when a lock is first wanted.
    :param timeout: seconds that a writer waits.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self._folder = folder
        self._timeout = timeout
        self._turns = KeyLocks()

    async def run(self, threads: PlainThreads, texts: Collection[str], work: Callable[[], T]) -> T:
        """Run a function in a thread while no other process runs one for the same keys.

        A cancelled caller waits for the end of what has begun.

        :raises ContextStoreError: a lock was not to be had in time; nothing was done.
        """
        stripes = sorted({f"{digest(text)[0] % _STRIPES:02}" for text in texts})
        deadline, failures = Deadline.after(self._timeout), 0
        attempt = _Attempt(self._folder, stripes, work)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(deadline.left):
                    await stack.enter_async_context(self._turns.hold(stripes))
            except TimeoutError as exc:
                raise self._late(stripes[0], "other calls of this process") from exc
            stack.callback(attempt.give_up)
            while not await run_plain_to_its_end(threads, attempt.step):
                if deadline.over:
                    raise self._late(attempt.wanted, "another process")
                await asyncio.sleep(_PAUSES.pause(failures))
                failures += 1
        return attempt.result

    def _late(self, stripe: str, holder: str) -> ContextStoreError:
        path = self._folder / LOCKS / stripe
        return ContextStoreError(
            f"{path} was locked by {holder} for more than {self._timeout:g} s, so nothing was written: a writer was "
            f"stopped, or its disk does not answer; `fuser {path}` names the processes that have it open, and ending "
            "the one that hangs frees it"
        )


class _Attempt(Generic[T]):
    """One writer's way to its locks, and its work. The locks that it got it keeps between two steps.

    The work is done in the step that gets the last lock, and the thread that does it lets go of the locks: the event
    loop may end meanwhile.
    """

    result: T

    def __init__(self, folder: Path, stripes: list[str], work: Callable[[], T]) -> None:
        self._folder = folder
        self._stripes = stripes
        self._work = work
        self._held: list[int] = []
        self._over = False
        self._stepping = threading.Lock()
        renew_after_fork(self._leave_to_parent)

    @property
    def wanted(self) -> str:
        """The first lock that was not to be had."""
        return self._stripes[min(len(self._held), len(self._stripes) - 1)]

    def step(self) -> bool:
        """Try to get all locks, and do the work if that succeeds; return whether it did."""
        try:
            with self._stepping:
                if self._over or not self._take():
                    return False
                try:
                    self.result = self._work()
                finally:
                    self._over = True
                return True
        finally:
            if self._over:
                self._let_go()

    def give_up(self) -> None:
        """Do nothing any more; let go of the locks, unless the work is under way."""
        self._over = True
        if self._stepping.acquire(blocking=False):
            self._stepping.release()
            self._let_go()

    def _take(self) -> bool:
        make_folder(self._folder)
        with open_folder(self._folder) as folder:
            with suppress(FileExistsError):
                os.mkdir(LOCKS, 0o700, dir_fd=folder)
                os.chmod(LOCKS, 0o700, dir_fd=folder)  # a umask may take from the user too
            with open_folder(LOCKS, inside=folder) as locks:
                while len(self._held) < len(self._stripes):
                    lock = _locked(locks, self._stripes[len(self._held)])
                    if lock is None:
                        return False
                    self._held.append(lock)
        return True

    def _let_go(self) -> None:
        while self._held:
            lock = self._held.pop()
            fcntl.flock(lock, fcntl.LOCK_UN)  # a process that was forked meanwhile may have the file open
            os.close(lock)

    def _leave_to_parent(self) -> None:
        """In a forked process: close what would stay locked if the parent died, without unlocking it."""
        self._over = True
        self._stepping = threading.Lock()
        while self._held:
            os.close(self._held.pop())


def _locked(folder: int, name: str) -> int | None:
    """Open a file and lock it; None where another open file has the lock."""
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600, dir_fd=folder)
    try:
        with suppress(PermissionError):
            os.fchmod(descriptor, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as exc:
        os.close(descriptor)
        if isinstance(exc, OSError) and exc.errno in _TAKEN:
            return None
        raise
    return descriptor


def digest(text: str) -> bytes:
    """Return 32 bytes that tell a key from others."""
    return blake2b(text.encode(), digest_size=32).digest()
