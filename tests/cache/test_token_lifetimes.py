"""Tokens outlive every entry that carries them, whichever call wrote it: one that expired first would invalidate."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.redis import GivenServer, RedisServer
from tests.support.leftovers import keys

Cache = RedisCache[Any]
LONG = 30 * 24 * 3600.0


async def loaded() -> str:
    return "loaded"


async def all_loaded(wanted: list[str]) -> dict[str, str]:
    return dict.fromkeys(wanted, "loaded")


async def set_short_and_prolong(cache: Cache, key: str, ttl: TTL) -> None:
    await cache.set(key, 1, ttl=1, tags=["t"])
    await cache.expire(key, ttl)


WRITES: dict[str, Callable[[Cache, str, TTL], Awaitable[Any]]] = {
    "set": lambda cache, key, ttl: cache.set(key, 1, ttl=ttl, tags=["t"]),
    "set without a tag": lambda cache, key, ttl: cache.set(key, 1, ttl=ttl),
    "set many": lambda cache, key, ttl: cache.set_many({key: 1, f"{key} too": 2}, ttl=ttl, tags=["t"]),
    "increment": lambda cache, key, ttl: cache.increment(key, ttl=ttl),
    "expire": set_short_and_prolong,
    "load": lambda cache, key, ttl: cache.get_or_load(key, loaded, ttl=ttl, tags=["t"]),
    "load with tags of the result": lambda cache, key, ttl: cache.get_or_load(
        key, loaded, ttl=ttl, tags=lambda _: ["t"]
    ),
    "load many": lambda cache, key, ttl: cache.get_or_load_many([key, f"{key} too"], all_loaded, ttl=ttl, tags=["t"]),
}


@pytest.fixture
async def cache(client: RedisClient) -> Cache:
    return RedisCache(client, namespace="n")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_tokens_outlive_the_entry(
    cache: Cache,
    client: RedisClient,
    redis_server: RedisServer | GivenServer,
    write: Callable[[Cache, str, TTL], Awaitable[Any]],
):
    await cache.set("made the tokens", 1, ttl=1, tags=["t"])  # with a short life
    await write(cache, "a", LONG)
    entry = await client.execute("PTTL", "agent_service:n:a")
    tokens = {token: await client.execute("PTTL", token) for token in keys(redis_server, "*%token:*")}
    needed = [token for token in tokens if write not in NO_TAGS or not token.endswith(b":t")]

    assert (LONG - 100) * 1000 < entry <= LONG * 1000
    assert needed
    assert all(tokens[token] >= 2 * (LONG - 100) * 1000 for token in needed if not token.endswith(b"*")), tokens


NO_TAGS = [WRITES["set without a tag"], WRITES["increment"]]


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_tokens_of_an_entry_that_never_expires_do_not_expire_either(
    cache: Cache,
    client: RedisClient,
    redis_server: RedisServer | GivenServer,
    write: Callable[[Cache, str, TTL], Awaitable[Any]],
):
    await cache.set("made the tokens", 1, ttl=1, tags=["t"])
    await write(cache, "never", NEVER)
    tokens = {token: await client.execute("PTTL", token) for token in keys(redis_server, "*%token:*")}
    needed = [token for token in tokens if write not in NO_TAGS or not token.endswith(b":t")]

    assert await client.execute("PTTL", "agent_service:n:never") == -1
    assert needed
    assert all(tokens[token] == -1 for token in needed if not token.endswith(b"*")), tokens


async def test_a_stale_value_is_covered_as_long_as_it_is_kept(
    cache: Cache, client: RedisClient, redis_server: RedisServer | GivenServer
):
    await cache.set("made the tokens", 1, ttl=1, tags=["t"])
    await cache.get_or_load("a", lambda: asyncio.sleep(0, 1), ttl=1, stale_for=LONG, tags=["t"])
    tokens = [await client.execute("PTTL", token) for token in keys(redis_server, "*%token:*")]

    assert await client.execute("PTTL", "agent_service:n:a") > (LONG - 100) * 1000
    assert min(tokens) > 2 * (LONG - 100) * 1000
