"""How far a reader walks who follows a call: ``python -m benchmarks.walks [--trail NAME]``.

For each call the files of the package in which a function ran, and how often one began, or went on after an await, in
another file than the one before. Both are counted by a profiler on live calls against a real Redis and SQLite, after
one such call has connected and warmed up what is remembered. ``--trail`` prints the functions of one call in order.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final

import agent_service
from agent_service import Session, SessionRepository
from agent_service.context import CacheBackedContextStore, InMemoryContextStore, RedisContextStore
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import InMemoryCache, cached, close_cache
from agent_service.infrastructure.database import DatabaseManager, SessionWriter
from tests.servers.redis import RedisServer

ROOT = f"{Path(agent_service.__file__).parent}/"

LONG: Final = 600.0
"""Seconds that an operation on Redis may take. So no timer looks at its deadline meanwhile, which would be a move."""

Call = Callable[[], Awaitable[Any]]


class Walk:
    """What a profiler saw of one call."""

    def __init__(self) -> None:
        self.trail: list[tuple[str, str]] = []
        """File and function, wherever another file was entered."""
        self.files: set[str] = set()

    @property
    def moves(self) -> int:
        """How often another file was entered."""
        return len(self.trail) - 1 if self.trail else 0

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Take note of a function that begins or goes on."""
        if event != "call" or not frame.f_code.co_filename.startswith(ROOT):
            return
        file = frame.f_code.co_filename.removeprefix(ROOT)
        self.files.add(file)
        if not self.trail or self.trail[-1][0] != file:
            self.trail.append((file, frame.f_code.co_name))


async def walk(call: Call) -> Walk:
    """Follow one call."""
    seen = Walk()
    sys.setprofile(seen.note)
    try:
        await call()
    finally:
        sys.setprofile(None)
    return seen


@asynccontextmanager
async def calls(redis_url: str, folder: str) -> AsyncIterator[dict[str, tuple[Call, Call]]]:
    """Return each call by its name, after another one that warms up."""
    memory: InMemoryCache[Any] = InMemoryCache()

    @cached(ttl=60)
    async def shared(number: int) -> dict[str, int]:
        return {"number": number}

    @cached(ttl=60, cache=memory)
    async def local(number: int) -> dict[str, int]:
        return {"number": number}

    database = DatabaseManager(f"sqlite+aiosqlite:///{folder}/walks.db")
    await database.upgrade()
    queued = DatabaseManager(f"sqlite+aiosqlite:///{folder}/queued.db")
    async with queued.session() as db:
        other = await SessionRepository(db).create(Session(user_id="u"))
    writer = SessionWriter(queued)
    async with (
        AsyncExitStack() as stack,
        database.session() as opened,
        CacheBackedContextStore(InMemoryContextStore(), RedisContextStore(url=redis_url, timeout=LONG)) as store,
    ):
        sessions = SessionRepository(opened)
        session = await sessions.create(Session(user_id="u"))
        message = {"role": "user", "content": "hello"}

        async def first_append() -> None:
            # Opened here, because it has a task of its own, which would show up in the calls before.
            await stack.enter_async_context(writer)
            await writer.append(other.id, message)

        yield {
            "a decorated miss on Redis": (lambda: shared(1), lambda: shared(2)),
            "a decorated hit on Redis": (lambda: shared(1), lambda: shared(1)),
            "a decorated miss in memory": (lambda: local(1), lambda: local(2)),
            "a decorated hit in memory": (lambda: local(1), lambda: local(1)),
            "CacheBackedContextStore.set": (lambda: store.set("a", {"n": 1}), lambda: store.set("a", {"n": 2})),
            "add_message_to_session": (
                lambda: sessions.add_message_to_session(session.id, message),
                lambda: sessions.add_message_to_session(session.id, message),
            ),
            "SessionWriter.append": (first_append, lambda: writer.append(other.id, message)),
        }
    await close_cache()
    await database.close()
    await queued.close()


async def measure(redis_url: str) -> dict[str, Walk]:
    """Follow each call once."""
    with TemporaryDirectory() as folder:
        async with calls(redis_url, folder) as chosen:
            walks = {}
            for name, (warm_up, call) in chosen.items():
                await warm_up()
                walks[name] = await walk(call)
            return walks


def settings(redis_url: str) -> dict[str, str]:
    """Return what the environment must say while calls are followed."""
    return {"REDIS_URL": redis_url, "REDIS_TIMEOUT": str(LONG)}


def run(trail: str | None = None) -> None:
    """Print both figures for each call, and the way of one."""
    with RedisServer() as server:
        os.environ.update(settings(server.url))
        reset_settings()
        walks = asyncio.run(measure(server.url))
    print(f"\n{'':30}{'files':>6}{'moves':>7}")
    for name, each in walks.items():
        print(f"{name:30}{len(each.files):>6}{each.moves:>7}")
        if trail is not None and trail in name:
            print("".join(f"    {file}:{function}\n" for file, function in each.trail), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count the files that a reader enters who follows a call.")
    parser.add_argument("--trail", metavar="NAME", help="print the way of the calls whose name contains this")
    run(parser.parse_args().trail)
