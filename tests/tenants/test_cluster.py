"""The repositories on a cluster: each script's keys share a slot, and scans see every primary."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.tenants import RedisGeneric, RedisSharedState, RedisTable, RedisUser
from tests.tenants.rooms import ROOMS


@pytest.fixture(autouse=True)
async def house(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("REDIS_URL", cluster_url)
    monkeypatch.setenv("REDIS_TIMEOUT", "10")
    reset_settings()
    yield
    await close_redis()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_every_repository_works_on_a_cluster():
    for tenant in ("acme", "other", "{braces}"):
        for number, make in enumerate(ROOMS.values()):
            room = make(tenant, f"ann {number}", "main")
            await room.upsert({"a": 1, "email": f"{number}@x"})
            await room.append_to_list("list", number)
            assert await room.increment_field("a") == 2
            assert await room.compare_and_set("a", 2, 3)
            assert await room.get() == {"a": 3, "email": f"{number}@x", "list": [number]}
        await RedisTable(tenant).set("second", "ann 3", {})
        await RedisGeneric(tenant).set("key", [tenant])

        assert await RedisUser.search(tenant, indexes=("email",)).find_by_field("email", "1@x") is not None
        assert await RedisUser.search(tenant).find_by_field("email", "0@x") is not None
        assert await RedisUser.search(tenant).find_by_field("email", "none") is None
        assert await RedisTable(tenant).find_by_field("main", "a", 3) is not None
        assert await RedisSharedState(tenant, "ann 4").list_states() == ["main"]
        assert await RedisSharedState(tenant, "ann 4").clear_all_states() == 1
        assert await RedisTable(tenant).delete_all_by_pkid("ann 3") == 2
        assert await RedisGeneric(tenant).get("key") == [tenant]
