"""Which results of a load are kept, for how long, and what the result itself decides."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from agent_service.core.errors import CacheValueError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache
from agent_service.testing.cache.room import SHORT, CacheRoom, Failing, giving

__all__ = ["CacheKeeping"]


class NotFoundError(Exception):
    """Its class gives an equal one back when called with its arguments."""


class MissingUserError(NotFoundError):
    """A subclass of it."""


class PoliteError(NotFoundError):
    """Its class gives no equal one back: its arguments are not those of its message."""

    def __init__(self, user: int) -> None:
        super().__init__(f"sorry, there is no user {user}")


UNUSABLE: dict[str, list[Any]] = {
    "ttl": ["60", True, math.nan, math.inf, [1]],
    "stale_for": [-1, "60", True, False, math.inf],
    "soft_timeout": [-1, "1", False, math.nan],
    "hard_timeout": [-0.1, "1", True, math.nan],
    "failure_backoff": [-1, "1", True, False],
    "negative_ttl": ["1", True, math.inf],
    "refresh_at": [0, 1, -0.5, 80, "0.5", True, math.nan],
    "jitter": [1, -0.1, "0.5", True, None, math.nan],
    "cache_if": [True, "result", 5],
    "cache_exceptions": [[NotFoundError], {"NotFoundError": 3}, {KeyboardInterrupt: 3}, {NotFoundError: "3"}],
    "lock": ["local", True, ""],
    "context": [5, ["name"], "name"],
}


def _always(ttl: Any) -> Callable[[object], Any]:
    return lambda _result: ttl


class CacheKeeping(CacheRoom):
    """What is stored of a load's result."""

    async def test_a_function_of_the_result_may_give_the_ttl(self, cache: ICache[Any]) -> None:
        for key, ttl in {"a": 30, "default": None, "b": timedelta(seconds=40), "none": 0, "never": NEVER}.items():
            await cache.get_or_load(key, giving(1), ttl=_always(ttl))

        assert 29 < await cache.ttl("a") <= 30  # type: ignore[operator] # a float
        assert 39 < await cache.ttl("b") <= 40  # type: ignore[operator] # a float
        assert await cache.ttl("default") > 40  # type: ignore[operator] # a float
        assert await cache.ttl("none") is None
        assert await cache.ttl("never") is NEVER

    async def test_a_ttl_of_the_result_that_cannot_be_used_is_refused(self, cache: ICache[Any]) -> None:
        with pytest.raises(CacheValueError, match="ttl"):
            await cache.get_or_load("a", giving(1), ttl=lambda _result: "60")  # type: ignore[arg-type, return-value]
        assert await cache.lookup("a") is MISS

    async def test_none_may_have_a_ttl_of_its_own(self, cache: ICache[Any]) -> None:
        await cache.get_or_load("none", giving(None), ttl=600, negative_ttl=30)
        await cache.get_or_load("some", giving(0), ttl=600, negative_ttl=30)
        await cache.get_or_load("not kept", giving(None), ttl=600, negative_ttl=0)

        assert await cache.lookup("none") == Hit(None)
        assert 29 < await cache.ttl("none") <= 30  # type: ignore[operator] # a float
        assert 599 < await cache.ttl("some") <= 600  # type: ignore[operator] # a float
        assert await cache.lookup("not kept") is MISS

    async def test_a_function_of_the_result_may_decide_whether_it_is_stored(self, cache: ICache[Any]) -> None:
        for key, value in {"a": [1], "b": []}.items():
            assert await cache.get_or_load(key, giving(value), cache_if=bool) == value

        assert await cache.get_many(["a", "b"]) == {"a": [1]}

    async def test_jitter_only_shortens_the_ttl_and_not_beyond_its_fraction(self, cache: ICache[Any]) -> None:
        keys = [f"k{number}" for number in range(20)]
        for key in keys:
            await cache.get_or_load(key, giving(1), ttl=100_000, jitter=0.25)
        await cache.get_or_load("never", giving(1), ttl=NEVER, jitter=0.25)
        left = [await cache.ttl(key) for key in keys]

        assert all(isinstance(each, float) and 74_900 < each <= 100_000 for each in left)
        assert max(left) - min(left) > 1000  # type: ignore[type-var, operator] # floats
        assert await cache.ttl("never") is NEVER

    # -- exceptions

    async def test_an_exception_that_was_chosen_is_kept_in_place_of_a_result(
        self, cache: ICache[Any], again: ICache[Any]
    ) -> None:
        load = Failing(NotFoundError("no user", 7))
        with pytest.raises(NotFoundError):
            await cache.get_or_load("a", load, cache_exceptions={NotFoundError: 60})

        for handle in (cache, again, cache):
            with pytest.raises(NotFoundError) as caught:
                await handle.get_or_load("a", load, cache_exceptions={LookupError: 60, NotFoundError: 60})
            assert caught.value.args == ("no user", 7)
        assert load.calls == 1

    async def test_the_kept_exception_ends_with_its_own_ttl(self, cache: ICache[Any]) -> None:
        with pytest.raises(NotFoundError):
            await cache.get_or_load("a", Failing(NotFoundError()), ttl=60, cache_exceptions={NotFoundError: SHORT})
        await self.advance(2 * SHORT)

        assert await cache.get_or_load("a", giving(1), cache_exceptions={NotFoundError: SHORT}) == 1

    async def test_a_kept_exception_is_no_entry_to_anybody_else(self, cache: ICache[Any]) -> None:
        for key in ("a", "b", "n"):
            with pytest.raises(NotFoundError):
                await cache.get_or_load(key, Failing(NotFoundError()), cache_exceptions={NotFoundError: 60})

        assert await cache.lookup("a") is MISS
        assert await cache.get_many(["a", "b"]) == {}
        assert await cache.exists("a") is False
        assert await cache.ttl("a") is None
        assert [key async for key in cache.scan()] == []
        assert await cache.expire("a", 600) is False
        assert await cache.lookup("a") is MISS
        assert await cache.increment("n") == 1
        assert await cache.delete("b") is False
        assert await cache.get_or_load("a", giving("loaded")) == "loaded"
        assert await cache.get_or_load("b", giving("loaded"), cache_exceptions={LookupError: 60}) == "loaded"
        assert await cache.get_many(["a", "b", "n"]) == {"a": "loaded", "b": "loaded", "n": 1}

    async def test_a_kept_exception_is_invalidated_like_a_result(self, cache: ICache[Any]) -> None:
        chosen: Any = {NotFoundError: 60}
        for invalidate in (
            lambda: cache.delete("a"),
            lambda: cache.delete_pattern("*"),
            lambda: cache.invalidate_tags(["t"]),
            cache.clear,
        ):
            with pytest.raises(NotFoundError):
                await cache.get_or_load("a", Failing(NotFoundError()), cache_exceptions=chosen, tags=["t"])
            await invalidate()

            assert await cache.get_or_load("a", giving("found"), cache_exceptions=chosen) == "found"
            await cache.delete("a")

    async def test_an_exception_that_was_not_chosen_or_would_come_back_changed_is_not_kept(
        self, cache: ICache[Any]
    ) -> None:
        for exc in (
            PoliteError(7),
            NotFoundError(object()),
            MissingUserError("a kind of it"),
            LookupError("not chosen"),
        ):
            load = Failing(exc)
            for _ in range(2):
                with pytest.raises(type(exc)) as caught:
                    await cache.get_or_load("a", load, cache_exceptions={NotFoundError: 60, PoliteError: 60})
                assert caught.value.args == exc.args

            assert load.calls == 2
            assert await cache.lookup("a") is MISS

    # -- misuse

    async def test_an_option_that_cannot_be_used_is_refused_before_anything_is_loaded(self, cache: ICache[Any]) -> None:
        load = giving("loaded")

        for option, values in UNUSABLE.items():
            for given in values:
                with pytest.raises(CacheValueError, match=option):
                    await cache.get_or_load("a", load, **{option: given})
        assert load.calls == 0
        assert await cache.lookup("a") is MISS

    async def test_an_unknown_option_is_refused(self, cache: ICache[Any]) -> None:
        load = giving("loaded")

        with pytest.raises(TypeError, match="stale_four"):
            await cache.get_or_load("a", load, stale_four=5)  # type: ignore[call-overload]
        assert load.calls == 0
