"""A load of a key between the awaits of another call for it. In memory, where only the test decides who goes on."""

import asyncio
from collections.abc import Sequence

import pytest

from agent_service.infrastructure.cache.memory.cache import InMemoryCache, MemoryBackend, MemoryLease
from agent_service.infrastructure.cache.values import CachedValue


async def test_a_miss_that_is_older_than_what_was_loaded_meanwhile_is_looked_at_again(monkeypatch: pytest.MonkeyPatch):
    cache: InMemoryCache[str] = InMemoryCache()
    read = MemoryBackend.read
    gates: list[asyncio.Event] = [asyncio.Event()]
    missed = asyncio.Event()

    async def slow(
        self: MemoryBackend, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False
    ) -> CachedValue | None:
        found = await read(self, key, tags, with_expiry=with_expiry)
        if gates:
            gate = gates.pop()
            missed.set()
            await gate.wait()
        return found

    async def give(value: str) -> str:
        return value

    monkeypatch.setattr(MemoryBackend, "read", slow)
    gate = gates[0]
    early = asyncio.create_task(cache.get_or_load("k", lambda: give("again")))
    await missed.wait()
    assert await cache.get_or_load("k", lambda: give("once")) == "once"
    gate.set()

    assert await early == "once"
    assert cache.counters.snapshot()["loads"] == 1


async def test_a_lease_is_given_back_whoever_is_cancelled_meanwhile(monkeypatch: pytest.MonkeyPatch):
    cache: InMemoryCache[str] = InMemoryCache()
    begun, gate, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def release(_self: MemoryLease, *, tell: bool = True) -> None:
        begun.set()
        await gate.wait()
        ended.set()

    async def give() -> str:
        raise LookupError  # a value that is stored ends the lease by itself

    monkeypatch.setattr(MemoryLease, "release", release)
    asking = asyncio.create_task(cache.get_or_load("k", give))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()

    await asyncio.wait_for(ended.wait(), 60)
