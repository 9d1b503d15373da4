"""What every part of the contract needs: a cache, time that passes, and loaders."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

import pytest

from agent_service.infrastructure.cache.interface import ICache

__all__ = ["SHORT", "CacheRoom", "Failing", "Load", "giving", "joined", "until"]

SHORT: Final = 0.06
"""Seconds; long enough for an operation on a loaded machine, short enough to wait for."""


class CacheRoom:
    """The fixtures of a test class of a cache: ``cache`` must be overridden, the others may."""

    levels: ClassVar[frozenset[str]] = frozenset({"memory", "redis", "l1"})
    """What :class:`Loaded` may call the level of a hit. Override it with what your backend calls its own."""

    @pytest.fixture
    async def cache(self) -> ICache[Any]:
        """Return an empty cache whose default TTL is at least a minute."""
        raise NotImplementedError("override the fixture `cache`")

    @pytest.fixture
    async def again(self, cache: ICache[Any]) -> ICache[Any]:
        """Return another handle of what ``cache`` holds; overridden where a second one can be opened."""
        return cache

    @pytest.fixture
    async def neighbour(self) -> ICache[Any]:
        """Return an empty cache of another namespace beside ``cache``; overridden where there are namespaces."""
        pytest.skip("the fixture `neighbour` is not overridden: no cache of another namespace")

    async def advance(self, seconds: float) -> None:
        """Let time pass for the cache; overridden where a clock can be moved."""
        await asyncio.sleep(seconds)


class Load:
    """A loader that sets ``started`` when it begins and ends when ``finish`` is set; it counts its calls."""

    def __init__(self, value: Any, *, finished: bool = False) -> None:
        self.value = value
        self.calls = 0
        self.cancelled = False
        self.started = asyncio.Event()
        self.finish = asyncio.Event()
        if finished:
            self.finish.set()

    async def __call__(self) -> Any:
        self.calls += 1
        self.started.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self.value


class Failing:
    """A loader that raises; it counts its calls."""

    def __init__(self, exc: Exception) -> None:
        self.exc = exc
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        raise self.exc


def giving(value: Any) -> Load:
    """Return a loader that returns the value at once."""
    return Load(value, finished=True)


async def joined() -> None:
    """Wait until the latest callers have surely joined the running load; there is no way to ask.

    In many turns of the event loop, so that callers get theirs after the whole process was held up.
    """
    for _ in range(250):
        await asyncio.sleep(0.001)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - a cache does not announce what others store
            await asyncio.sleep(0.005)
