"""Counting the commands that clients send to a Redis."""

import threading
from types import TracebackType
from typing import Self

import redis

__all__ = ["Monitor"]

_LAST = "benchmark-monitor-last"
_CONNECTING = ("HELLO", "AUTH", "SELECT", "CLIENT", "PING", "ECHO")


class Monitor:
    """While it is entered, counts commands sent by clients; not those that scripts run, nor those of connecting."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._count, name="redis-monitor")
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.echo(_LAST)
        self._thread.join(10)
        self._client.close()

    def _count(self) -> None:
        with self._client.monitor() as monitor:
            self._ready.set()
            for each in monitor.listen():
                command = str(each["command"])
                if _LAST in command:
                    return
                if each["client_type"] != "lua" and not command.upper().startswith(_CONNECTING):
                    self.sent += 1
