"""A real, private Redis for tests, and the faults that it can have."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from agent_service.core.errors import ConfigurationError
from agent_service.core.urls.redis import EMBEDDED_SOCKET, MAX_SOCKET_PATH
from agent_service.infrastructure.redis.embedded import HOW_TO_GET_ONE, find_server
from agent_service.infrastructure.redis.embedded.server import EmbeddedServer
from agent_service.testing.kit.proxy import RedisProxy

__all__ = ["ServiceRedis"]

_AGING: Final = Path(__file__).with_name("aging.lua").read_text(encoding="utf-8")
_SERVER: Final = "server"
_PROXY: Final = "proxy.sock"
_SECONDS: Final = 10.0


class ServiceRedis:
    """A private server of the test run, behind a proxy; the tests of a process share it, and each finds it empty.

    A fault lasts for a ``with`` block, and hits all that is connected through :attr:`url`.

    :raises ConfigurationError: where there is no server to start.
    """

    def __init__(self) -> None:
        if find_server() is None:
            raise ConfigurationError(f"there is no Redis to start; {HOW_TO_GET_ONE}")
        folder = tempfile.mkdtemp(prefix="agent-service-")
        if len(os.fsencode(f"{folder}/{_SERVER}/{EMBEDDED_SOCKET}")) > MAX_SOCKET_PATH:
            Path(folder).rmdir()
            folder = tempfile.mkdtemp(prefix="agent-service-", dir="/tmp")
        self._folder = folder
        self._socket = f"{folder}/{_SERVER}/{EMBEDDED_SOCKET}"
        self._server = EmbeddedServer(f"{folder}/{_SERVER}", self._socket, keep=False)
        self._server.start()
        self._proxy = RedisProxy(f"{folder}/{_PROXY}", self._socket)

    @property
    def url(self) -> str:
        """What REDIS_URL is set to."""
        return f"unix://{self._proxy.path}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._proxy.connections

    def empty(self) -> None:
        """Delete all keys, and end every fault."""
        self._proxy.delay(0)
        self._proxy.listen()
        self.command("CONFIG", "SET", "maxmemory", "0")
        self.command("FLUSHALL")

    @contextmanager
    def down(self) -> Iterator[Self]:
        """Cut all connections and refuse new ones; the data stay."""
        self._proxy.refuse()
        try:
            yield self
        finally:
            self._proxy.listen()

    @contextmanager
    def slow(self, seconds: float) -> Iterator[Self]:
        """Delay every reply by ``seconds``; above REDIS_TIMEOUT it does not come in time."""
        self._proxy.delay(seconds)
        try:
            yield self
        finally:
            self._proxy.delay(0)

    @contextmanager
    def refusing(self) -> Iterator[Self]:
        """Have the server refuse all that needs memory (OOM), as one that is full does."""
        self.command("CONFIG", "SET", "maxmemory", "1")
        try:
            yield self
        finally:
            self.command("CONFIG", "SET", "maxmemory", "0")

    def keys(self) -> list[str]:
        """Return all keys, sorted."""
        return sorted(self.command("EVAL", "return table.concat(redis.call('KEYS', '*'), '\\n')", "0").splitlines())

    def keys_without_ttl(self) -> list[str]:
        """Return the keys that never expire, sorted: work that waits, and what was stored with NEVER."""
        return [key for key in self.keys() if self.command("PTTL", key) == "-1"]

    async def let_pass(self, seconds: float) -> None:
        """Let time pass for all keys; see ``service_clock``."""
        self.command("EVAL", _AGING, "0", str(round(seconds * 1000)))

    def command(self, *parts: str) -> str:
        """Run a command past the proxy, and return its reply as text; empty for a missing one.

        :raises AssertionError: if the server refuses it.
        """
        request = f"*{len(parts)}\r\n".encode()
        for each in parts:
            content = each.encode()
            request += b"$%d\r\n%s\r\n" % (len(content), content)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(self._socket)
            connection.sendall(request)
            reply = connection.makefile("rb")
            head = reply.readline().rstrip()
            kind, rest = head[:1], head[1:].decode()
            if kind == b"$":
                return reply.read(int(rest)).decode() if int(rest) >= 0 else ""
        if kind == b"-":
            raise AssertionError(f"Redis refuses {parts[0]}: {rest}")
        return rest

    def close(self) -> None:
        """End the proxy, and use the server no more, which ends it."""
        self._proxy.close()
        self._server.leave()
        shutil.rmtree(self._folder, ignore_errors=True)
