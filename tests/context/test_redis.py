"""The Redis backend keeps the contract, names keys as documented, and never runs KEYS."""

import asyncio
import types
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

from agent_service.context.redis import RedisContextConfig, RedisContextStore
from agent_service.core.errors import ConfigurationError, ContextStoreError, RedisOperationError, RedisUnavailableError
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.state.redis import RedisStateStore
from agent_service.testing.context_contracts import ContextStoreContract
from tests.context.processes import updates_from_processes
from tests.servers.ports import free_port
from tests.servers.redis import GivenServer, RedisServer


class TestRedisContextStore(ContextStoreContract):
    expires = True

    @pytest.fixture
    async def store(self, redis_url: str) -> AsyncIterator[RedisContextStore]:
        async with RedisContextStore(url=redis_url, timeout=10) as store:
            yield store


class TestAwkwardPrefixOverAGivenClient(ContextStoreContract):
    expires = True

    @pytest.fixture
    def store(self, client: RedisClient) -> RedisContextStore:
        return RedisContextStore(client=client, prefix="a*[b]?{c}:é")


async def test_both_documented_constructors_reach_the_same_contexts(redis_url: str):
    at = urlsplit(redis_url)
    db = int(at.path.strip("/") or 0)
    stores = [
        RedisContextStore(RedisContextConfig(url=redis_url)),
        RedisContextStore({"url": redis_url, "prefix": "dynagent_ctx"}),
        RedisContextStore(types.SimpleNamespace(url=redis_url)),
        RedisContextStore(host=at.hostname, port=at.port or 6379, db=db),
        RedisContextStore(at.hostname, at.port or 6379, db),
        RedisContextStore(url=redis_url),
    ]
    await stores[0].set("session-123", {"user_name": "alice"})

    assert [await each.get("session-123") for each in stores] == [{"user_name": "alice"}] * len(stores)
    for each in stores:
        await each.aclose()


