"""``agent-service tour``: every feature in a temporary folder, on embedded defaults and generated input."""

import asyncio
import os
import runpy
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent_service.cli.commands.replay import DEFAULT_WORKERS, show_sessions, show_trace
from agent_service.cli.console import Console
from agent_service.cli.grammar import add_command
from agent_service.cli.sample import write_conversations, write_trace
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.embedded import EMBEDDED_FOLDER, HOW_TO_GET_ONE, find_server

__all__ = ["register"]

MISMATCHED = 1
TRACE_ENTRIES = 1000


def register(commands: Any) -> None:
    """Add ``tour``."""
    summary = "show everything at work in a temporary folder, without a server: examples, a cache trace, conversations"
    add_command(commands, "tour", _tour, summary, "tour", for_machines=False)


def _tour(_arguments: Namespace, console: Console) -> int:
    """Run the examples, then both replays, in temporary folders and without any server that was there before."""
    with TemporaryDirectory(prefix="agent-service-tour-") as folder, _embedded(Path(folder) / "tour.db"):
        _heading(console, "1. Every feature, in one short program (USAGE_EXAMPLES.py)")
        _run_examples(console)
        _heading(console, "2. A cache trace: 200,000 requests for 20,000 keys, a cache of 1,000 entries")
        trace, conversations = Path(folder) / "trace.csv.gz", Path(folder) / "conversations.jsonl.gz"
        write_trace(trace)
        asyncio.run(show_trace(trace, TRACE_ENTRIES, console))
        _heading(console, "3. Conversations: stored, read back, compared byte for byte, searched, paged")
        write_conversations(conversations)
        report = asyncio.run(show_sessions([conversations], DEFAULT_WORKERS, console, keep=True))
        console.say()
        console.say("That was the tour. Next: README.md, agent-service --help, and make test for the proof of it all.")
    return MISMATCHED if report.mismatches else 0


def _run_examples(console: Console) -> None:
    """Run them on a private Redis, where this machine has a server for one."""
    if find_server() is None:
        console.say(
            f"There is no Redis to start, so tenants, triggers, batches and tools are left out: {HOW_TO_GET_ONE}"
        )
    else:
        os.environ["REDIS_URL"] = "embedded://"
        reset_settings()
    try:
        runpy.run_path(str(_examples()))["main"]()
    finally:
        os.environ["REDIS_URL"] = ""
        reset_settings()


def _heading(console: Console, text: str) -> None:
    console.say()
    console.say(text)
    console.say("-" * len(text))


def _examples() -> Path:
    """Find the examples: inside an installed package, or at the root of a checkout."""
    here = Path(__file__).resolve()
    installed = here.parents[1] / "USAGE_EXAMPLES.py"
    return installed if installed.is_file() else here.parents[3] / "USAGE_EXAMPLES.py"


@contextmanager
def _embedded(database: Path) -> Iterator[None]:
    """Use memory caches and a SQLite file, and no Redis that others use, whatever the environment and .env say."""
    wanted = {"REDIS_URL": "", "DATABASE_URL": f"sqlite+aiosqlite:///{database}", EMBEDDED_FOLDER: ""}
    before = {name: value for name, value in os.environ.items() if name.upper() in wanted}
    for name in before:
        del os.environ[name]
    os.environ.update(wanted)
    reset_settings()
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update(before)
        reset_settings()
