"""Context variables that a load may see tell calls apart: no context gets what was made for another."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest

from agent_service.core.errors import CacheKeyError
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.calls.decorators import cache_invalidate, cached
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.support.caches import make_fallback

tenant: contextvars.ContextVar[Any] = contextvars.ContextVar("tenant")


@contextmanager
def of(value: Any) -> Iterator[None]:
    token = tenant.set(value)
    try:
        yield
    finally:
        tenant.reset(token)


@pytest.fixture(params=["memory", "redis", "fallback", "tiered"])
async def cache(request: pytest.FixtureRequest, client: RedisClient) -> AsyncIterator[BaseCache[Any]]:
    fallback, outage = make_fallback(client)
    feed = NearFeed(client)
    caches: dict[str, Callable[[], BaseCache[Any]]] = {
        "memory": lambda: InMemoryCache(),
        "redis": lambda: RedisCache(client),
        "fallback": lambda: fallback,
        "tiered": lambda: TieredCache(fallback, feed),
    }
    cache = caches[request.param]()
    yield cache
    await cache.aclose()
    await feed.aclose()
    await outage.aclose()


class Counted:
    """Loads that say whose they are, and how many there were."""

    def __init__(self) -> None:
        self.calls = 0

    async def load(self) -> tuple[Any, int]:
        self.calls += 1
        seen = tenant.get("nobody")
        await asyncio.sleep(0.001)
        return seen, self.calls


FORMS: dict[str, dict[str, Any]] = {
    "digest": {},
    "constant": {"include_args": False},
    "template": {"key": "{n}", "key_prefix": "of-template"},
    "function": {"key": lambda n: str(n), "key_prefix": "of-function"},
    "ahead": {"refresh_at": 0.0001},
    "stale": {"stale_for": 60, "soft_timeout": 0},
    "distributed": {"lock": "distributed"},
}


@pytest.mark.parametrize("form", FORMS)
async def test_no_tenant_gets_a_result_of_another(cache: BaseCache[Any], form: str):
    source = Counted()

    @cached(context=[tenant], cache=cache, **FORMS[form])
    async def get(n: int) -> tuple[Any, int]:
        return await source.load()

    for _ in range(3):
        for each in ("a", "b", None, 1, True, "1"):
            with of(each):
                seen = (await get(7))[0]
                assert (type(seen), seen) == (type(each), each)
    assert (await get(7))[0] == "nobody"
    if form not in ("ahead", "stale"):
        assert source.calls == 7


async def test_tenants_who_ask_at_the_same_time_share_no_load(cache: BaseCache[Any]):
    source = Counted()

    @cached(context=[tenant], cache=cache)
    async def get(n: int) -> tuple[Any, int]:
        return await source.load()

    async def ask(name: str) -> Any:
        with of(name):
            return (await get(1))[0]

    names = ["a", "b"] * 20

    assert await asyncio.gather(*map(ask, names)) == names
    assert source.calls == 2


async def test_a_default_of_the_variable_is_a_value():
    language: contextvars.ContextVar[str] = contextvars.ContextVar("language", default="en")
    calls = []

    @cached(context=[language], cache=InMemoryCache())
    async def greet() -> str:
        calls.append(language.get())
        return language.get()

    assert await greet() == "en"
    language.set("en")
    assert await greet() == "en"
    language.set("de")
    assert await greet() == "de"
    assert calls == ["en", "de"]


@pytest.mark.parametrize("form", ["digest", "template", "function"])
async def test_what_a_decorated_function_offers_means_the_call_in_this_context(cache: BaseCache[Any], form: str):
    source = Counted()
    options: dict[str, Any] = {"key": lambda self, n: str(n)} if form == "function" else {}

    class Service:
        def __cache_key__(self) -> str:
            return "service"

        @cached(context=[tenant], cache=cache, **options)
        async def get(self, n: int) -> tuple[Any, int]:
            return await source.load()

    service = Service()
    with of("a"):
        first, key = await service.get(1), service.get.cache_key(1)
    with of("b"):
        second = await service.get(1)
        assert service.get.cache_key(1) != key
        assert await service.get.invalidate(1)
        assert (await service.get(1))[1] == 3
        assert await service.get.refresh(1) == ("b", 4)
    with of("a"):
        assert await service.get(1) == first == ("a", 1)
    assert second == ("b", 2)


@pytest.mark.parametrize("pattern", [True, False])
async def test_an_invalidation_by_template_reaches_every_context(cache: BaseCache[Any], pattern: bool):
    source = Counted()
    prefix = f"everywhere{pattern}"

    @cached(context=[tenant], key="{user_id}", key_prefix=prefix, cache=cache)
    async def get(user_id: str) -> tuple[Any, int]:
        return await source.load()

    @cache_invalidate(
        f"{prefix}:get:{{user_id}}*" if pattern else "",
        keys=() if pattern else [f"{prefix}:get:{{user_id}}"],
        cache=cache,
    )
    async def change(user_id: str) -> None: ...

    async def everybody(user_id: str) -> list[int]:
        numbers = []
        for name in ("a", "b"):
            with of(name):
                numbers.append((await get(user_id))[1])
        return numbers

    assert await everybody("u*1") == [1, 2]
    assert await everybody("u21") == [3, 4]
    await change("u*1")

    assert await everybody("u*1") == [5, 6]
    assert await everybody("u21") == [3, 4]


async def test_a_value_without_identity_is_refused_with_the_remedy():
    @cached(context=[tenant], cache=InMemoryCache())
    async def get(n: int) -> int:
        return n

    with of(object()), pytest.raises(CacheKeyError, match=r"context variable 'tenant'.*ignore=\[tenant\]"):
        await get(1)


async def test_a_variable_may_be_said_not_to_tell_calls_apart():
    trace: contextvars.ContextVar[object] = contextvars.ContextVar("trace")
    calls = []

    @cached(context=[tenant, trace], ignore=[trace], cache=InMemoryCache())
    async def get(n: int) -> int:
        calls.append(trace.get())
        return n

    for _ in range(3):
        trace.set(object())
        assert await get(1) == 1
    assert len(calls) == 1

    with pytest.raises(CacheKeyError, match="trace"):
        cached(context=[tenant], ignore=[trace])(get.__wrapped__)


@dataclass
class Row:
    owner: str


async def test_get_or_load_gives_a_value_only_where_the_context_is_the_same(cache: BaseCache[Any]):
    calls = []

    async def load() -> Row:
        calls.append(tenant.get(None))
        await asyncio.sleep(0.001)
        return Row(tenant.get("nobody"))

    async def ask(name: str) -> Any:
        with of(name):
            return await cache.get_or_load("k", load, context=[tenant])

    for name in ("a", "a", "b", "b", "a"):
        assert await ask(name) == {"owner": name}
    names = ["a", "b"] * 10
    assert await asyncio.gather(*map(ask, names)) == [{"owner": each} for each in names]
    assert await cache.get("k") is None
    assert await cache.get_many(["k"]) == {}
    calls.clear()
    await ask("c")
    await ask("c")
    assert calls == ["c"]
    await cache.delete("k")
    await ask("c")
    assert calls == ["c", "c"]
    assert dict(cast("Any", await cache.get_or_load("k", load))) == {"owner": "nobody"}
    await cache.set("k", "for all")
    assert await ask("c") == "for all"


async def test_neither_failures_nor_stale_values_cross_contexts(cache: BaseCache[Any]):
    async def fail() -> Any:
        raise LookupError(tenant.get())

    async def give() -> Any:
        return tenant.get()

    async def ask(name: str, load: Callable[[], Awaitable[Any]], **options: Any) -> Any:
        with of(name):
            return await cache.get_or_load("k", load, context=[tenant], **options)

    for options in ({"failure_backoff": 60}, {"cache_exceptions": {LookupError: 60}}):
        await cache.delete("k")
        for _ in range(2):
            with pytest.raises(LookupError, match="a"):
                await ask("a", fail, **options)
        assert await ask("b", give, **options) == "b"

    await cache.delete("k")
    assert await ask("a", give, ttl=0.02, stale_for=60) == "a"
    await asyncio.sleep(0.05)
    with pytest.raises(LookupError, match="b"):
        await ask("b", fail, stale_for=60)
    assert await ask("a", fail, stale_for=60) == "a"


async def test_a_load_in_the_background_sees_the_context_of_who_asked(cache: BaseCache[Any]):
    seen = asyncio.Queue[str]()

    async def give() -> Any:
        seen.put_nowait(tenant.get())
        return tenant.get()

    async def ask(name: str) -> Any:
        with of(name):
            return await cache.get_or_load("k", give, context=[tenant], refresh_at=0.0001)

    assert await ask("a") == "a"
    assert await seen.get() == "a"
    await asyncio.sleep(0.05)
    assert await ask("a") == "a"

    async with asyncio.timeout(60):
        assert await seen.get() == "a"
    assert await ask("b") == "b"


async def test_an_invalidation_in_a_cache_that_is_given_reaches_what_its_namespace_keeps():
    source = Counted()

    @cached(context=[tenant], key="{user_id}", key_prefix="by-namespace", namespace="given")
    async def get(user_id: str) -> tuple[Any, int]:
        return await source.load()

    @cache_invalidate(keys=["by-namespace:get:{user_id}"], cache=await open_cache("given"))
    async def change(user_id: str) -> None: ...

    with of("a"):
        assert await get("u") == await get("u") == ("a", 1)
        await change("u")
        assert await get("u") == ("a", 2)
