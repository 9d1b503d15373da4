"""When a refresh that failed is made again, with copies of the value served meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.testing.clock import FakeClock

PAUSE = "agent_service.infrastructure.cache.loads.loading._REFRESH_PAUSE"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def cache(clock: FakeClock) -> AsyncIterator[InMemoryCache[str]]:
    cache: InMemoryCache[str] = InMemoryCache(clock=clock)
    yield cache
    await cache.aclose()


class Source:
    """Returns a value once, and fails from then on."""

    def __init__(self) -> None:
        self.asked = 0

    async def load(self) -> str:
        self.asked += 1
        if self.asked > 1:
            raise LookupError("away")
        return "value"


async def read(cache: InMemoryCache[str], source: Source, backoff: float) -> None:
    """Read many times, with time for what is begun in the background."""
    for _ in range(20):
        loaded = cache.get_or_load("k", source.load, ttl=600, refresh_at=0.1, failure_backoff=backoff)
        assert await loaded == "value"
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_refresh_that_failed_waits_for_its_back_off(
    cache: InMemoryCache[str], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PAUSE, 0)
    source = Source()
    await read(cache, source, 30)
    clock.advance(61)
    await read(cache, source, 30)
    assert source.asked == 2

    clock.advance(30)
    await read(cache, source, 30)
    assert source.asked == 3


async def test_there_is_a_pause_after_each_refresh(
    cache: InMemoryCache[str], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(PAUSE, 3600)
    source = Source()
    await read(cache, source, 0)
    clock.advance(61)
    await read(cache, source, 0)

    assert source.asked == 2
