"""Tags, and clearing: invalidation of many entries in one step."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError, CacheValueError
from agent_service.infrastructure.cache.interface import MISS, ICache
from agent_service.testing.cache.room import CacheRoom, Failing, giving

__all__ = ["CacheTags"]

AWKWARD_TAGS = [
    "a",
    "a:b",
    ":",
    "%",
    "%3A",
    "%25",
    "{",
    "}",
    "{a}",
    "*",
    "[a]",
    "\\",
    "é\U0001f600",
    "\x00",
    "x" * 8192,
]

Store = Callable[[ICache[Any], str, list[str]], Awaitable[object]]


async def _many(cache: ICache[Any], key: str, tags: list[str]) -> None:
    async def load(keys: list[str]) -> dict[str, Any]:
        return dict.fromkeys(keys, 1)

    await cache.get_or_load_many([key, key + "2"], load, tags=tags)


STORES: dict[str, Store] = {
    "set": lambda cache, key, tags: cache.set(key, 1, tags=tags),
    "set_many": lambda cache, key, tags: cache.set_many({key: 1, key + "2": [2]}, tags=tags),
    "get_or_load": lambda cache, key, tags: cache.get_or_load(key, giving(1), tags=tags),
    "tags of the result": lambda cache, key, tags: cache.get_or_load(key, giving(1), tags=lambda _result: tags),
    "get_or_load_many": _many,
}

INVALIDATIONS: dict[str, Callable[[ICache[Any]], Awaitable[object]]] = {
    "tag": lambda cache: cache.invalidate_tags(["t"]),
    "clear": lambda cache: cache.clear(),
}


class CacheTags(CacheRoom):
    """What tags do."""

    @pytest.mark.parametrize("how", STORES)
    async def test_invalidating_a_tag_takes_the_entries_that_have_it_and_no_other(
        self, cache: ICache[Any], how: str
    ) -> None:
        await STORES[how](cache, "a", ["t", "u"])
        await STORES[how](cache, "b", ["u"])
        await STORES[how](cache, "c", [])
        stored = sorted([key async for key in cache.scan()])

        await cache.invalidate_tags(["t"])

        assert [key async for key in cache.scan("a*")] == []
        assert sorted([key async for key in cache.scan()]) == [key for key in stored if key[0] in "bc"]
        assert await cache.get_many(["a", "a2", "b", "c"]) == {"b": 1, "c": 1}

    async def test_several_tags_are_invalidated_at_once(self, cache: ICache[Any]) -> None:
        await cache.set_many({"a": 1, "b": 1}, tags=["t"])
        await cache.set("c", 1, tags=["u", "v"])
        await cache.set("d", 1, tags=["w"])
        await cache.invalidate_tags(["u", "unknown", "t", "t"])

        assert await cache.get_many(list("abcd")) == {"d": 1}

    async def test_unknown_tags_and_no_tags_take_nothing(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1, tags=["t"])
        await cache.invalidate_tags(["T", "t ", "a"])
        await cache.invalidate_tags([])

        assert await cache.get("a") == 1

    async def test_what_is_stored_after_an_invalidation_is_there(self, cache: ICache[Any]) -> None:
        for invalidate in INVALIDATIONS.values():
            await cache.set("a", "old", tags=["t"])
            await invalidate(cache)
            await cache.set("a", "new", tags=["t"])
            await cache.set("b", "new")

            assert await cache.get_many(["a", "b"]) == {"a": "new", "b": "new"}

    async def test_a_write_replaces_the_tags_too(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1, tags=["t"])
        await cache.set("a", 2, tags=["u"])
        await cache.set("b", 1, tags=["t"])
        await cache.set("b", 2)
        await cache.invalidate_tags(["t"])

        assert await cache.get_many(["a", "b"]) == {"a": 2, "b": 2}
        await cache.invalidate_tags(["u"])
        assert await cache.get_many(["a", "b"]) == {"b": 2}

    async def test_counters_keep_their_tags_when_they_are_incremented(self, cache: ICache[Any]) -> None:
        await cache.set("n", 5, ttl=60, tags=["t", "u"])
        await cache.set("m", 5, tags=["v"])
        await cache.increment("n", 2)
        await cache.increment("m")

        assert await cache.increment("n") == 8
        assert await cache.get("n") == 8
        assert 59 < await cache.ttl("n") <= 60  # type: ignore[operator] # a float
        await cache.invalidate_tags(["u"])
        assert await cache.get_many(["n", "m"]) == {"m": 6}

    async def test_an_entry_keeps_its_tags_when_its_ttl_changes(self, cache: ICache[Any]) -> None:
        await cache.set("a", 1, ttl=1, tags=["t"])
        assert await cache.expire("a", 86_400 * 30) is True
        assert await cache.get("a") == 1

        await cache.invalidate_tags(["t"])

        assert await cache.lookup("a") is MISS

    async def test_any_text_is_a_tag_and_no_other_one(self, cache: ICache[Any]) -> None:
        for tag in AWKWARD_TAGS:
            for number, each in enumerate(AWKWARD_TAGS):
                await cache.set(f"k{number}", number, tags=[each])
            await cache.set("all", -1, tags=AWKWARD_TAGS)

            await cache.invalidate_tags([tag])

            left = {f"k{number}": number for number, each in enumerate(AWKWARD_TAGS) if each != tag}
            assert await cache.get_many([*left, f"k{AWKWARD_TAGS.index(tag)}", "all"]) == left, ascii(tag)

    async def test_another_namespace_with_the_same_tags_and_keys_loses_nothing(
        self, cache: ICache[Any], neighbour: ICache[Any]
    ) -> None:
        for each in (cache, neighbour):
            await each.set("a", 1, tags=["t"])
            await each.set("b", 1)
        await cache.invalidate_tags(["t"])
        await cache.clear()

        assert [key async for key in cache.scan()] == []
        assert await neighbour.get_many(["a", "b"]) == {"a": 1, "b": 1}

    async def test_clearing_takes_every_entry(self, cache: ICache[Any]) -> None:
        await cache.clear()
        await cache.set_many({"a": 1, "b": [2]}, tags=["t"])
        await cache.get_or_load("c", giving(3))
        await cache.increment("n")
        await cache.clear()
        await cache.clear()

        assert await cache.get_many(["a", "b", "c", "n"]) == {}
        assert [key async for key in cache.scan()] == []

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_what_was_invalidated_is_missing_to_every_operation(self, cache: ICache[Any], how: str) -> None:
        values = {f"{key}{number}": number for key in "abcdefg" for number in (1, 2)}
        await cache.set_many(values, ttl=600, tags=["s", "t"])

        await INVALIDATIONS[how](cache)

        assert await cache.lookup("a1") is MISS
        assert await cache.get_many(["a1", "a2"]) == {}
        assert await cache.exists("a1") is False
        assert await cache.ttl("a1") is None
        assert [key async for key in cache.scan()] == []
        assert await cache.delete("b1") is False
        assert await cache.delete_many(["b2", "c1"]) == 0
        assert await cache.delete_pattern("d*") == 0
        assert await cache.delete_pattern("e1") == 0
        assert await cache.expire("e2", 30) is False
        assert await cache.expire("e2", 0) is False
        assert await cache.lookup("e2") is MISS

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_a_counter_that_was_invalidated_starts_anew(self, cache: ICache[Any], how: str) -> None:
        await cache.set_many({"n": 100, "m": 100}, ttl=600, tags=["t"])
        await cache.set("text", "no number", tags=["t"])
        await cache.increment("n")

        await INVALIDATIONS[how](cache)

        assert await cache.increment("n", 2, ttl=30) == 2
        assert await cache.increment("text") == 1
        assert await cache.increment("m", 5, ttl=0) == 5
        assert 29 < await cache.ttl("n") <= 30  # type: ignore[operator] # a float
        await cache.invalidate_tags(["t"])
        assert await cache.get_many(["n", "text", "m"]) == {"n": 2, "text": 1}

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_a_counter_that_was_invalidated_sets_no_bound(self, cache: ICache[Any], how: str) -> None:
        await cache.set("n", 2**63 - 1, tags=["t"])
        with pytest.raises(CacheValueError):
            await cache.increment("n")

        await INVALIDATIONS[how](cache)

        assert await cache.increment("n", 2**63 - 1) == 2**63 - 1
        await cache.increment("m", -1)
        await cache.clear()
        assert await cache.increment("m", -(2**63)) == -(2**63)

    @pytest.mark.parametrize("how", INVALIDATIONS)
    async def test_what_was_invalidated_is_loaded_again_and_never_given_stale(
        self, cache: ICache[Any], how: str
    ) -> None:
        for key in ("a", "b"):
            await cache.get_or_load(key, giving("old"), stale_for=60, tags=["t"])

        await INVALIDATIONS[how](cache)

        assert await cache.get_or_load("a", giving("new"), stale_for=60, soft_timeout=0) == "new"
        with pytest.raises(LookupError):
            await cache.get_or_load("b", Failing(LookupError("away")), stale_for=60)

    async def test_unusable_tags_are_refused(self, cache: ICache[Any]) -> None:
        unusable: list[Any] = ["t", b"t", 5, ["t", ""], [""], ["\ud800"], ["x" * 8193], ["t", 1], [None]]
        await cache.set("a", "old", tags=["t"])

        for tags in unusable:
            load = giving("new")
            result_tags: Any = lambda _result, tags=tags: tags  # noqa: E731
            with pytest.raises(CacheKeyError, match="tag"):
                await cache.set("a", "new", tags=tags)
            with pytest.raises(CacheKeyError, match="tag"):
                await cache.set_many({"a": "new"}, tags=tags)
            with pytest.raises(CacheKeyError, match="tag"):
                await cache.get_or_load("b", load, tags=tags)
            with pytest.raises(CacheKeyError, match="tag"):
                await cache.invalidate_tags(tags)
            assert load.calls == 0
            assert await cache.get_many(["a", "b"]) == {"a": "old"}
            with pytest.raises(CacheKeyError, match="tag"):
                await cache.get_or_load("b", load, tags=result_tags)
            assert await cache.lookup("b") is MISS
