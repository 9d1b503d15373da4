"""Shards that change under a running service: no write is lost, none comes back, whoever moves a key when."""

import asyncio
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.moving import read_to_move, withdraw
from agent_service.context.redis import RedisContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.context.sync import ShardManager as SyncShardManager
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.testing.clock import FakeClock
from agent_service.testing.context_contracts import ContextStoreContract
from tests.context import rebalancer
from tests.context.interleaved import Interleaved
from tests.support.depth import examples
from tests.support.forked import Forked
from tests.support.ids import steady

Stores = dict[str, ContextStore]


def memory(*names: str) -> Stores:
    return {name: InMemoryContextStore() for name in names}


def moving_keys(old: ShardManager, new: ShardManager, candidates: Iterable[Key] = range(1000)) -> list[Key]:
    """Keys that change their shard."""
    return [key for key in candidates if old.shard_of(key) != new.shard_of(key)]


# -- the contract holds between two layouts


class TestBetweenTwoLayoutsOfMixedShards(ContextStoreContract):
    examples = examples(6, 10)

    @pytest.fixture
    async def store(self, tmp_path: Path, context_file: Path, redis_url: str) -> AsyncIterator[ShardManager]:
        stores: Stores = {
            "memory": InMemoryContextStore(),
            "files": FileContextStore(tmp_path / "files"),
            "sqlite": DatabaseContextStore(db_path=context_file),
            "redis": RedisContextStore(url=redis_url, timeout=10),
        }
        after = {name: each for name, each in stores.items() if name != "memory"}
        before = {name: each for name, each in stores.items() if name != "redis"}
        async with ShardManager(after, previous=before) as store:
            yield store


class TestBetweenTwoLayoutsThatExpire(ContextStoreContract):
    expires = True

    @pytest.fixture
    def store(self) -> ShardManager:
        stores = memory("a", "b", "c")
        return ShardManager({name: stores[name] for name in "bc"}, previous={name: stores[name] for name in "ab"})


# -- from the first moment on


