"""An embedded server as a process uses it: joined, started when nobody has, and left when the process ends.

Two files in the folder are locked, never written, and belong to no crash:

* ``users.lock`` is held shared by every process that uses the server, and by its forked children with it. It is closed,
  never unlocked, because an unlock would reach the children too.
* ``supervisor.lock`` is held by the process that looks after the server (see ``supervisor.py``). Whoever gets it has
  to start one; it is handed on, so no other process can start a second.
"""

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError

from agent_service.core.errors import ConfigurationError
from agent_service.core.forking import renew_after_fork
from agent_service.core.plain_threads import PlainThreads
from agent_service.core.private_files import make_folder, open_folder
from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.embedded import supervisor
from agent_service.infrastructure.redis.embedded.binary import find_server
from agent_service.infrastructure.redis.embedded.place import HOW_TO_GET_ONE

__all__ = ["EmbeddedServer", "embedded_server"]

_SUPERVISED: Final = "supervisor.lock"
_PATIENCE: Final = 15.0
"""Seconds to wait for a server that another process starts or ends."""
_PAUSE: Final = 0.01
_GRACE: Final = 1.0
"""Seconds after the start in which an operation that waited for it is not late yet: it has still to connect."""

_servers: Final[dict[str, "EmbeddedServer"]] = {}
_threads: Final = PlainThreads(1, "agent-service-embedded")


def embedded_server(target: RedisTarget) -> "EmbeddedServer":
    """Return this process's share in the server of a placed target."""
    assert target.folder is not None
    assert target.path is not None
    known = _servers.get(target.folder)
    return known or _servers.setdefault(
        target.folder, EmbeddedServer(target.folder, target.path, keep=not target.temporary)
    )


class EmbeddedServer:
    """One folder's server.

    :param socket: its unix socket.
    :param keep: whether the data stay when the server ends.
    """

    def __init__(self, folder: str, socket: str, *, keep: bool) -> None:
        self.folder = folder
        self._socket = socket
        self._keep = keep
        self._users: int | None = None
        """The descriptor that holds the users' lock; None: not joined."""
        self._renew()
        renew_after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[object] = set()
        self._settled_at = 0.0

    @property
    def joined(self) -> bool:
        """Whether this process, or the one that it was forked from, uses the server."""
        return self._users is not None

    def is_starting(self) -> bool:
        """Return whether this process waits for the server to start, which is no failure of it yet."""
        return bool(self._waiting) or time.monotonic() < self._settled_at

    async def join(self) -> None:
        """Start the server unless it runs, and use it until this process ends.

        :raises redis.exceptions.ConnectionError: when it cannot be started.
        """
        waiting = object()
        self._waiting.add(waiting)
        try:
            await asyncio.get_running_loop().run_in_executor(_threads.pool, self.start)
        finally:
            self._settled_at = time.monotonic() + _GRACE
            self._waiting.discard(waiting)

    async def revive(self) -> bool:
        """Start a server whose supervisor has died; return False when another process looks after it."""
        return await asyncio.get_running_loop().run_in_executor(_threads.pool, self._revive)

    def leave(self) -> None:
        """Use the server no more; it ends when all others have left it. Forked children are others."""
        with self._lock:
            users, self._users = self._users, None
            if users is not None:
                os.close(users)

    def start(self) -> None:
        """:meth:`join` for a thread that may wait."""
        with self._lock:
            if self._users is not None:
                return
            deadline = time.monotonic() + _PATIENCE
            try:
                users = self._hold_users(deadline)
            except (OSError, ConfigurationError) as exc:
                raise RedisConnectionError(self._problem(exc)) from exc
            try:
                self._wait_until_it_runs(deadline)
            except BaseException:
                os.close(users)
                raise
            self._users = users

    def _revive(self) -> bool:
        with self._lock:
            return self._users is not None and self._launch_unless_supervised()

    def _hold_users(self, deadline: float) -> int:
        """Return a descriptor with the users' lock on the file that is in the folder now."""
        path = Path(self.folder, supervisor.USERS)
        while True:
            make_folder(path.parent)
            with suppress(FileNotFoundError), open_folder(path.parent) as folder:
                users = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
                try:
                    fcntl.flock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    if os.path.samestat(os.fstat(users), path.stat()):
                        return users
                except BlockingIOError:  # the server is being ended; what it leaves behind is used again
                    pass
                except BaseException:
                    os.close(users)
                    raise
                os.close(users)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server before has not ended within {_PATIENCE:g} s")
            time.sleep(_PAUSE)

    def _wait_until_it_runs(self, deadline: float) -> None:
        while not (self._launch_unless_supervised() or supervisor.ping(self._socket) == supervisor.PONG):
            if time.monotonic() > deadline:
                raise RedisConnectionError(self._problem(f"it did not answer within {_PATIENCE:g} s"))
            time.sleep(_PAUSE)

    def _launch_unless_supervised(self) -> bool:
        """Start a supervisor and its server, unless there is a supervisor; return whether that was done."""
        try:
            lock = os.open(Path(self.folder, _SUPERVISED), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise RedisConnectionError(self._problem(exc)) from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._launch(lock)
        except BlockingIOError:
            return False
        except OSError as exc:
            raise RedisConnectionError(self._problem(exc)) from exc
        finally:
            os.close(lock)
        return True

    def _launch(self, lock: int) -> None:
        binary = find_server()
        if binary is None:
            raise RedisConnectionError(self._problem(f"there is none; {HOW_TO_GET_ONE}"))
        report, its_report = os.pipe()
        try:
            kept = "keep" if self._keep else "forget"
            command = [sys.executable, "-I", "-S", supervisor.__file__, self.folder, str(binary), kept, str(its_report)]
            try:
                subprocess.run(  # noqa: S603 - this interpreter, and a script of ours
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(lock, its_report),
                    start_new_session=True,
                    check=False,
                )
            finally:
                os.close(its_report)
            said = b""
            # Not until the end of the pipe: a process that is forked by another thread now has its other end too.
            while not said.endswith(supervisor.END) and (piece := os.read(report, 65_536)):
                said += piece
        finally:
            os.close(report)
        problem = said.removesuffix(supervisor.END).decode(errors="replace")
        if problem or not said:
            raise RedisConnectionError(self._problem(problem or "its supervisor has died"))

    def _problem(self, reason: object) -> str:
        if isinstance(reason, OSError) and reason.strerror:
            reason = f"{reason.strerror}; use a folder on this machine's disk that this user can write to"
        return f"the embedded server in {self.folder} cannot be started: {reason}"
