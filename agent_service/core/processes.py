"""Detect whether this process is one of several workers of the same service."""

import os
import sys
from pathlib import Path

__all__ = ["several_processes"]

_WORKER_SERVERS = frozenset({"uvicorn", "gunicorn", "hypercorn", "granian", "fastapi"})
_SPAWNED = b"multiprocessing.spawn"


def several_processes() -> str | None:
    """Return the evidence that there are several workers, or None if there is none.

    Evidence is WEB_CONCURRENCY and ``--workers`` of a known server, and on Linux a sibling that runs the same command.
    None proves nothing: the first worker may start before the others. Costs a few reads of ``/proc``.
    """
    concurrency = os.environ.get("WEB_CONCURRENCY", "")
    if _above_one(concurrency):
        return f"WEB_CONCURRENCY={concurrency}"
    workers = _workers_option(sys.argv)
    if workers is not None:
        return f"--workers {workers}"
    siblings = _siblings()
    return f"{siblings + 1} workers of process {os.getppid()}" if siblings else None


def _workers_option(argv: list[str]) -> str | None:
    program = Path(argv[0]) if argv else Path()
    name = program.parent.name if program.name == "__main__.py" else program.stem
    if name not in _WORKER_SERVERS:
        return None
    for option, value in zip(argv[1:], [*argv[2:], ""], strict=True):
        head, _, rest = option.partition("=")
        given = rest or value
        if head in {"--workers", "-w"} and _above_one(given):
            return given
    return None


def _above_one(text: str) -> bool:
    return text.isdecimal() and int(text) > 1


def _siblings() -> int:
    """Count the other children of this process's parent that run what this process runs."""
    parent = os.getppid()
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    except OSError:
        return 0
    own = _command(str(os.getpid()))
    return 0 if own is None else sum(_command(each) == own for each in children) - 1


def _command(pid: str) -> bytes | None:
    """Return the command line; that of a spawned process of multiprocessing names the pipe it was started with."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return _SPAWNED if _SPAWNED in command else command