class ListsLate(InMemoryContextStore):
    """Does not answer with its keys before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def list_keys(self) -> list[Any]:
        keys = await super().list_keys()
        self.asked.set()
        await self.answer.wait()
        return keys


@dataclass
class Changing:
    """Shards to which one is being added, while the rebalance still waits for a list of keys."""

    old: ShardManager
    new: ShardManager
    rebalance: "asyncio.Task[Any]"
    slow: ListsLate
    keys: list[Key]

    async def end(self) -> None:
        self.slow.answer.set()
        await self.rebalance


@pytest.fixture(params=["told", "not told", "another process"])
async def changing(request: pytest.FixtureRequest) -> AsyncIterator[Changing]:
    slow = ListsLate()
    old = ShardManager({"a": slow, **memory("b")})
    after = {**old.shards, **memory("c")}
    mover = ShardManager(after, previous=None if request.param == "not told" else old.shards)
    new = ShardManager(after, previous=old.shards) if request.param == "another process" else mover
    keys = moving_keys(old, new)[:12]
    await old.set_many({key: {"n": key} for key in keys})
    rebalance = asyncio.create_task(mover.rebalance())
    await slow.asked.wait()
    made = Changing(old, new, rebalance, slow, keys)
    yield made
    await made.end()


async def test_an_update_before_the_keys_are_listed_keeps_what_was_there(changing: Changing):
    for key in changing.keys:
        assert await changing.new.update(key, {"more": 1}) == {"n": key, "more": 1}
    await changing.end()

    assert await changing.new.get_many(changing.keys) == {key: {"n": key, "more": 1} for key in changing.keys}


@pytest.mark.parametrize("many", [True, False], ids=["at once", "one by one"])
async def test_a_deletion_before_the_keys_are_listed_is_not_undone(changing: Changing, many: bool):
    if many:
        assert await changing.new.delete_many(changing.keys) == len(changing.keys)
    else:
        for key in changing.keys:
            await changing.new.delete(key)
    during = await changing.new.get_many(changing.keys)
    await changing.end()

    assert during == await changing.new.get_many(changing.keys) == {}
    assert await changing.new.list_keys() == []


async def test_reads_before_the_keys_are_listed_find_everything(changing: Changing):
    expected = {key: {"n": key} for key in changing.keys}

    assert [await changing.new.get(key) for key in changing.keys] == list(expected.values())
    assert await changing.new.get_many([*changing.keys, "missing"]) == expected
    changing.slow.answer.set()
    assert set(await changing.new.list_keys()) == set(expected)


async def test_set_and_compare_and_set_before_the_keys_are_listed_hold(changing: Changing):
    one, two, three, four, *others = changing.keys
    store = changing.new

    assert not await store.compare_and_set(one, {"v": 1}, expected=None)
    assert await store.compare_and_set(two, {"v": 2}, expected={"n": two})
    assert not await store.compare_and_set(three, {"v": 3}, expected={"n": "other"})
    await store.set(four, {"v": 4})
    await store.set_many({key: {"v": key} for key in others})
    await changing.end()

    expected = {
        one: {"n": one},
        two: {"v": 2},
        three: {"n": three},
        four: {"v": 4},
        **{key: {"v": key} for key in others},
    }
    assert await store.get_many(changing.keys) == expected


async def test_without_a_rebalance_a_manager_that_knows_both_layouts_serves_all_keys():
    old = ShardManager(memory("a", "b", "gone"))
    await old.set_many({n: {"n": n} for n in range(100)})
    stores = {**old.shards, **memory("c")}
    new = ShardManager({name: stores[name] for name in "abc"}, previous=old.shards)

    assert await new.get_many(range(100)) == {n: {"n": n} for n in range(100)}
    assert sorted(await new.list_keys()) == list(range(100))
    assert (await new.rebalance()).total == 100
    assert await stores["gone"].list_keys() == []
    assert await ShardManager(new.shards).get_many(range(100)) == {n: {"n": n} for n in range(100)}


async def test_what_the_documents_say_of_processes_that_know_one_layout_only():
    old = ShardManager(memory("a", "b"))
    stores = {**old.shards, **memory("c")}
    both, only_new = ShardManager(stores, previous=old.shards), ShardManager(stores)
    moved, unmoved, overwritten = moving_keys(old, both)[:3]
    await old.set_many({key: {"old": 1} for key in (moved, unmoved, overwritten)})
    await both.update(moved, {"new": 1})

    assert await old.get(moved) is None
    assert await only_new.get(unmoved) is None
    assert await only_new.update(overwritten, {"patch": 1}) == {"patch": 1}
    await old.set(moved, {"lost": 1})
    await both.rebalance()
    assert await both.get_many([moved, unmoved, overwritten]) == {
        moved: {"old": 1, "new": 1},
        unmoved: {"old": 1},
        overwritten: {"patch": 1},
    }


async def test_keys_that_python_holds_equal_are_listed_and_moved_as_the_two_they_are():
    old, new = memory("a"), memory(*"bcdefgh")
    twins: list[Key] = [1, True, 1.0, "1", (1,), (True,)]
    for key in twins:
        await ShardManager(old).set(key, {"key": repr(key)})
    store = ShardManager(new, previous=old)
    for key in twins[:4]:
        await store.update(key, {"more": 1})

    assert sorted(map(repr, await store.list_keys())) == sorted(map(repr, twins))
    await store.rebalance()
    assert sorted(map(repr, await store.list_keys())) == sorted(map(repr, twins))
    assert [((await store.get(key)) or {})["key"] for key in twins] == list(map(repr, twins))


# -- broken off


async def test_a_rebalance_that_is_cancelled_at_any_step_loses_nothing_and_is_resumed():
    class Counted(InMemoryContextStore):
        until = 0
        rebalance: "asyncio.Task[Any]"

        async def _count(self) -> None:
            await asyncio.sleep(0)
            Counted.until -= 1
            if Counted.until == 0:
                Counted.rebalance.cancel()
            await asyncio.sleep(0)

        async def get(self, key: Key) -> Any:
            await self._count()
            return await super().get(key)

        async def read_to_move(self, key: Key) -> Any:
            await self._count()
            return await super().read_to_move(key)

        async def compare_and_set(self, *args: Any, **options: Any) -> bool:
            await self._count()
            return await super().compare_and_set(*args, **options)

        async def delete(self, key: Key) -> None:
            await self._count()
            await super().delete(key)

    cancelled = 0
    for step in range(1, 80):
        stores: Stores = {name: Counted() for name in "abc"}
        before = {name: stores[name] for name in "ab"}
        expected = {n: {"n": n} for n in range(12)}
        await ShardManager(before).set_many(expected)
        new = ShardManager(stores, previous=before)
        Counted.until = step
        Counted.rebalance = asyncio.create_task(new.rebalance())
        try:
            await Counted.rebalance
        except asyncio.CancelledError:
            cancelled += 1
        Counted.until = 0

        assert await new.get_many(range(12)) == expected
        assert sorted(await new.list_keys()) == list(expected)
        await new.rebalance()
        assert await ShardManager(stores).get_many(range(12)) == expected
        assert sum([len(await each.list_keys()) for each in stores.values()]) == 12
    assert cancelled > 20


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_one_manager_rebalances_twice_at_once_and_one_of_them_is_cancelled(told: bool):
    chance = random.Random(3)
    stores: Stores = {name: Interleaved(chance=chance) for name in "abc"}
    before = {name: stores[name] for name in "ab"}
    await ShardManager(before).set_many({n: {"n": n} for n in range(100)})
    new = ShardManager(stores, previous=before if told else None)
    begun = asyncio.Event()
    cancelled = asyncio.create_task(new.rebalance(lambda _: begun.set()))
    others = [asyncio.create_task(new.rebalance()) for _ in range(2)]
    await begun.wait()
    cancelled.cancel()
    updated = [await new.update(n, {"more": 1}) for n in range(0, 100, 2)]
    await asyncio.gather(*others)

    assert updated == [{"n": n, "more": 1} for n in range(0, 100, 2)]
    assert await ShardManager(stores).get_many(range(100)) == {
        n: {"n": n} if n % 2 else {"n": n, "more": 1} for n in range(100)
    }
    assert sum([len(await each.list_keys()) for each in stores.values()]) == 100
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_what_somebody_left_reserved_is_nothing_and_goes():
    old = ShardManager(memory("a", "b"))
    stores = {**old.shards, **memory("c")}
    new = ShardManager(stores, previous=old.shards)
    here, nowhere, *_ = moving_keys(old, new)
    await old.set(here, {"n": 1})
    for key in (here, nowhere):
        await stores["c"].set(key, {"agent_service:moving": "of a process that died"})

    assert await new.get_many([here, nowhere]) == {here: {"n": 1}}
    assert [await new.get(here), await new.get(nowhere)] == [{"n": 1}, None]
    assert await new.list_keys() == [here]
    await new.rebalance()
    assert await stores["c"].list_keys() == [here]
    assert await new.compare_and_set(nowhere, {"first": 1}, expected=None)


async def test_a_manager_of_the_new_shards_alone_takes_a_reservation_for_nothing():
    stores = memory("a", "b")
    store = ShardManager(stores)
    reservation = {"agent_service:moving": "of a process that moves the key"}
    for key in range(4):
        await stores[store.shard_of(key)].set(key, reservation)

    assert await store.get(0) is None
    assert await store.update(0, {"a": 1}) == {"a": 1} == await store.get(0)
    assert not await store.compare_and_set(1, {"a": 1}, expected={"a": 0})
    assert await store.compare_and_set(1, {"a": 1}, expected=None)
    assert await store.get_many([1, 2]) == {1: {"a": 1}}


@pytest.mark.parametrize("which", ["the old one", "the new one"])
async def test_a_shard_that_fails_is_named_and_nothing_is_lost(which: str):
    class Breakable(InMemoryContextStore):
        broken = False

        async def _read(self, texts: Any) -> Any:
            if self.broken:
                raise OSError("unplugged")
            return await super()._read(texts)

        async def _change(self, *arguments: Any) -> None:
            if self.broken:
                raise OSError("unplugged")
            await super()._change(*arguments)

    stores = {name: Breakable() for name in "abc"}
    before: Stores = {name: stores[name] for name in "ab"}
    new = ShardManager(stores, previous=before)
    key = moving_keys(ShardManager(before), new)[0]
    failing = ShardManager(before).shard_of(key) if which == "the old one" else "c"
    await ShardManager(before).set(key, {"n": 1})
    stores[failing].broken = True
    for call in (
        new.get(key),
        new.get_many([key]),
        new.set(key, {"n": 2}),
        new.update(key, {"m": 2}),
        new.delete(key),
        new.set_many({key: {"n": 2}}),
        new.delete_many([key]),
        new.compare_and_set(key, {"n": 2}, expected={}),
        new.rebalance(),
    ):
        with pytest.raises(ContextStoreError, match=f"shard '{failing}': .*unplugged"):
            await call
    stores[failing].broken = False

    assert await new.get(key) == {"n": 1}


async def test_an_error_that_is_not_ours_names_the_shard_too():
    class Strange(InMemoryContextStore):
        async def get(self, key: Key) -> Any:
            raise LookupError("a driver's own")

    with pytest.raises(ContextStoreError, match="shard 'a' raised LookupError: a driver's own") as caught:
        await ShardManager({"a": Strange()}).get("k")

    assert isinstance(caught.value.__cause__, LookupError)


# -- time to live


async def test_a_moved_key_keeps_what_is_left_of_its_time():
    clock = FakeClock()
    old_shards: Stores = {name: InMemoryContextStore(clock=clock) for name in "ab"}
    added = InMemoryContextStore(ttl=5, clock=clock)
    old, new = ShardManager(old_shards), ShardManager({**old_shards, "c": added}, previous=old_shards)
    short, long, never, written, *_ = moving_keys(old, new)
    await old.set(short, {"x": 1}, ttl=10)
    await old.set(long, {"x": 1}, ttl=100)
    await old.set(never, {"x": 1}, ttl=NEVER)
    await old.set(written, {"x": 1}, ttl=100)
    clock.advance(4)
    await new.set(written, {"x": 2}, ttl=1)
    await new.rebalance()

    assert await old.get_many([short, long, never, written]) == {}
    found = [set(await new.get_many([short, long, never, written]))]
    for seconds in (2, 5, 80, 20):
        clock.advance(seconds)
        found.append(set(await new.get_many([short, long, never, written])))
    assert found == [
        {short, long, never, written},
        {short, long, never},
        {long, never},
        {long, never},
        {never},
    ]


async def test_a_moved_key_keeps_its_time_in_redis_and_in_a_database(context_file: Path, redis_url: str):
    old_shards: Stores = {"a": RedisContextStore(url=redis_url, prefix="a", ttl=1000, timeout=10)}
    redis = RedisContextStore(url=redis_url, prefix="b", timeout=10)
    sqlite = DatabaseContextStore(db_path=context_file)
    new = ShardManager({"b": redis, "c": sqlite}, previous=old_shards)
    old = ShardManager(old_shards)
    by_home = {new.shard_of(key): key for key in range(20)}
    for key in by_home.values():
        await old.set(key, {"x": 1})
    forever = next(key for key in range(20, 100) if new.shard_of(key) == "b")
    await old.set(forever, {"x": 1}, ttl=NEVER)
    await new.rebalance()
    client = await redis.client()

    left = await client.execute("PTTL", redis.redis_key(by_home["b"]))
    assert 900_000 < left <= 1_000_000
    assert await client.execute("PTTL", redis.redis_key(forever)) == -1
    there: Any = await sqlite.read_to_move(by_home["c"])
    assert there[0] == {"x": 1}
    assert 900 < there[1] <= 1_000
    for each in (*old_shards.values(), new):
        await each.aclose()


class ReadsOnce(InMemoryContextStore):
    """Answers the first time that a key is read to be moved, and then never."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def read_to_move(self, key: Key) -> Any:
        self.asked += 1
        if self.asked > 1:
            await asyncio.Event().wait()
        return await super().read_to_move(key)


