"""Real servers in processes of their own, as operators start them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil

from tests.servers.ports import free_port
from tests.support.forked import CHECKOUT

START_SECONDS = 90


class ServerProcess:
    """A server that was started, with all processes that it started itself."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = url

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def children(self) -> list[int]:
        """The processes that it started and that live."""
        found = []
        for each in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "resource_tracker" not in " ".join(each.cmdline()):
                    found.append(each.pid)
        return found

    def terminate(self) -> None:
        """Ask it to stop, as Kubernetes does."""
        self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait until it has ended, and return how."""
        while (code := self._process.poll()) is None:
            await asyncio.sleep(0.01)
        return code

    def kill(self) -> None:
        """End all of it at once, unless it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in (
                *psutil.Process(self._process.pid).children(recursive=True),
                psutil.Process(self._process.pid),
            ):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
        self._process.wait()


@asynccontextmanager
async def running(server: str, app: str, environment: Mapping[str, str]) -> AsyncIterator[ServerProcess]:
    """Run an application, until the end of the block at the latest.

    :param server: the module and its arguments, without the address: ``uvicorn --workers 2``.
    :param app: ``module:name``.
    """
    port = free_port()
    address = ["--port", str(port)] if server.startswith("uvicorn") else ["--bind", f"127.0.0.1:{port}"]
    command = [sys.executable, "-m", *server.split(), *address, app]
    with tempfile.TemporaryDirectory(prefix="agent-service-server-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                command, env={**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}, stdout=output, stderr=output
            )
        started = ServerProcess(process, f"http://127.0.0.1:{port}", log)
        try:
            await _until_it_serves(started, process)
            yield started
        finally:
            started.kill()


async def _until_it_serves(server: ServerProcess, process: "subprocess.Popen[bytes]") -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(base_url=server.url) as client:
        while True:
            assert process.poll() is None, server.output
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/health/startup")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