async def test_without_arguments_it_is_the_redis_of_the_settings(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    from agent_service.infrastructure.redis.factory import close_redis  # noqa: PLC0415

    with pytest.raises(ContextStoreError, match="REDIS_URL") as caught:
        await RedisContextStore().get("a")
    assert isinstance(caught.value.__cause__, RedisUnavailableError)
    await close_redis()

    from agent_service.core.settings import reset_settings  # noqa: PLC0415

    monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()
    await RedisContextStore().set("a", {"x": 1})

    assert await RedisContextStore().get("a") == {"x": 1}
    await close_redis()


async def test_the_redis_key_is_the_prefix_an_underscore_and_the_key(client: RedisClient):
    await RedisContextStore(client=client, prefix="bro").set("alice", {"name": "Alice"})
    await RedisContextStore(client=client, prefix="").set("bare", {"a": 1})
    await RedisContextStore(client=client).set(("column", "ColumnA"), {"a": 1})

    assert await client.execute("HGETALL", "bro_alice") == [b"name", b'"Alice"']
    assert await client.execute("EXISTS", "bare") == 1
    assert await client.execute("EXISTS", 'dynagent_ctx_~{"$tuple":["column","ColumnA"]}') == 1
    assert await client.execute("DBSIZE") == 3


async def test_stores_of_other_prefixes_are_out_of_sight(client: RedisClient):
    one, other = (RedisContextStore(client=client, prefix=prefix) for prefix in ("a", "a*"))
    await one.set("x", {})
    await other.set("y", {})
    await client.execute("SET", "unrelated", "1")

    assert await one.list_keys() == ["x"]
    assert await other.list_keys() == ["y"]


async def test_without_a_prefix_keys_cannot_be_listed(client: RedisClient):
    store = RedisContextStore(client=client, prefix="")
    await store.set("a", {})

    with pytest.raises(ContextStoreError, match="prefix"):
        await store.list_keys()


async def test_keys_is_never_run(client: RedisClient, redis_server: RedisServer | GivenServer):
    redis_server.cli("CONFIG", "RESETSTAT")
    store = RedisContextStore(client=client)
    await store.set_many({n: {} for n in range(2_000)})

    assert len(await store.list_keys()) == 2_000
    assert b"cmdstat_keys" not in redis_server.cli("INFO", "commandstats")


async def test_a_bulk_write_is_one_transaction(client: RedisClient):
    store = RedisContextStore(client=client)

    await store.set_many({n: {"big": [n] * 10, **{f"f{i}": i for i in range(20)}} for n in range(1_000)}, ttl=60)

    assert await store.delete_many(range(1_500)) == 1_000


async def test_a_document_may_have_more_fields_than_lua_can_unpack(client: RedisClient):
    store = RedisContextStore(client=client)
    document = {f"field{n}": n for n in range(20_000)}

    assert await store.compare_and_set("a", document, expected=None) is True
    assert await store.update("a", {}) == document


async def test_a_default_time_to_live_begins_anew_with_each_write(client: RedisClient):
    store = RedisContextStore(client=client, ttl=60)
    await store.set("a", {}, ttl=5)
    await store.update("a", {"x": 1})
    await store.set("b", {})

    assert 50_000 < await client.execute("PTTL", "dynagent_ctx_a") <= 60_000
    assert 50_000 < await client.execute("PTTL", "dynagent_ctx_b") <= 60_000


async def test_compare_and_set_gives_the_time_to_live_to_what_it_stores(client: RedisClient):
    store, bounded = RedisContextStore(client=client), RedisContextStore(client=client, ttl=60)
    left = []
    assert await store.compare_and_set("a", {"n": 1}, expected=None, ttl=20)
    left.append(await client.execute("PTTL", "dynagent_ctx_a"))
    assert await bounded.compare_and_set("a", {"n": 2}, expected={"n": 1})
    left.append(await client.execute("PTTL", "dynagent_ctx_a"))
    assert await store.compare_and_set("a", {"n": 3}, expected={"n": 2}, ttl=NEVER)
    left.append(await client.execute("PTTL", "dynagent_ctx_a"))

    assert 10_000 < left[0] <= 20_000
    assert 50_000 < left[1] <= 60_000
    assert left[2] == -1


async def test_every_failure_is_a_chained_context_store_error(client: RedisClient):
    await client.execute("SET", "dynagent_ctx_text", "no hash")
    await client.execute("HSET", "dynagent_ctx_foreign", "field", "no json")
    store = RedisContextStore(client=client)

    for call in (store.get("text"), store.update("text", {"a": 1}), store.get_many(["text"]), store.get("foreign")):
        with pytest.raises(ContextStoreError) as caught:
            await call
        assert caught.value.__cause__ is not None


async def test_an_outage_is_raised_and_shows_no_password():
    store = RedisContextStore(host="127.0.0.1", port=free_port(), password="secret")

    for call in (store.get("a"), store.set("a", {}), store.update("a", {}), store.list_keys(), store.set_many({1: {}})):
        with pytest.raises(ContextStoreError) as caught:
            await call
        assert isinstance(caught.value.__cause__, RedisOperationError)
        assert "secret" not in str(caught.value)
    await store.aclose()


async def test_updates_of_several_processes_lose_nothing(redis_url: str):
    await updates_from_processes("redis", redis_url)
    async with RedisContextStore(url=redis_url, timeout=10) as store:
        assert await store.get("shared") == {f"field{n}": n for n in range(30)}


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "http://host"},
        {"url": "redis://a", "host": "b"},
        {"url": "redis://a", "prefix": 1},
        {"url": "redis://a", "prefix": "\ud800"},
        {"url": "redis://a", "timeout": 0},
    ],
    ids=ascii,
)
def test_unusable_arguments_are_refused_at_once(arguments: dict[str, Any]):
    with pytest.raises(ConfigurationError):
        RedisContextStore(**arguments)


def test_a_config_without_a_url_is_refused():
    with pytest.raises(ConfigurationError, match="url"):
        RedisContextStore(object())


# -- clients that others made