async def test_what_a_mover_that_ends_in_the_middle_has_reserved_expires(redis_url: str):
    old, redis = ReadsOnce(), RedisContextStore(url=redis_url, timeout=10)
    await old.set("a", {"n": 1})
    shards = ShardManager({"new": redis}, previous={"old": old})
    client = await redis.client()
    moving = asyncio.create_task(shards.set("a", {"n": 2}))
    async with asyncio.timeout(60):
        while not await client.execute("EXISTS", redis.redis_key("a")):
            await asyncio.sleep(0.01)
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)

    assert 0 < await client.execute("PTTL", redis.redis_key("a")) <= 60_000
    await redis.aclose()


# -- processes


async def start(job: str, redis_url: str, sqlite: Path, number: int = 0) -> Forked:
    """Start a process and wait until it is at work."""
    process = await Forked.start("tests.context.rebalancer", job, redis_url, str(sqlite), str(number))
    assert await process.line()
    return process


async def ended(process: Forked) -> int:
    with process:
        await asyncio.to_thread(process.stdout.read)
        return await process.wait()


@pytest.fixture
async def stores(redis_url: str, context_file: Path) -> AsyncIterator[Stores]:
    shutil.copy(context_file, f"{context_file}2")
    made = rebalancer.shards(redis_url, context_file)
    await made["sqlite one"].list_keys()
    await made["sqlite two"].list_keys()
    yield made
    for each in made.values():
        await each.aclose()


