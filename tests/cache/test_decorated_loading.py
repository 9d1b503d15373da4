"""What ``@cached`` adds to the loading options: tags from arguments and results, conditions, and the compiled path."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from agent_service.core.errors import CacheKeyError, CacheValueError, LoadTimeoutError
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.calls.decorators import cache_invalidate, cached
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[BaseCache[Any]]:
    client = RedisClient(redis_url, timeout=5)
    cache: BaseCache[Any] = InMemoryCache() if request.param == "memory" else RedisCache(client)
    yield cache
    await cache.aclose()
    await client.aclose()


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.asked


async def test_a_tag_of_the_arguments_invalidates_the_calls_that_have_it(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, tags=["user:{user}", "all"])
    async def f(user: int, page: int = 0) -> int:
        return source()

    @cache_invalidate(cache=cache, tags=["user:{who}"])
    async def rename(who: int) -> None: ...

    for _ in range(3):
        assert [await f(1), await f(1, page=1), await f(2)] == [1, 2, 3]
    await rename(1)
    for _ in range(3):
        assert [await f(2), await f(1), await f(1, 1)] == [3, 4, 5]
    await cache.invalidate_tags(["all"])
    assert await f(2) == 6


async def test_a_tag_of_the_result_invalidates_the_calls_that_have_it(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, tags=lambda result, who: [f"team:{result['team']}", f"who:{who}"])
    async def f(who: str) -> dict[str, Any]:
        return {"team": {"ada": "red", "bob": "blue"}[who], "n": source()}

    first, second = await f("ada"), await f("bob")
    await cache.invalidate_tags(["team:red"])

    assert await f("bob") == second
    assert await f("ada") != first


async def test_a_tag_may_name_a_parameter_that_tells_no_calls_apart(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, ignore=("tenant",), tags=["tenant:{tenant}"])
    async def f(n: int, tenant: str) -> int:
        return source()

    assert await f(1, "a") == await f(1, "b") == await f(1, "b") == 1
    await cache.invalidate_tags(["tenant:b"])
    assert await f(1, "b") == 1
    await cache.invalidate_tags(["tenant:a"])
    assert await f(1, "b") == 2


async def test_a_rendered_key_may_name_a_parameter_that_tells_no_calls_apart(cache: BaseCache[Any]):
    @cached(cache=cache, key_prefix="regions", key="{region}", ignore=("region",))
    async def f(region: str) -> str:
        return region

    for _ in range(3):
        assert [await f("eu"), await f("us")] == ["eu", "us"]


async def test_a_call_that_does_not_meet_the_condition_passes_the_cache_by(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, condition=lambda n, fresh=False: not fresh)
    async def f(n: int, fresh: bool = False) -> int:
        return source()

    assert [await f(1), await f(1), await f(1, fresh=True), await f(1, True), await f(1)] == [1, 1, 2, 3, 1]


async def test_an_exception_of_a_chosen_class_is_a_result(cache: BaseCache[Any]):
    source = Source()

    class NotFound(LookupError):
        def __init__(self, key: str, hint: str = "") -> None:
            super().__init__(key, hint)
            self.key = key

    @cached(cache=cache, cache_exceptions={LookupError: 60, NotFound: 60})
    async def f(key: str) -> str:
        source()
        raise NotFound(key, "none")

    for _ in range(3):
        with pytest.raises(NotFound) as caught:
            await f("k")
        assert (caught.value.key, caught.value.args) == ("k", ("k", "none"))
    assert source.asked == 1
    assert await cache.get(f.cache_key("k")) is None
    await f.invalidate("k")
    with pytest.raises(NotFound):
        await f("k")
    assert source.asked == 2


async def test_an_exception_of_a_subclass_is_no_result_and_gives_way_to_a_stale_value(cache: BaseCache[Any]):
    source = Source()

    class Refused(ConnectionError):
        pass

    @cached(cache=cache, ttl=0.05, stale_for=60, cache_exceptions={ConnectionError: 60})
    async def f() -> int:
        if source() > 1:
            raise Refused
        return source.asked

    assert await f() == 1
    await asyncio.sleep(0.06)

    assert [await f(), await f()] == [1, 1]
    assert source.asked == 3


async def test_typed_results_are_given_stale_as_well(cache: BaseCache[Any]):
    fails = False

    @dataclass
    class User:
        name: str

    @cached(cache=cache, ttl=0.05, stale_for=60)
    async def f() -> User:
        if fails:
            raise ConnectionError
        return User("Ada")

    await f()
    fails = True
    await asyncio.sleep(0.06)

    assert await f() == User("Ada")
    assert f.cache_info() == (1, 1)


async def test_a_slow_call_is_answered_by_the_stale_value_and_the_next_one_by_the_fresh(cache: BaseCache[Any]):
    source = Source()
    finish = asyncio.Event()

    @cached(cache=cache, ttl=0.05, stale_for=60, soft_timeout=0.01)
    async def f() -> int:
        if source.asked:
            await finish.wait()
        return source()

    assert await f() == 1
    await asyncio.sleep(0.06)
    assert await f() == 1
    finish.set()
    async with asyncio.timeout(60):
        while await f() == 1:
            await asyncio.sleep(0.005)


async def test_a_hit_that_is_due_refreshes_in_the_background(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, ttl=60, refresh_at=0.001)
    async def f() -> int:
        return source()

    assert await f() == 1
    await asyncio.sleep(0.1)
    assert await f() == 1
    async with asyncio.timeout(60):
        while await f() == 1:
            await asyncio.sleep(0.005)
    assert await f() == 2


async def test_nobody_waits_longer_than_the_hard_timeout(cache: BaseCache[Any]):
    @cached(cache=cache, hard_timeout=0.05)
    async def f() -> None:
        await asyncio.Event().wait()

    with pytest.raises(LoadTimeoutError, match="hard timeout"):
        await asyncio.wait_for(f(), 60)


async def test_ttl_and_storing_may_depend_on_the_result(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, ttl=lambda result: 60 if result > 1 else 0, cache_if=lambda result: result != 3)
    async def f() -> int:
        return source()

    assert [await f() for _ in range(4)] == [1, 2, 2, 2]
    await f.invalidate()
    assert [await f() for _ in range(3)] == [3, 4, 4]


async def test_a_negative_ttl_caches_none(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache, negative_ttl=60)
    async def f() -> int | None:
        source()
        return None

    for _ in range(3):
        assert await f() is None
    assert source.asked == 1


async def test_clearing_reaches_the_compiled_path(cache: BaseCache[Any]):
    source = Source()

    @cached(cache=cache)
    async def f(n: int) -> int:
        return source()

    for wanted in (1, 2, 3):
        assert [await f(1) for _ in range(3)] == [wanted] * 3
        await cache.clear()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tags": "user:{n}"}, "tags must be several templates"),
        ({"tags": ["user:{m}"]}, "no parameter 'm'"),
        ({"tags": [5]}, "template must be a str"),
        ({"condition": 5}, "condition must be a function"),
        ({"stale_for": -1}, "stale_for"),
        ({"refresh_at": 1.5}, "refresh_at"),
        ({"jitter": -0.1}, "jitter"),
        ({"cache_exceptions": {int: 5}}, "cache_exceptions"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_where_it_is_written(options: dict[str, Any], message: str):
    with pytest.raises((CacheKeyError, CacheValueError), match=message):

        @cached(**options)
        async def f(n: int) -> None: ...


async def test_an_unknown_option_is_refused_with_those_there_are(cache: BaseCache[Any]):
    with pytest.raises(CacheValueError, match=r"unknown option 'stale'; the options are .*stale_for"):
        await cache.get_or_load("k", lambda: asyncio.sleep(0), stale=5)  # type: ignore[call-overload]
