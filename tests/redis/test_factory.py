"""One manager per event loop and process."""

import asyncio
import os
import threading

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager
from tests.servers.redis import RedisServer


@pytest.fixture
def redis_setting(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("CACHE_KEY_PREFIX", "shop")
    monkeypatch.setenv("REDIS_TIMEOUT", "1.5")
    reset_settings()
    return redis_url


async def test_the_same_loop_gets_the_same_manager_until_it_is_closed(redis_setting: str):
    first, second = await asyncio.gather(get_redis_manager(), get_redis_manager())
    await first.mset({"a": "1"})
    await close_redis()
    third = await get_redis_manager()

    assert first is second
    assert third is not first
    assert await third.mget(["a"]) == ["1"]
    await close_redis()
    await close_redis()


async def test_settings_reach_the_manager(redis_setting: str):
    manager = await get_redis_manager()
    await manager.mset({"a": "1"})

    assert manager.prefix == "shop"
    assert await manager.client.get(b"shop:a") == b"1"
    await close_redis()


async def test_a_manager_that_was_closed_by_hand_is_replaced(redis_setting: str):
    manager = await get_redis_manager()
    await manager.aclose()

    assert await get_redis_manager() is not manager
    await close_redis()


async def test_without_a_url_there_is_a_manager_without_redis():
    manager = await get_redis_manager()

    assert not manager.is_configured
    await close_redis()


async def test_it_works_while_redis_is_down_and_later_finds_it(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
    own_redis.kill()
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    reset_settings()

    manager = await get_redis_manager()
    before = await manager.health_check()
    own_redis.restart()
    after = await manager.health_check()

    assert (before["ok"], after["ok"]) == (False, True)
    await close_redis()


async def test_a_bad_url_is_refused_by_name_without_its_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@host:port")
    reset_settings()

    with pytest.raises(ConfigurationError, match="Redis URL") as caught:
        await get_redis_manager()

    assert "s3cret" not in str(caught.value)


def test_each_loop_has_its_own_manager_and_closed_loops_are_forgotten(redis_setting: str):
    async def use() -> RedisManager:
        manager = await get_redis_manager()
        await manager.mset({"a": "1"})
        await manager.client.aclose()
        return manager

    first, second = asyncio.run(use()), asyncio.run(use())

    assert first is not second


def test_threads_with_loops_of_their_own_do_not_share(redis_setting: str):
    managers: list[RedisManager] = []

    async def use() -> None:
        managers.append(await get_redis_manager())
        await managers[-1].mset({"a": "1"})
        await close_redis()

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(managers)) == 8


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_forked_process_starts_with_a_manager_of_its_own(redis_setting: str):
    manager = await get_redis_manager()
    await manager.mset({"a": "parent"})

    child = os.fork()
    if not child:
        verdict = 1
        try:
            loop = asyncio.new_event_loop()
            asyncio._set_running_loop(None)
            verdict = loop.run_until_complete(_child(manager))
        finally:
            os._exit(verdict)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert await manager.mget(["a"]) == ["child"]
    await close_redis()


async def _child(inherited: RedisManager) -> int:
    manager = await get_redis_manager()
    await manager.mset({"a": "child"})
    await close_redis()
    return 0 if manager is not inherited else 2
