"""
Processes of their own that start at once: each is forked from one that has imported the package.

A fresh interpreter takes longer to import the package than most tests take altogether. The process to fork from is
started by the first test that needs it, has neither threads nor an event loop, and ends with this one.
"""

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

__all__ = ["CHECKOUT", "Forked", "together", "wait_for_the_others"]

CHECKOUT = Path(__file__).parents[2]
READY = (
    "agent_service.runtime",
    "agent_service.infrastructure.database.schema.migration",
    "agent_service.infrastructure.outbox",
    "agent_service.state",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
)
"""What is imported before the fork; no module that a process runs, because ``runpy`` warns of one that is there."""

_READY = "ready"
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(READY))


class Forked:
    """
    ``python -m module *arguments`` in the checkout, in a process of its own; use it as a context manager.

    Standard input and output are pipes. At the end of the block the process is killed, unless it has ended by itself.

    :param environment: added to the environment that this process has now.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        its_stdin, stdin = _CONTEXT.Pipe(duplex=False)
        stdout, its_stdout = _CONTEXT.Pipe(duplex=False)
        with its_stdin, stdin, stdout, its_stdout:
            its_environment = {**os.environ, **(environment or {})}
            self._process = _CONTEXT.Process(
                target=_run, args=(module, arguments, its_environment, its_stdin, its_stdout), daemon=True
            )
            self._process.start()
            self.stdin = os.fdopen(os.dup(stdin.fileno()), "wb", buffering=0)
            self.stdout = os.fdopen(os.dup(stdout.fileno()), "rb")
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @classmethod
    async def start(cls, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Self:
        """Start one without holding up the event loop: the first has to wait for the imports."""
        return await asyncio.to_thread(cls, module, *arguments, environment=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.join()
        self.stdin.close()
        self.stdout.close()

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended the process; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process as a crash does, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Return the exit status when the process has ended."""
        while (status := self.returncode) is None:
            await asyncio.sleep(0.002)
        return status

    async def line(self) -> str:
        """Return the next line of its output, stripped; empty when the process has ended."""
        return (await asyncio.to_thread(self.stdout.readline)).decode().strip()


@asynccontextmanager
async def together(count: int, module: str, *arguments: str) -> AsyncIterator[list[Forked]]:
    """
    Run ``python -m module *arguments NUMBER`` in several processes, numbered from 0.

    The block begins when each of them has called :func:`wait_for_the_others`.
    """
    with ExitStack() as stack:
        processes = [
            stack.enter_context(await Forked.start(module, *arguments, str(number))) for number in range(count)
        ]
        assert [await each.line() for each in processes] == [_READY] * count
        for each in processes:
            each.stdin.close()
        yield processes


def wait_for_the_others() -> None:
    """Return when all processes of :func:`together` have called this; called in such a process."""
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _run(
    module: str, arguments: tuple[str, ...], environment: dict[str, str], stdin: Connection, stdout: Connection
) -> None:
    for number, connection in enumerate((stdin, stdout)):
        os.dup2(connection.fileno(), number)
        connection.close()
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - they stay
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(CHECKOUT)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
