"""What a process does with one of its caches under load, and what it checks in each answer."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.interface import LoadOptions
from tests.cache.faults.meter import Meter
from tests.cache.faults.process import AnyCache, Process
from tests.cache.faults.truth import Truth

__all__ = ["COUNTERS", "HARD_TIMEOUT", "Shared", "User"]

COUNTERS = 3
HARD_TIMEOUT = 0.25
"""Seconds for which somebody waits for a loader that hangs."""
_GROUPS = 4
_ITEMS = [f"{number}" for number in range(20)]
_LOADING = 0.002
_TTL = 30.0

Value = dict[str, Any]

_OPTIONS: tuple[LoadOptions[Any], ...] = (
    {"ttl": _TTL},
    {"ttl": 0.1},
    {"ttl": 0.1, "stale_for": 1, "soft_timeout": 0.0005},
    {"ttl": 0.3, "refresh_at": 0.3},
)


class Shared:
    """What the users of one kind of cache have in common, whatever their process.

    :param bound: seconds for which a process need not have heard of what another one invalidated.
    """

    def __init__(self, name: str, meter: Meter, rng: random.Random, *, bound: float) -> None:
        self.name = name
        self.meter = meter
        self.rng = rng
        self.bound = bound
        self.users: list[User] = []
        self.truth = Truth()
        """Of what is loaded on a miss, and of what single processes set."""
        self.added: Counter[str] = Counter()
        """What was added to each counter."""


class User:
    """The calls of one process to one of its caches."""

    def __init__(self, process: Process, cache: AnyCache, counters: AnyCache, shared: Shared) -> None:
        self._process = process
        self._cache = cache
        self._counters = counters
        self._shared = shared
        self._meter = shared.meter
        self._rng = shared.rng
        self._truth = shared.truth
        self._own = f"own-{len(shared.users)}"
        shared.users.append(self)

        @cached(cache=cache, ttl=_TTL, key="{item}", tags=["group:{group}"])
        async def item(item: str, group: int) -> Value:
            return await self._load(item)

        self._item = item

    def habits(self) -> list[Callable[[], Awaitable[None]]]:
        """Everything it does over and over."""
        return [
            *[self.read] * 4,
            self.read_what_others_set,
            self.invalidate,
            self.set,
            *[self.count] * 2,
            self.wait_impatiently,
            self.pry,
        ]

    # -- loading

    async def _load(self, item: str) -> Value:
        version = self._truth.version(item)
        await asyncio.sleep(_LOADING)
        return {"item": item, "version": version}

    async def _load_many(self, keys: list[str]) -> Mapping[str, Value]:
        return {key: await self._load(key.removeprefix("item:")) for key in keys}

    async def read(self) -> None:
        item = self._rng.choice(_ITEMS)
        key, tags = f"item:{item}", [f"group:{_group(item)}"]
        match self._rng.randrange(6):
            case 0 | 1:
                await self._check(item, "@cached", self._item(item, _group(item)))
            case 2:
                options = self._rng.choice(_OPTIONS).copy()
                options["tags"] = tags
                call = self._cache.get_or_load(key, lambda: self._load(item), **options)
                await self._check(item, "get_or_load", call)
            case 3:
                await self._check(item, "get_or_load_many", self._one_of_many(key, tags))
            case 4:
                await self._check(item, "get", self._cache.get(key))
            case _:
                await self._check(item, "get_many", self._one_of_some(key))

    async def _one_of_many(self, key: str, tags: list[str]) -> Value:
        others = [f"item:{each}" for each in _ITEMS if f"group:{_group(each)}" in tags]
        found: dict[str, Value] = await self._cache.get_or_load_many(
            [*others, key], self._load_many, ttl=_TTL, tags=tags
        )
        return found[key]

    async def _one_of_some(self, key: str) -> Value | None:
        return (await self._cache.get_many([key, "item:0", "item:1"])).get(key)

    async def read_what_others_set(self) -> None:
        item = self._rng.choice(self._shared.users)._own
        await self._check(item, "get", self._cache.get(item))

    async def _check(self, item: str, name: str, call: Awaitable[Value | None]) -> None:
        breaker = self._process.breaker
        others = [user._process for user in self._shared.users if user is not self]
        own = self._truth.oldest_allowed(self._process, item)
        heard = self._truth.oldest_allowed_by_others(others, item, bound=self._shared.bound)
        served, outages = breaker.closed, breaker.outages
        found = await self._meter.time(name, call)
        if found is None:
            return
        if found["item"] != item:
            self._meter.wrong("another item's value", f"{found} for {item} by {name}")
        stayed = served and breaker.outages == outages
        told = f"{found['version']} of {self._shared.name} {item} by {name}, breaker {breaker.state}, stayed: {stayed}"
        if found["version"] < own:
            self._meter.wrong("what this process had invalidated", f"{told}, after {own}")
        elif stayed and found["version"] < heard:
            self._meter.wrong("what another process had invalidated", f"{told}, after {heard}")

    # -- invalidating

    async def invalidate(self) -> None:
        if self._rng.random() < 0.7:  # else there would be little to invalidate
            return
        item = self._rng.choice(_ITEMS)
        group = f"group:{_group(item)}"
        name, items, call = self._rng.choices(
            [
                ("delete", [item], lambda: self._item.invalidate(item, _group(item))),
                ("delete_many", [item, "1"], lambda: self._cache.delete_many([f"item:{item}", "item:1"])),
                ("delete_pattern", [item], lambda: self._cache.delete_pattern(f"item:{item}*")),
                (
                    "invalidate_tags",
                    [each for each in _ITEMS if f"group:{_group(each)}" == group],
                    lambda: self._cache.invalidate_tags([group]),
                ),
                ("clear", _ITEMS, self._cache.clear),
                ("expire", [item], lambda: self._cache.expire(f"item:{item}", 0)),
            ],
            weights=[8, 2, 2, 3, 1, 2],
        )[0]
        versions = self._truth.bump(items)
        await self._meter.time(name, call())
        self._truth.invalidated(self._process, versions)

    async def set(self) -> None:
        """Change what only this one changes, so that it is known in which order."""
        versions = self._truth.bump([self._own])
        value = {"item": self._own, "version": versions[self._own]}
        match self._rng.randrange(6):
            case 0:
                await self._meter.time("delete", self._cache.delete(self._own))
            case 1:
                await self._meter.time("set_many", self._cache.set_many({self._own: value, f"{self._own}-too": value}))
            case _:
                await self._meter.time("set", self._cache.set(self._own, value, ttl=_TTL, tags=["set"]))
        self._truth.invalidated(self._process, versions)

    # -- counting

    async def count(self) -> None:
        counter, amount = f"n{self._rng.randrange(COUNTERS)}", self._rng.randrange(1, 10)
        if await self._meter.time("increment", self._counters.increment(counter, amount, ttl=3600)) is not None:
            self._shared.added[counter] += amount

    # -- the rest

    async def wait_impatiently(self) -> None:
        """Ask for what takes too long to load, with and without regard to loads elsewhere."""
        key = f"hangs:{self._rng.randrange(1000)}"
        call = self._cache.get_or_load(
            key,
            lambda: asyncio.sleep(10, dict[str, int]()),
            hard_timeout=HARD_TIMEOUT,
            lock=self._rng.choice([None, "distributed"]),
        )
        await self._meter.time("hard_timeout", call, may_time_out=True)

    async def pry(self) -> None:
        key = f"item:{self._rng.choice(_ITEMS)}"
        match self._rng.randrange(5):
            case 0:
                await self._meter.time("exists", self._cache.exists(key))
            case 1:
                await self._meter.time("ttl", self._cache.ttl(key))
            case 2:
                await self._meter.time("scan", self._scan())
            case 3:
                await self._meter.time("expire", self._cache.expire(key, _TTL))
            case _:
                await self._meter.time("lookup", self._counters.lookup("n0"))

    async def _scan(self) -> None:
        async for _ in self._cache.scan("item:*"):
            pass


def _group(item: str) -> int:
    return int(item) % _GROUPS
