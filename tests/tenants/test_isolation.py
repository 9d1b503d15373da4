"""Whatever a tenant or an id is called, nobody reaches anybody else."""

import asyncio
import inspect
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.tenants import (
    RedisBatch,
    RedisGeneric,
    RedisSharedState,
    RedisStateHandler,
    RedisTable,
    RedisTrigger,
    RedisUser,
)
from tests.servers.redis import RedisServer
from tests.support.depth import examples
from tests.tenants.rooms import HOSTILE, ROOMS

NAMES = st.sampled_from(HOSTILE) | st.text(alphabet=":_*?[]\\{}%a1", min_size=1, max_size=4)
CANARY = {"canary": "alive", "number": 1, "list": [1]}
REPOSITORIES = (RedisUser, RedisStateHandler, RedisTable, RedisSharedState, RedisGeneric, RedisTrigger, RedisBatch)


async def test_hostile_names_never_share_a_record(client: RedisClient):
    rooms = []
    for name in ROOMS:
        if name == "indexed user":
            continue
        for tenant, one, two in itertools.product(HOSTILE[::3], HOSTILE[1::3], HOSTILE[2::3]):
            if name != "user" or two == HOSTILE[2]:
                rooms.append((ROOMS[name](tenant, one, two), f"{name} {tenant} {one} {two}"))

    rooms = [(room, owner) for room, owner in rooms if getattr(room.repository, "user_id", "") != "*"]
    for start in range(0, len(rooms), 200):
        await asyncio.gather(*(room.put({"owner": owner}) for room, owner in rooms[start : start + 200]))

    for start in range(0, len(rooms), 200):
        some = rooms[start : start + 200]
        assert await asyncio.gather(*(room.get() for room, _ in some)) == [{"owner": owner} for _, owner in some]


@settings(max_examples=examples(15, 60), deadline=None, suppress_health_check=list(HealthCheck))
@given(tenant=NAMES, victim=NAMES, one=NAMES, two=NAMES)
async def test_no_method_of_a_tenant_touches_another_tenant(
    server: RedisServer, client: RedisClient, tenant: str, victim: str, one: str, two: str
):
    if tenant == victim:
        return
    server.cli("FLUSHALL")
    await plant(victim, one, two)
    before = await dump(client)

    for repository in REPOSITORIES:
        await call_everything(repository, tenant, one, two)

    after = await dump(client)
    assert {key: after.get(key) for key in before} == before
    server.cli("FLUSHALL")


async def plant(tenant: str, one: str, two: str) -> None:
    """Put canaries wherever the given ids lead, and where they would if a name were taken for a pattern."""
    for user in {one, "a", "b"} - {"*"}:
        await RedisUser(tenant, user, indexes=("canary",)).upsert(CANARY)
        await RedisStateHandler(tenant, user).set(two, CANARY)
        await RedisSharedState(tenant, user).set(two, CANARY)
        await RedisTable(tenant).set(two, user, CANARY)
        await RedisGeneric(tenant).set(user, CANARY)


async def call_everything(repository: Any, tenant: str, one: str, two: str) -> None:
    """Call every public method, with the ids wherever they fit."""
    values = {"pk": one, "key": one, "table": two, "name": two, "field": "canary", "value": "alive", "by": 2}
    values |= {"data": {"canary": "dead"}, "row": {"canary": "dead"}, "expected": "alive"}
    values |= {"service": two, "entity_key": one, "action": two, "identifier": one, "payload": 1, "ttl_seconds": 60}
    values |= {"start": 0, "end": 9, "claims": [], "tenant": tenant}
    takes_user = "user_id" in inspect.signature(repository).parameters
    users = [one, "*"] if repository is RedisUser else [one]
    for user in users:
        instance = repository(tenant, user) if takes_user else repository(tenant)
        for name, method in inspect.getmembers(instance, inspect.iscoroutinefunction):
            if name.startswith("_"):
                continue
            needed = [each.name for each in inspect.signature(method).parameters.values() if each.default is each.empty]
            try:
                result = await method(*(values[each] for each in needed))
            except ValueError:  # nothing to increment, no list, or the search handle
                continue
            assert "alive" not in repr(result), f"{name} read a canary"


async def dump(client: RedisClient) -> dict[bytes, bytes]:
    """Every key with its contents."""
    keys = sorted(await client.execute("KEYS", "*"))
    return dict(zip(keys, await client.pipeline([("DUMP", key) for key in keys]), strict=True))


async def test_patterns_of_the_cache_do_not_reach_the_tenants(client: RedisClient):
    manager = RedisManager(None, client=client)
    await plant("acme", "ann", "main")
    before = await dump(client)

    assert await manager.scan_keys("*") == []
    assert await manager.delete_by_pattern("*") == 0

    assert await dump(client) == before


@pytest.mark.parametrize("user_id", ["a*", "?", "[ab]", "**"])
async def test_an_id_that_looks_like_a_pattern_is_an_id(user_id: str):
    await plant("acme", "ann", "main")

    assert await RedisUser("acme", user_id).get() is None
    assert await RedisUser("acme", user_id).delete() == 0
    assert await RedisSharedState("acme", user_id).clear_all_states() == 0
    assert await RedisTable("acme").delete_all_by_pkid(user_id) == 0
