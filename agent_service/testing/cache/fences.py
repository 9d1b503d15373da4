"""Fences: what was invalidated while it was being loaded is not served afterwards."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_service.infrastructure.cache.interface import ICache
from agent_service.testing.cache.room import SHORT, CacheRoom, Load, giving

__all__ = ["INVALIDATIONS", "CacheFences"]

INVALIDATIONS: dict[str, Callable[[ICache[Any]], Awaitable[object]]] = {
    "delete": lambda cache: cache.delete("a"),
    "delete_many": lambda cache: cache.delete_many(["b", "a"]),
    "set": lambda cache: cache.set("a", "new"),
    "set_many": lambda cache: cache.set_many({"b": 1, "a": "new"}),
    "set with a TTL of zero": lambda cache: cache.set("a", "never stored", ttl=0),
    "expire": lambda cache: cache.expire("a", 0),
    "pattern": lambda cache: cache.delete_pattern("?*"),
    "pattern without wildcards": lambda cache: cache.delete_pattern("a"),
    "tag": lambda cache: cache.invalidate_tags(["unknown", "t"]),
    "clear": lambda cache: cache.clear(),
}
"""Calls that remove or replace an entry ``a`` with the tag ``t``; the writes store ``"new"``."""


async def _one(cache: ICache[Any], load: Load) -> Any:
    return await cache.get_or_load("a", load, tags=["t"])


async def _tagged_by_result(cache: ICache[Any], load: Load) -> Any:
    return await cache.get_or_load("a", load, tags=lambda _result: ["t"])


async def _exclusive(cache: ICache[Any], load: Load) -> Any:
    return await cache.get_or_load("a", load, tags=["t"], lock="distributed")


async def _among_many(cache: ICache[Any], load: Load) -> Any:
    async def load_many(keys: list[str]) -> dict[str, Any]:
        return dict.fromkeys(keys, await load())

    found: dict[str, Any] = await cache.get_or_load_many(["c", "a"], load_many, tags=["t"])
    return found["a"]


LOADS: dict[str, Callable[[ICache[Any], Load], Awaitable[Any]]] = {
    "alone": _one,
    "with tags of the result": _tagged_by_result,
    "for all processes": _exclusive,
    "among many": _among_many,
}


class CacheFences(CacheRoom):
    """What an invalidation does to running loads."""

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_what_was_invalidated_while_loading_is_not_served_afterwards(
        self, cache: ICache[Any], how: str
    ) -> None:
        for kind, load in LOADS.items():
            old = Load("old")
            early = asyncio.ensure_future(load(cache, old))
            await old.started.wait()
            await INVALIDATIONS[how](cache)
            late = await cache.get_or_load("a", giving("new"))
            old.finish.set()

            assert await early == "old", kind
            assert late == "new", kind
            assert await cache.get("a") == "new", kind
            await cache.delete_many(["a", "c"])

    @pytest.mark.parametrize("how", INVALIDATIONS)
    @pytest.mark.parametrize("tagged_by", ["call", "result"])
    async def test_what_was_invalidated_while_it_was_refreshed_is_not_served_afterwards(
        self, cache: ICache[Any], tagged_by: str, how: str
    ) -> None:
        tags: Any = ["t"] if tagged_by == "call" else lambda _result: ["t"]
        await cache.get_or_load("a", giving("first"), ttl=60, refresh_at=SHORT / 60, tags=tags)
        await self.advance(2 * SHORT)
        old = Load("old")
        assert await cache.get_or_load("a", old, ttl=60, refresh_at=SHORT / 60, tags=tags) == "first"
        await old.started.wait()
        await INVALIDATIONS[how](cache)

        assert await cache.get_or_load("a", giving("new")) == "new"
        await self._stays_new(cache, old)

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_what_was_invalidated_while_it_was_served_stale_is_not_served_afterwards(
        self, cache: ICache[Any], how: str
    ) -> None:
        await cache.get_or_load("a", giving("first"), ttl=SHORT, stale_for=60, tags=["t"])
        await self.advance(2 * SHORT)
        old = Load("old")
        assert await cache.get_or_load("a", old, stale_for=60, soft_timeout=0, tags=["t"]) == "first"
        await old.started.wait()
        await INVALIDATIONS[how](cache)

        assert await cache.get_or_load("a", giving("new"), stale_for=60, soft_timeout=0) == "new"
        await self._stays_new(cache, old)

    async def test_an_increment_keeps_out_what_was_loaded_before_it(self, cache: ICache[Any]) -> None:
        old = Load(100)
        early = asyncio.create_task(cache.get_or_load("a", old))
        await old.started.wait()
        await cache.increment("a")
        old.finish.set()

        assert await early == 100
        assert await cache.get("a") == 1

    async def test_invalidating_others_keeps_nothing_out(self, cache: ICache[Any], neighbour: ICache[Any]) -> None:
        load = Load("value")
        early = asyncio.create_task(cache.get_or_load("a", load, tags=["t"]))
        await load.started.wait()
        await cache.delete("b")
        await cache.delete_pattern("a?*")
        await cache.invalidate_tags(["u"])
        await neighbour.delete("a")
        await neighbour.invalidate_tags(["t"])
        await neighbour.clear()
        await cache.get("a")
        load.finish.set()

        assert await early == "value"
        assert await cache.get("a") == "value"

    @staticmethod
    async def _stays_new(cache: ICache[Any], old: Load) -> None:
        """Let the background load end, and watch for a while what it leaves."""
        old.finish.set()
        for _ in range(5):
            await asyncio.sleep(0.005)
            assert await cache.get("a") == "new"