async def test_a_client_of_redis_py_and_a_manager_are_taken_and_stay_open(redis_url: str):
    given = Redis.from_url(redis_url, max_connections=2, protocol=2)
    manager = RedisManager(redis_url, timeout=10)
    stores = [
        RedisContextStore(client=given, timeout=10),
        RedisContextStore(manager=manager),
        RedisContextStore(client=manager.client),
    ]
    await stores[0].set("a", {"x": 1})
    await asyncio.gather(*(stores[0].update("a", {f"field{n}": n}) for n in range(20)))

    found = [await each.get("a") for each in stores]
    for each in stores:
        await each.aclose()
    assert found == [{"x": 1, **{f"field{n}": n for n in range(20)}}] * 3
    assert await given.ping()
    await manager.client.ping()
    await given.aclose()
    await manager.aclose()


@pytest.mark.parametrize(
    ("client", "remedy"),
    [
        (lambda url: redis.Redis.from_url(url), "redis.asyncio"),
        (lambda url: redis.Redis.from_url(url).pipeline(), "redis.asyncio"),
        (lambda url: Redis.from_url(url, decode_responses=True), "decode_responses=False"),
        (lambda url: Redis.from_url(url, protocol=3), "protocol=2"),
        (lambda url: RedisCluster.from_url(url, protocol=3), "protocol=2"),
        (lambda url: Redis.from_url(url).pipeline(), "Pipeline"),
        (lambda url: Sentinel([("localhost", 1)]), "Sentinel"),
        (lambda url: url, "url="),
        (lambda url: object(), "object"),
        (lambda url: Redis, "redis.asyncio"),
    ],
    ids=[
        "sync",
        "sync pipeline",
        "decodes",
        "RESP3",
        "RESP3 cluster",
        "pipeline",
        "sentinel",
        "url",
        "object",
        "class",
    ],
)
def test_a_client_that_cannot_serve_is_refused_when_the_store_is_made(client: Any, remedy: str):
    given = client("redis://localhost:6379/0")

    for make in (RedisContextStore, RedisStateStore):
        with pytest.raises(ConfigurationError, match=remedy) as caught:
            make(client=given)
        assert "client" in str(caught.value)


def test_a_cluster_s_client_is_taken():
    assert isinstance(RedisContextStore(client=RedisCluster(host="localhost", protocol=2)), RedisContextStore)


def test_what_is_no_manager_is_refused_when_the_store_is_made():
    unusable: list[Any] = [object(), "redis://localhost", RedisManager(None)]
    for manager in unusable:
        with pytest.raises(ConfigurationError, match="manager"):
            RedisContextStore(manager=manager)
    with pytest.raises(ConfigurationError, match="manager"):
        RedisContextStore(url="redis://localhost", manager=RedisManager("redis://localhost"))


@pytest.mark.parametrize("written", [b" 1", b"1 ", b'{"$int":"1"}'])
async def test_a_value_that_another_program_wrote_in_its_own_way_is_compared_as_ours(
    client: RedisClient, written: bytes
):
    store = RedisContextStore(client=client)
    await client.execute("HSET", store.redis_key("a"), b"n", written, b"list", b"[1, 2]")

    assert not await store.compare_and_set("a", {"n": 2}, expected={"n": True})
    assert not await store.compare_and_set("a", {"n": 2}, expected={"n": 1, "list": [2, 1]})
    assert not await store.compare_and_set("a", {"n": 2}, expected={"n": 1, "other": None})
    assert not await store.withdraw("a", {"n": 2})
    assert await store.compare_and_set("a", {"n": 1}, expected={"list": [1, 2], "n": 1})
    await client.execute("HSET", store.redis_key("a"), b"n", written)
    assert await store.withdraw("a", {"n": 1})
    assert await store.get("a") is None

    await client.execute("HSET", store.redis_key("a"), b"n", b"\xff")
    for call in (store.compare_and_set("a", {}, expected={"n": 1}), store.withdraw("a", {"n": 1})):
        with pytest.raises(ContextStoreError, match="field b'n' of the record"):
            await call