async def test_two_processes_write_while_two_others_rebalance(stores: Stores, redis_url: str, context_file: Path):
    old = ShardManager(rebalancer.before(stores))
    await old.set_many({f"shared {n}": {"seed": n} for n in range(rebalancer.KEYS)})
    await old.set_many({f"still {n}": {"seed": n} for n in range(80)})
    place = (redis_url, context_file)
    jobs = [("write", 1), ("write", 2), ("rebalance", 0), ("rebalance", 0)]
    processes = await asyncio.gather(*(start(job, *place, number) for job, number in jobs))
    assert await asyncio.gather(*map(ended, processes)) == [0] * 4
    last = rebalancer.ROUNDS - 1
    await ShardManager(rebalancer.after(stores), previous=rebalancer.before(stores)).rebalance()
    new = ShardManager(rebalancer.after(stores))
    turns = {f"by {number} in {turn}": turn for number in (1, 2) for turn in range(rebalancer.ROUNDS)}
    expected: dict[str, Any] = {f"shared {n}": {"seed": n, **turns} for n in range(rebalancer.KEYS)}
    expected |= {f"still {n}": {"seed": n} for n in range(80)}
    for number in (1, 2):
        for n in range(rebalancer.KEYS):
            if n % 3 != last % 3:
                expected[f"own {number} {n}"] = {"turn": last}

    assert await new.get_many(await new.list_keys()) == expected
    assert await stores["redis one"].list_keys() == []
    assert sum([len(await each.list_keys()) for each in stores.values()]) == len(expected)


