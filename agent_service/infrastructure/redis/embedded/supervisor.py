"""The process that owns an embedded server. Run as a script, with nothing but the standard library.

It ends the server when no user is left. Every user holds a shared lock on one file. The supervisor waits for the
exclusive lock on it, which the kernel grants when the last user has ended, however it ended. While the supervisor
lives it holds another lock, by which users know that the server is looked after. A server that dies is started again
while there are users. Where the kernel can do it (Linux), the server ends when its supervisor is killed.

Arguments: folder, binary, "keep" or "forget", and the descriptor to report to: what prevented the start, if anything
did, and the end mark. The descriptor of the supervisor's lock is inherited.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress

SOCKET = "redis.sock"
USERS = "users.lock"
START_SECONDS = 10.0
END_SECONDS = 3.0
LONGEST_PAUSE = 30.0
PR_SET_PDEATHSIG = 1
KEPT_LINES = 20
PONG = b"+PONG"
END = b"\0"


class Supervisor:
    """One server, while it has users."""

    def __init__(self, folder: str, binary: str, users: int, *, keep: bool) -> None:
        self._folder = folder
        self._users = users
        self._keep = keep
        persistence = ["--appendonly", "yes"] if keep else ["--appendonly", "no"]
        self._command = [
            *(binary, "--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700"),
            *("--save", "", "--daemonize", "no", "--logfile", "", *persistence),
        ]
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._over = False
        self._lock = threading.Lock()
        self._server: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None

    def start(self) -> str | None:
        """Start the server; return what prevented it."""
        try:
            self._spawn()
        except OSError as exc:
            return str(exc)
        deadline = time.monotonic() + START_SECONDS
        assert self._server is not None
        while (reply := ping(SOCKET)) != PONG:
            late = time.monotonic() > deadline
            if self._server.poll() is not None or (late and not reply):
                self.end()
                assert self._listener is not None
                self._listener.join(END_SECONDS)  # the server's last words may not have been read yet
                return " / ".join(list(self._said)) or f"it did not answer within {START_SECONDS:g} s"
            if late:  # it loads much data, and tells everybody so
                break
            time.sleep(0.002)
        return None

    def run(self) -> None:
        """Keep the server running until the last user has gone."""
        threading.Thread(target=self._end_with_the_last_user, daemon=True).start()
        pause = 0.05
        while True:
            assert self._server is not None
            began = time.monotonic()
            self._server.wait()
            if self._over:
                break
            pause = 0.05 if time.monotonic() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            time.sleep(pause)
            try:
                self._spawn()
            except OSError:  # for example no memory for another process; the server is tried again after the pause
                continue
        # The lock of the users is still held: nobody joins before all of it is gone.
        if not self._keep:
            shutil.rmtree(self._folder, ignore_errors=True)

    def end(self) -> None:
        """End the server."""
        with self._lock:
            self._over = True
            server = self._server
        if server is None:
            return
        server.terminate()
        try:
            server.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def _spawn(self) -> None:
        with self._lock:
            if self._over:
                return
            self._server = subprocess.Popen(  # noqa: S603 - the server that find_server() chose
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                preexec_fn=_end_with_the_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no lock is taken there
            )
        self._listener = threading.Thread(target=self._listen, args=(self._server,), daemon=True)
        self._listener.start()

    def _listen(self, server: "subprocess.Popen[str]") -> None:
        assert server.stdout is not None
        self._said.extend(line.strip() for line in server.stdout)

    def _end_with_the_last_user(self) -> None:
        fcntl.flock(self._users, fcntl.LOCK_EX)
        self.end()


def ping(path: str) -> bytes:
    """Return what a server replies to PING at a socket; nothing without a server."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(path)
            connection.sendall(b"PING\r\n")
            return connection.recv(len(PONG))
        except OSError:
            return b""


def end_orphan() -> None:
    """End a server whose supervisor was killed where the kernel does not do it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(END_SECONDS)
        try:
            connection.connect(SOCKET)
            connection.sendall(b"SHUTDOWN\r\n")
            connection.recv(1)  # the end of the connection, or why the server stays
        except OSError:
            return


def _end_with_the_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main(folder: str, binary: str, kept: str, report: int) -> None:
    """Leave the process that started this one, start the server, and stay while it has users."""
    if os.fork():
        os._exit(0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):  # users decide when it ends
        signal.signal(number, signal.SIG_IGN)
    try:
        os.chdir(folder)
        users = os.open(USERS, os.O_RDWR)  # Before the report: from then on the folder may be removed.
        end_orphan()
        supervisor = Supervisor(folder, binary, users, keep=kept == "keep")
        problem = supervisor.start()
    except Exception as exc:  # noqa: BLE001 - whatever it is, the user that waits must learn it
        problem = f"{type(exc).__name__}: {exc}"
    with suppress(BrokenPipeError):  # who waited for it has died; if nobody else uses the server, it ends below
        os.write(report, (problem or "").encode() + END)
    os.close(report)
    if problem is None:
        supervisor.run()
    elif kept != "keep":
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
