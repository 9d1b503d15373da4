"""LangGraph's cache of nodes, in memory and in Redis."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
import redis
from langgraph.cache.memory import InMemoryCache as TheirCache
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agent_service.core.errors import (
    BridgeError,
    CacheKeyError,
    CacheSerializationError,
    CacheValueError,
    ConfigurationError,
)
from agent_service.core.settings import reset_settings
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.factory import close_cache, get_cache
from agent_service.infrastructure.cache.interface import ICache
from agent_service.integrations.langgraph import AgentServiceCache

BESIDES = {"cmdstat_config|resetstat", "cmdstat_info", "cmdstat_ping"}
"""What is asked besides."""


@pytest.fixture(params=["memory", "redis"])
async def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ICache[Any]]:
    """Where values are kept."""
    if request.param == "redis":
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("redis_url"))
        reset_settings()
    yield await get_cache("langgraph")
    await close_cache()


@pytest.fixture
def cache(kept: ICache[Any]) -> AgentServiceCache[Any]:
    return AgentServiceCache()


async def test_values_come_back_as_langgraphs_serializer_wrote_them(cache: AgentServiceCache[Any]) -> None:
    value = {"at": datetime(2026, 12, 1, tzinfo=UTC), "id": UUID(int=1), "b": b"\x00\xff", "t": {2}, "none": None}
    pairs: dict[Any, Any] = {
        (("a",), "k"): (value, None),
        (("a",), "none"): (None, 60),
        (("b", "c"), "k"): ([1], None),
        ((), "k"): ("", 1),
    }
    await cache.aset(pairs)

    found = await cache.aget([*pairs, (("a",), "missing"), (("z",), "k")])

    assert found == {full: each for full, (each, _) in pairs.items()}
    assert await cache.aget([]) == {}
    await cache.aset({})


async def test_it_does_what_the_cache_in_memory_does(cache: AgentServiceCache[Any]) -> None:
    theirs: TheirCache[Any] = TheirCache()
    for pairs in (
        {((label, "x"), str(n)): (n, None) for label in "ab" for n in range(3)},
        {(("a", "x"), "1"): ("again", 60), (("c",), "k"): ("c", None)},
    ):
        for each in (cache, theirs):
            await each.aset(pairs)  # type: ignore[arg-type]
    wanted: Any = [((label, "x"), str(n)) for label in "abc" for n in range(3)] + [(("c",), "k"), (("a",), "0")]
    for namespaces in ([], [("c",)], [("a",)], [("a", "x"), ("none",)], None):
        for each in (cache, theirs):
            await each.aclear(namespaces)

        assert await cache.aget(wanted) == await theirs.aget(wanted), namespaces


async def test_namespaces_that_are_joined_alike_are_different_ones(cache: AgentServiceCache[Any]) -> None:
    alike: list[Any] = [
        (("a:b",), "k"),
        (("a", "b"), "k"),
        (("a",), "b:k"),
        (("a,b",), "k"),
        (('a","b',), "k"),
        ((), "k"),
    ]
    await cache.aset({each: (number, None) for number, each in enumerate(alike)})
    await cache.aclear([("a", "b")])

    assert await cache.aget(alike) == {each: number for number, each in enumerate(alike) if number != 1}


async def test_a_time_to_live_is_in_seconds(cache: AgentServiceCache[Any], kept: ICache[Any]) -> None:
    await cache.aset({(("a",), "k"): (1, 60), (("a",), "never"): (2, None), (("a",), "gone"): (3, 0)})
    lasting = {key: await kept.ttl(key) async for key in kept.scan()}

    assert len(lasting) == 2
    assert NEVER in lasting.values()
    assert any(isinstance(each, float) and 0 < each <= 60 for each in lasting.values())
    short: AgentServiceCache[Any] = AgentServiceCache(ttl=30)
    await short.aset({(("b",), "k"): (1, None)})
    assert any(
        isinstance(left, float) and left <= 30 for left in [await kept.ttl(key) async for key in kept.scan("*b*")]
    )


async def test_clearing_a_namespace_costs_the_same_whatever_it_holds(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()
    cache: AgentServiceCache[Any] = AgentServiceCache()
    with redis.Redis.from_url(redis_url) as client:

        async def commands(entries: int) -> dict[str, int]:
            await cache.aset({(("ns", str(entries)), str(n)): (n, None) for n in range(entries)})
            client.config_resetstat()
            await cache.aclear([("ns", str(entries))])
            sent: Any = client.info("commandstats")
            return {name: each["calls"] for name, each in sent.items() if name not in BESIDES}

        few, many = await commands(1), await commands(500)

    assert few == many
    assert not {"cmdstat_keys", "cmdstat_scan"} & many.keys()
    await close_cache()


async def test_what_cannot_be_read_is_a_miss(cache: AgentServiceCache[Any], kept: ICache[Any]) -> None:
    await cache.aset({(("a",), "k"): (1, None), (("a",), "l"): (2, None), (("a",), "m"): (3, None)})
    keys = sorted([key async for key in kept.scan()])
    await kept.set(keys[0], "not a pair")
    await kept.set(keys[1], ("msgpack", b"\xc1"))

    assert await cache.aget([(("a",), each) for each in "klm"]) == {(("a",), "m"): 3}


async def test_it_works_while_redis_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    reset_settings()
    cache: AgentServiceCache[Any] = AgentServiceCache()

    await cache.aset({(("a",), "k"): (1, None)})
    assert await cache.aget([(("a",), "k")]) == {(("a",), "k"): 1}
    await cache.aclear([("a",)])
    assert await cache.aget([(("a",), "k")]) == {}
    await close_cache()


async def test_synchronous_calls_work_in_threads_and_are_refused_on_the_loop(cache: AgentServiceCache[Any]) -> None:
    await cache.aset({(("a",), "k"): (1, None)})

    assert await asyncio.to_thread(cache.get, [(("a",), "k")]) == {(("a",), "k"): 1}
    await asyncio.to_thread(cache.set, {(("a",), "l"): (2, 60)})
    assert await cache.aget([(("a",), "l")]) == {(("a",), "l"): 2}
    await asyncio.to_thread(cache.clear, [("a",)])
    assert await cache.aget([(("a",), "k"), (("a",), "l")]) == {}
    calls: list[tuple[Any, Any]] = [
        (cache.get, [(("a",), "k")]),
        (cache.set, {(("a",), "k"): (1, 1)}),
        (cache.clear, None),
    ]
    for call, argument in calls:
        with pytest.raises(BridgeError):
            call(argument)


async def test_what_cannot_be_used_is_refused() -> None:
    cache: AgentServiceCache[Any] = AgentServiceCache()
    for key in (("a", "k"), (("a", 1), "k"), (("a",), 1)):
        with pytest.raises(CacheKeyError):
            await cache.aget([key])  # type: ignore[list-item]
    with pytest.raises(CacheKeyError):
        await cache.aclear(["a"])  # type: ignore[list-item]
    with pytest.raises(CacheValueError, match="ttl"):
        await cache.aset({(("a",), "k"): (1, "60")})  # type: ignore[dict-item]
    pickles = JsonPlusSerializer(pickle_fallback=True)
    for serde in (pickles, EncryptedSerializer(cast("CipherProtocol", None), pickles)):
        with pytest.raises(ConfigurationError, match="pickle"):
            AgentServiceCache(serde=serde)
    with pytest.raises(CacheSerializationError, match="type is nothing that JsonPlusSerializer knows") as caught:
        await cache.aset({(("a",), "kept"): (1, None), (("a",), "k"): (type("Secret", (), {}), None)})
    assert caught.value.__cause__ is not None
    assert await cache.aget([(("a",), "kept")]) == {}
    with pytest.raises(ConfigurationError, match="ICache"):
        AgentServiceCache({})  # type: ignore[arg-type]
