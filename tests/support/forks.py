"""Processes that cost one start of the interpreter and one import between them.

``python -m tests.support.forks MODULE ...`` imports modules and opens nothing. Whenever it is asked, it forks processes
that run a coroutine function of one of the modules. They begin together, once all of them are there.
"""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
_END = "all ended: "


class Forks:
    """The processes of one request; ``pids`` are in the order of their numbers."""

    def __init__(self, pids: list[int], output: Iterator[str]) -> None:
        self.pids = pids
        self._output = output
        self._reading = threading.Lock()
        self._codes: list[int] | None = None

    def line(self) -> str:
        """Wait for the next line that one of them prints."""
        return next(self._output)

    def finish(self) -> tuple[list[str], list[int]]:
        """Wait until all have ended; give the lines that were still to be read, and the codes that they ended with."""
        said: list[str] = []
        with self._reading:
            while self._codes is None:
                line = self.line()
                if line.startswith(_END):
                    self._codes = json.loads(line.removeprefix(_END))
                else:
                    said.append(line)
            return said, self._codes

    def kill(self) -> None:
        """Kill those that run."""
        if self._codes is None:
            for pid in self.pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Forker:
    """The process that is forked."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._requests = process.stdin
        self._output = iter(process.stdout.readline, "")

    @contextlib.contextmanager
    def running(
        self, count: int, function: str, *arguments: Any, environment: Mapping[str, str] | None = None
    ) -> Iterator[Forks]:
        """Run a coroutine function in forks; kill those that are left at the end.

        :param function: ``module:name``; it is given the number of the fork, from 0, and the arguments.
        :param environment: variables that the forks see.
        """
        self._requests.write(json.dumps([count, function, arguments, dict(environment or {})]) + "\n")
        self._requests.flush()
        forks = Forks(json.loads(next(self._output)), self._output)
        try:
            yield forks
        finally:
            forks.kill()
            forks.finish()


@contextlib.contextmanager
def forking(*modules: str) -> Iterator[Forker]:
    """Start a process that imports modules and can be forked."""
    command = [sys.executable, "-m", "tests.support.forks", *modules]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=CHECKOUT, **pipes) as process:
        yield Forker(process)
        process.communicate()
        assert process.returncode == 0


def _fork(count: int, function: str, arguments: list[Any], environment: dict[str, str]) -> list[int]:
    """Fork, and give the ids."""
    begin, hold = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            os.close(hold)
            os.read(begin, 1)  # gives nothing as soon as nobody holds the other end
            os.environ.update(environment)
            module, name = function.split(":")
            asyncio.run(getattr(importlib.import_module(module), name)(number, *arguments))
            sys.exit()
        pids.append(pid)
    _say(json.dumps(pids))
    os.close(begin)
    os.close(hold)
    return pids


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for each in sys.argv[1:]:
        importlib.import_module(each)
    for request in sys.stdin:
        forked = _fork(*json.loads(request))
        _say(_END + json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked]))
