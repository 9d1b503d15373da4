"""Sharding: the contract over mixed shards, stable routing, moves that lose nothing."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_service.context.database import DatabaseContextStore
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.redis import RedisContextStore
from agent_service.context.shards.manager import RebalanceProgress, ShardManager
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.testing.context_contracts import ContextStoreContract
from tests.support.ids import steady


class TestMixedShards(ContextStoreContract):
    @pytest.fixture
    async def store(self, tmp_path: Path, context_file: Path, redis_url: str) -> AsyncIterator[ShardManager]:
        shards = {
            "memory": InMemoryContextStore(),
            "files": FileContextStore(tmp_path / "files"),
            "sqlite": DatabaseContextStore(db_path=context_file),
            "redis": RedisContextStore(url=redis_url, timeout=10),
        }
        async with ShardManager(shards) as store:
            yield store


class TestShardsThatExpire(ContextStoreContract):
    expires = True

    @pytest.fixture
    def store(self) -> ShardManager:
        return memory_shards(3)


def memory_shards(count: int) -> ShardManager:
    return ShardManager({f"shard{n}": InMemoryContextStore() for n in range(count)})


def test_routing_is_the_same_in_every_process_and_for_every_hash_seed():
    program = (
        "from agent_service.context.shards.manager import ShardManager\n"
        "from agent_service.context.memory import InMemoryContextStore as Store\n"
        "shards = ShardManager({name: Store() for name in ['c', 'a', 'b']})\n"
        "routes = [shards.shard_of(key) for key in ['x', 1, True, ('a', 1), frozenset({'p', 'q', 'r'}), None]]\n"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"  # that of this process is another one

    here: dict[str, Any] = {}
    exec(program, here)
    command = [sys.executable, "-c", f"{program}print(routes)"]
    there = subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True).stdout

    assert here["routes"] == ["c", "b", "b", "b", "b", "a"]
    assert there == f"{here['routes']}\n"


def test_keys_spread_evenly_and_one_more_shard_takes_its_share_from_all():
    keys = [f"session-{n}" for n in range(8_000)]
    before, after = memory_shards(4), memory_shards(5)
    counts = Counter(map(before.shard_of, keys))
    moved = [key for key in keys if before.shard_of(key) != after.shard_of(key)]

    assert all(1_800 < count < 2_200 for count in counts.values())
    assert 1_400 < len(moved) < 1_800
    assert {after.shard_of(key) for key in moved} == {"shard4"}


async def test_rebalance_moves_what_must_move_and_says_how_far_it_is():
    old = memory_shards(3)
    await old.set_many({n: {"n": n} for n in range(200)})
    new = ShardManager({**old.shards, "added": InMemoryContextStore()})
    steps: list[RebalanceProgress] = []

    done = await new.rebalance(steps.append)

    assert done == steps[-1] == RebalanceProgress(200, 200, len(await new.shards["added"].list_keys()))
    assert 25 < done.moved < 80
    assert [each.done for each in steps] == sorted(each.done for each in steps)
    assert await new.get_many(range(200)) == {n: {"n": n} for n in range(200)}
    assert await new.rebalance() == RebalanceProgress(200, 200, 0)


async def test_a_rebalance_that_was_broken_off_is_resumed():
    class FailsAfterTen(InMemoryContextStore):
        left = 10

        async def compare_and_set(self, *args: Any, **options: Any) -> bool:
            FailsAfterTen.left -= 1
            if FailsAfterTen.left < 0:
                raise ContextStoreError("the disk is full")
            return await super().compare_and_set(*args, **options)

    old = memory_shards(2)
    await old.set_many({n: {"n": n} for n in range(100)})
    new = ShardManager({**old.shards, "added": FailsAfterTen()})

    with pytest.raises(ContextStoreError, match="'added'"):
        await new.rebalance()
    FailsAfterTen.left = 1_000
    await new.rebalance()

    assert await new.get_many(range(100)) == {n: {"n": n} for n in range(100)}
    assert len(await new.list_keys()) == sum([len(await each.list_keys()) for each in new.shards.values()]) == 100


async def test_reads_and_writes_go_on_while_keys_move():
    old = memory_shards(2)
    await old.set_many({n: {"n": n} for n in range(300)})
    new = ShardManager({**old.shards, "added": InMemoryContextStore()})
    begun = asyncio.Event()

    async def use(number: int) -> None:
        await begun.wait()
        assert await new.get(number) == {"n": number}
        await new.update(number, {"more": 1})
        if number % 3 == 0:
            await new.delete(number)

    users = [asyncio.create_task(use(n)) for n in range(0, 300, 2)]
    await new.rebalance(lambda _: begun.set())
    await asyncio.gather(*users)

    expected = {n: {"n": n, "more": 1} if n % 2 == 0 else {"n": n} for n in range(300) if n % 6}
    assert await new.get_many(range(300)) == expected


async def test_what_was_written_at_home_wins_over_what_is_moved():
    old = memory_shards(2)
    await old.set_many({n: {"v": "old"} for n in range(50)})
    new = ShardManager({**old.shards, "added": InMemoryContextStore()})
    await new.set_many({n: {"v": "new"} for n in range(50)})

    await new.rebalance()

    assert await new.get_many(range(50)) == {n: {"v": "new"} for n in range(50)}
    assert len(await new.list_keys()) == 50


async def test_a_failing_shard_is_named_and_a_partial_list_is_an_error():
    class Broken(InMemoryContextStore):
        async def _texts(self) -> list[str]:
            raise ContextStoreError("unplugged")

        async def _read(self, texts: Any) -> dict[str, bytes]:
            raise ContextStoreError("unplugged")

    store = ShardManager({"good": InMemoryContextStore(), "bad": Broken()})
    keys: list[Key] = [
        next(key for key in map(str, range(100)) if store.shard_of(key) == name) for name in store.shards
    ]

    assert await store.get(keys[0]) is None
    for call in (store.list_keys(), store.get(keys[1]), store.get_many(keys), store.rebalance()):
        with pytest.raises(ContextStoreError, match=r"shard 'bad': .*unplugged") as caught:
            await call
        assert isinstance(caught.value.__cause__, ContextStoreError)


SAME: ContextStore = InMemoryContextStore()


@pytest.mark.parametrize("shards", [{}, [], None, {1: SAME}, {"a": SAME, "b": SAME}], ids=steady)
def test_unusable_shards_are_refused(shards: Any):
    with pytest.raises(ConfigurationError):
        ShardManager(shards)