async def test_a_rebalance_that_is_killed_loses_nothing_and_is_resumed(
    stores: Stores, redis_url: str, context_file: Path
):
    expected = {f"key {n}": {"n": n} for n in range(150)}
    await ShardManager(rebalancer.before(stores)).set_many(expected)
    new = ShardManager(rebalancer.after(stores), previous=rebalancer.before(stores))
    for _ in range(2):
        with await start("rebalance", redis_url, context_file) as process:
            await process.line()
            process.kill()
            assert await process.wait() == -signal.SIGKILL
        assert await new.get_many(expected) == expected
        assert sorted(await new.list_keys()) == sorted(expected)
    await new.rebalance()

    assert await ShardManager(rebalancer.after(stores)).get_many(expected) == expected
    assert sum([len(await each.list_keys()) for each in stores.values()]) == len(expected)


# -- what moving asks of a store


MOVABLE: dict[str, Callable[[pytest.FixtureRequest, Path], ContextStore]] = {
    "memory": lambda _, __: InMemoryContextStore(),
    "files": lambda _, path: FileContextStore(path / "files"),
    "sqlite": lambda request, _: DatabaseContextStore(db_path=request.getfixturevalue("context_file")),
    "postgres": lambda request, _: DatabaseContextStore(url=request.getfixturevalue("postgres_url")),
    "redis": lambda request, _: RedisContextStore(url=request.getfixturevalue("redis_url"), timeout=10),
    "cache_backed": lambda request, _: CacheBackedContextStore(
        db=DatabaseContextStore(db_path=request.getfixturevalue("context_file")), cache=InMemoryContextStore()
    ),
    "shards": lambda _, __: ShardManager({name: InMemoryContextStore() for name in "ab"}),
    "cache": lambda _, __: CacheContextStore(InMemoryCache(namespace="moving")),
}


