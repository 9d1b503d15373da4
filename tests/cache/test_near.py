"""Copies in memory by themselves: how long they live, what a read under way must not bring back, what is dropped."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from agent_service.core.globs import Globs, compile_globs
from agent_service.core.metrics import CacheMetrics
from agent_service.infrastructure.cache.backend import Fill
from agent_service.infrastructure.cache.leases import Lease
from agent_service.infrastructure.cache.memory.cache import MemoryBackend
from agent_service.infrastructure.cache.near.cache import TieredBackend
from agent_service.infrastructure.cache.near.copies import NearCopies
from agent_service.infrastructure.cache.table import MemoryStore
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime, ValueCodec
from agent_service.testing.clock import FakeClock

LIFE = Lifetime(60)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def near(clock: FakeClock) -> NearCopies:
    counts = CacheMetrics().namespace("").l1
    return NearCopies(10, ValueCodec(None), clock=clock.monotonic, longest=lambda: 30.0, counts=counts)


def globs(pattern: str) -> Globs:
    compiled = compile_globs([pattern])
    assert compiled is not None
    return compiled


@pytest.mark.parametrize(("expires_in", "lives"), [(10.0, 10.0), (1000.0, 30.0)])
def test_a_copy_lives_from_the_beginning_of_the_read(
    near: NearCopies, clock: FakeClock, expires_in: float, lives: float
):
    mark = near.expect("k")
    clock.advance(4)
    near.keep(mark, CachedValue("v", "redis", expires_in=expires_in))
    near.done(mark)

    clock.advance(lives - 4 - 0.001)
    assert near.read("k") is not None
    clock.advance(0.001)
    assert near.read("k") is None


def test_a_read_that_took_longer_than_the_entry_lives_leaves_no_copy(near: NearCopies, clock: FakeClock):
    mark = near.expect("k")
    clock.advance(10)
    near.keep(mark, CachedValue("v", "redis", expires_in=10.0))

    assert len(near) == 0


@pytest.mark.parametrize(
    ("drop", "kept"),
    [
        (lambda near: near.drop(["k"]), False),
        (lambda near: near.drop(["other"]), True),
        (lambda near: near.drop_matching(globs("k*").matches), False),
        (lambda near: near.drop_matching(globs("o*").matches), True),
        (lambda near: near.drop_tags(["t"]), False),
        (lambda near: near.drop_all(), False),
    ],
)
def test_what_is_heard_of_a_key_keeps_every_read_under_way_from_leaving_a_copy(
    near: NearCopies, drop: Callable[[NearCopies], None], kept: bool
):
    marks = [near.expect("k") for _ in range(2)]
    drop(near)
    for each in marks:
        near.keep(each, CachedValue("old", "redis", tags=("t",), expires_in=10.0))
        near.done(each)

    assert (near.read("k") is not None) is kept


class Far(MemoryBackend):
    """Stands for Redis, and lets something happen before each change takes place."""

    async def meanwhile(self) -> None:
        """What happens."""

    async def read(self, key: str, tags: Sequence[str] = (), *, with_expiry: bool = False) -> CachedValue | None:
        found = await super().read(key, tags)
        return None if found is None else found._replace(level="redis", tags=("t",), expires_in=60.0)

    async def store(self, entries: Mapping[str, Encoded], life: Lifetime, tags: Sequence[str] = ()) -> bool:
        await self.meanwhile()
        return await super().store(entries, life, tags)

    async def fill_many(self, fills: Sequence[Fill], life: Lifetime, tags: Sequence[str] = ()) -> list[bool]:
        await self.meanwhile()
        return await super().fill_many(fills, life, tags)

    async def add(self, key: str, amount: int, seconds: float) -> int:
        await self.meanwhile()
        return await super().add(key, amount, seconds)

    async def expire(self, key: str, seconds: float) -> bool:
        await self.meanwhile()
        return await super().expire(key, seconds)

    async def remove(self, keys: Sequence[str]) -> int:
        await self.meanwhile()
        return await super().remove(keys)

    async def remove_matching(self, globs: Globs) -> int:
        await self.meanwhile()
        return await super().remove_matching(globs)

    async def invalidate_tags(self, tags: Sequence[str]) -> None:
        await self.meanwhile()
        await super().invalidate_tags(tags)

    async def clear(self) -> None:
        await self.meanwhile()
        await super().clear()


async def fill_many(tiers: TieredBackend) -> None:
    (backend_lease,) = await tiers.lease_many(["k"])
    fill = Fill(Lease("k", (), more_tags=False), backend_lease, tiers.codec.encode(2))
    assert await tiers.fill_many([fill], LIFE) == [True]


CHANGES: dict[str, Callable[[TieredBackend], Awaitable[Any]]] = {
    "store": lambda tiers: tiers.store({"k": tiers.codec.encode(2)}, LIFE),
    "fill many": fill_many,
    "add": lambda tiers: tiers.add("k", 1, 60),
    "expire": lambda tiers: tiers.expire("k", 0.5),
    "remove": lambda tiers: tiers.remove(["k"]),
    "remove matching": lambda tiers: tiers.remove_matching(globs("k*")),
    "tags": lambda tiers: tiers.invalidate_tags(["t"]),
    "clear": lambda tiers: tiers.clear(),
}


@pytest.fixture
async def tiers(near: NearCopies, clock: FakeClock) -> TieredBackend:
    """With an entry, and a copy of it."""
    table = MemoryStore(10, monotonic=clock.monotonic)
    far = Far(table, ValueCodec(None), CacheMetrics().namespace(""))
    tiers = TieredBackend(far, near)
    await far.store({"k": far.codec.encode(1)}, LIFE, ["t"])
    await tiers.read("k")
    assert near.read("k") is not None
    return tiers


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_drops_the_copy_before_it_and_the_one_that_was_made_meanwhile(
    tiers: TieredBackend, monkeypatch: pytest.MonkeyPatch, change: str
):
    seen: list[CachedValue | None] = []

    async def meanwhile(_far: Far) -> None:
        seen.append(tiers.near.read("k"))
        await tiers.read("k")
        seen.append(tiers.near.read("k"))

    monkeypatch.setattr(Far, "meanwhile", meanwhile)
    await CHANGES[change](tiers)

    before, during = seen
    assert before is None
    assert during is not None
    assert tiers.near.read("k") is None


async def test_what_a_load_stores_replaces_the_copy(tiers: TieredBackend):
    backend_lease = await tiers.lease("k")

    assert await backend_lease.fill(Lease("k", (), more_tags=False), tiers.codec.encode(2), LIFE, ())
    assert tiers.near.read("k") is None
