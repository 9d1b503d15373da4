"""Every history of calls on a key that moves, by several processes, is one that a key at rest could have had."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from agent_service.context.interface import ContextStore, Key
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.shards.manager import ShardManager
from tests.context.interleaved import Interleaved
from tests.support.depth import examples

Stores = dict[str, ContextStore]


@dataclass
class Event:
    """One call on the key: when it began and ended, what it did to a document, and what it returned."""

    name: str
    step: Callable[[Any], tuple[Any, Any]]
    began: int
    ended: int = 0
    result: Any = None


def linearizable(events: list[Event], state: Any) -> bool:
    """Whether some order of the calls, which respects those that ended before others began, gives these results."""
    if not events:
        return True
    first_end = min(each.ended for each in events)
    for each in events:
        if each.began > first_end:
            continue
        following, result = each.step(state)
        if result == each.result and linearizable([other for other in events if other is not each], following):
            return True
    return False


def calls(store: ShardManager, key: Key, number: int) -> dict[str, tuple[Callable[[], Awaitable[Any]], Any]]:
    """The calls by name, each with what it does to a document: gives the next one and its result."""
    mark = f"f{number}"
    return {
        "get": (lambda: store.get(key), lambda state: (state, state)),
        "get_many": (lambda: store.get_many([key]), lambda state: (state, {} if state is None else {key: state})),
        "list": (store.list_keys, lambda state: (state, [] if state is None else [key])),
        "set": (lambda: store.set(key, {mark: 1}), lambda _: ({mark: 1}, None)),
        "set_many": (lambda: store.set_many({key: {mark: 2}}), lambda _: ({mark: 2}, None)),
        "update": (
            lambda: store.update(key, {mark: 3}),
            lambda state: ({**(state or {}), mark: 3}, {**(state or {}), mark: 3}),
        ),
        "delete": (lambda: store.delete(key), lambda _: (None, None)),
        "delete_many": (lambda: store.delete_many([key]), lambda state: (None, int(state is not None))),
        "create": (
            lambda: store.compare_and_set(key, {mark: 4}, expected=None),
            lambda state: ({mark: 4}, True) if state is None else (state, False),
        ),
        "exchange": (
            lambda: store.compare_and_set(key, {mark: 5}, expected={"seed": 0}),
            lambda state: ({mark: 5}, True) if state is not None and state.get("seed") == 0 else (state, False),
        ),
    }


CALLS = sorted(calls(ShardManager({"a": InMemoryContextStore()}), "k", 0))
READS, WRITES = ["get", "get_many", "list"], [name for name in CALLS if name not in {"get", "get_many", "list"}]


async def history(seed: int) -> tuple[list[Event], Any]:
    """Play calls on one key that moves; each worker and each mover is a process of its own.

    Every one has a manager of its own over the same stores. What was found in the end is the last event.
    """
    chance = random.Random(seed)
    stores: Stores = {name: Interleaved(chance=chance) for name in "abc"}
    before = {name: stores[name] for name in "ab"}
    after = {name: stores[name] for name in ("bc" if chance.random() < 0.5 else "abc")}
    key = next(key for key in range(1000) if ShardManager(before).shard_of(key) != ShardManager(after).shard_of(key))
    beginning = {"seed": 0} if chance.random() < 0.9 else None
    if beginning is not None:
        await ShardManager(before).set(key, beginning)
    events: list[Event] = []
    clock = iter(range(1_000_000))

    async def work(number: int) -> None:
        store = ShardManager(after, previous=before)
        for turn in range(chance.randrange(1, 4)):
            name = chance.choice(chance.choice([READS, WRITES, ["delete", "update"]]))
            call, step = calls(store, key, 10 * number + turn)[name]
            event = Event(name, step, next(clock))
            events.append(event)
            event.result = await call()
            event.ended = next(clock)

    movers = [ShardManager(after, previous=before).rebalance() for _ in range(chance.randrange(3))]
    await asyncio.gather(*movers, *map(work, range(chance.randrange(1, 4))))
    await ShardManager(after, previous=before).rebalance()
    left = await ShardManager(after).get(key)
    events.append(Event("left", lambda state: (state, state), next(clock), next(clock), left))
    for name, each in stores.items():
        here = left is not None and name == ShardManager(after).shard_of(key)
        assert await each.list_keys() == ([key] if here else []), (seed, name)
    return events, beginning


@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_every_history_of_a_key_that_moves_is_one_of_a_key_that_does_not(first: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agent_service.context.moving._COURTESY", 0)  # so that they take it from one another

    async def play() -> None:
        for seed in range(first, first + examples(100, 500)):
            events, beginning = await history(seed)
            assert linearizable(events, beginning), (seed, [(e.name, e.began, e.ended, e.result) for e in events])

    asyncio.run(play())


async def test_listing_during_a_rebalance_has_every_key_once():
    chance = random.Random(7)
    stores: Stores = {name: Interleaved(chance=chance) for name in "abcd"}
    before, after = {n: stores[n] for n in "abc"}, {n: stores[n] for n in "bcd"}
    await ShardManager(before).set_many({n: {"n": n} for n in range(150)})
    moving = asyncio.create_task(ShardManager(after, previous=before).rebalance())
    lists = []
    while not moving.done():
        lists.append(await ShardManager(after, previous=before).list_keys())

    assert len(lists) > 3
    assert [sorted(each) for each in lists] == [list(range(150))] * len(lists)
    await moving