@pytest.fixture(params=MOVABLE)
async def movable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ContextStore]:
    async with MOVABLE[request.param](request, tmp_path) as store:
        yield store


async def test_withdrawing_removes_what_is_as_expected_and_nothing_else(movable: ContextStore):
    await movable.set("a", {"token": "1", "more": [1]})
    await movable.set("b", {})

    assert not await withdraw(movable, "a", {"token": "2"})
    assert not await withdraw(movable, "missing", {})
    assert await movable.get("a") == {"token": "1", "more": [1]}
    assert await withdraw(movable, "a", {"token": "1"})
    assert await withdraw(movable, "b", {})
    assert await movable.list_keys() == []
    assert await movable.get("a") is None
    assert await movable.update("a", {"new": 1}) == {"new": 1}


def seconds_of(ttl: Any) -> float:
    return float(ttl)


async def test_what_is_read_to_move_is_what_is_there(movable: ContextStore):
    await movable.set("a", {"x": 1})
    found = await read_to_move(movable, "a")

    assert found is not None
    assert found[0] == {"x": 1}
    assert found[1] is NEVER or (isinstance(movable, CacheContextStore) and 0 < seconds_of(found[1]) <= 300)
    assert await read_to_move(movable, "missing") is None


# -- what is refused


@pytest.mark.parametrize("wrong", [{}, [], {1: InMemoryContextStore()}, "a"], ids=steady)
def test_unusable_shards_of_before_are_refused(wrong: Any):
    with pytest.raises(ConfigurationError):
        ShardManager(memory("a"), previous=wrong)


def test_one_name_for_two_stores_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="shard 'a' has one store"):
        ShardManager(memory("a", "b"), previous=memory("a"))


async def test_a_store_that_only_changes_its_name_keeps_its_keys():
    store = InMemoryContextStore()
    await store.set_many({n: {"n": n} for n in range(20)})
    new = ShardManager({"renamed": store, **memory("b")}, previous={"old name": store})
    await new.rebalance()

    assert await new.get_many(range(20)) == {n: {"n": n} for n in range(20)}
    assert 0 < len(await store.list_keys()) < 20


def test_the_synchronous_face_knows_both_layouts():
    stores = memory("a", "b")
    old = SyncShardManager({"a": stores["a"].sync})
    old.set_many({n: {"n": n} for n in range(20)})
    new = SyncShardManager({name: each.sync for name, each in stores.items()}, previous={"a": stores["a"].sync})

    assert new.get_many(range(20)) == {n: {"n": n} for n in range(20)}
    assert new.rebalance().moved > 0
