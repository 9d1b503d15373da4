"""The memory backend keeps the contract, expires by its clock, and serves any number of threads."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent_service.context.memory import InMemoryContextStore
from agent_service.testing.clock import FakeClock
from agent_service.testing.context_contracts import ContextStoreContract


class TestInMemoryContextStore(ContextStoreContract):
    expires = True
    clock = FakeClock()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @pytest.fixture
    def store(self) -> InMemoryContextStore:
        return InMemoryContextStore(clock=self.clock)


async def test_what_is_over_is_forgotten_without_being_asked_for():
    clock = FakeClock()
    store = InMemoryContextStore(ttl=10, clock=clock)
    for number in range(100):
        await store.set(number, {})
    clock.advance(11)

    await store.set("new", {})

    assert list(store._entries) == ["new"]
    assert len(store._deadlines) == 1


def test_threads_with_loops_of_their_own_lose_no_update():
    store = InMemoryContextStore()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: asyncio.run(store.update("a", {f"field{n}": n})), range(64)))

    assert asyncio.run(store.get("a")) == {f"field{n}": n for n in range(64)}
