"""Every process is seen while it lives, wherever snapshots are kept."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from agent_service.core.errors import ConfigurationError
from agent_service.core.keys import hashed_part
from agent_service.infrastructure.cache.factory import close_cache
from agent_service.infrastructure.database.connection import close_database, get_database
from agent_service.infrastructure.database.engine.measured import metrics_of
from agent_service.infrastructure.database.fleet import keep_snapshot, kept_snapshots
from agent_service.infrastructure.redis.factory import get_redis_manager
from agent_service.integrations.fastapi import AgentService
from agent_service.integrations.fleet import ProcessSnapshot, publish_fleet, read_fleet
from agent_service.integrations.fleet.publish import _keys
from agent_service.integrations.metrics.snapshot import Snapshots
from agent_service.integrations.prometheus import metrics_app
from agent_service.testing.clock import FakeClock
from tests.servers.prometheus import promtool
from tests.servers.redis import RedisServer
from tests.support.forked import together
from tests.support.outbox import configure
from tests.support.waiting import until

INTERVAL = 0.3


@pytest.fixture(params=["redis", "sqlite", "postgres"])
async def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Where snapshots are kept; closed at the end."""
    setting = "redis_url" if request.param == "redis" else "database_url"
    url = request.getfixturevalue("redis_url" if request.param == "redis" else f"{request.param}_url")
    configure(monkeypatch, **{setting: url})
    yield request.param
    await close_cache()
    await close_database()


@asynccontextmanager
async def publishing(interval: float = INTERVAL) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(publish_fleet(interval))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def seen(number: int) -> list[ProcessSnapshot]:
    """Wait until so many processes are seen."""
    found: list[ProcessSnapshot] = []

    async def there() -> bool:
        found[:] = await read_fleet()
        return len(found) == number

    await until(there)
    return found


async def test_one_reader_sees_every_process_and_one_that_died_vanishes(place: str):
    async with together(3, "tests.integrations.fleet.worker", str(INTERVAL)) as processes:
        everybody = await seen(3)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=metrics_app(fleet=True)), base_url="http://here"
        ) as asking:
            text = (await asking.get("/")).content
        os.kill(processes[0].pid, signal.SIGKILL)
        left = await seen(2)

        assert {each.pid for each in everybody} == {each.pid for each in processes}
        assert {each.pid for each in left} == {each.pid for each in processes[1:]}
    for each in everybody:
        assert each.value("cache_requests", namespace="worked", result="hit") == 1
        labels = f'namespace="worked",process="{each.process}",result="hit"'
        assert f"agent_service_cache_requests_total{{{labels}}} 1.0".encode() in text
    assert promtool("check", "metrics", stdin=text) == ""


async def test_a_process_is_shown_once_with_its_latest_snapshot(place: str):
    async with publishing():
        (first,) = await seen(1)

        async def newer() -> bool:
            latest = await read_fleet()
            assert len(latest) <= 1
            return [each for each in latest if each.taken_at > first.taken_at] != []

        await until(newer)

    assert (first.pid, first.version) == (os.getpid(), "0.1.0")


async def test_where_nobody_publishes_there_is_nobody(place: str):
    assert await read_fleet() == []


async def test_a_service_publishes_in_the_background(redis_url: str, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, redis_url=redis_url)
    service = AgentService(database=False, background=[partial(publish_fleet, INTERVAL)])
    async with service.lifespan(FastAPI()):
        (found,) = await seen(1)

    assert found.pid == os.getpid()


async def test_redis_gets_one_command_and_keeps_nothing_for_ever(own_redis: RedisServer, monkeypatch):
    configure(monkeypatch, redis_url=own_redis.url)
    of_the_script = {"time", "zrangebyscore", "hdel", "zremrangebyscore", "hset", "zadd", "pexpire"}

    def calls() -> dict[str, int]:
        lines = own_redis.cli("INFO", "commandstats").decode().splitlines()
        found = (line.removeprefix("cmdstat_").split(":calls=") for line in lines if ":calls=" in line)
        return {name: int(rest.split(",")[0]) for name, rest in found}

    async with publishing(0.01):
        await until(lambda: calls().get("evalsha", 0) >= 3)
        before = calls()
        await until(lambda: calls()["evalsha"] >= before["evalsha"] + 20)
        after = calls()
    await until(lambda: own_redis.cli("DBSIZE") == 0)
    await close_cache()

    sent = {name for name, count in after.items() if count > before.get(name, 0)} - of_the_script
    assert {each.split("|")[0] for each in sent} <= {"evalsha", "info"}  # the question itself


async def test_redis_goes_and_comes_back(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, redis_url=own_redis.url, redis_timeout="0.3")
    async with publishing(0.05) as task:
        await seen(1)
        own_redis.kill()
        await until(lambda: _unavailable())
        own_redis.restart()
        await until(_reachable)
        await seen(1)

        assert not task.done()
    await close_cache()


async def _unavailable() -> bool:
    return not (await get_redis_manager()).is_available


async def _reachable() -> bool:
    return (await get_redis_manager()).is_available


async def test_a_database_that_is_not_migrated_is_said_once_and_healed_by_the_upgrade(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    configure(monkeypatch, database_url=postgres_url)
    await get_database().downgrade("agent_service_0010")
    with caplog.at_level(logging.WARNING, "agent_service"):
        async with publishing(0.02) as task:
            await until(lambda: "cannot be shown" in caplog.text)
            tries = metrics_of("DATABASE_URL").waits
            before = tries.count
            await until(lambda: tries.count >= before + 5)
            await get_database().upgrade()
            await seen(1)

            assert not task.done()
    await close_database()

    assert caplog.text.count("cannot be shown") == 1


async def test_what_redis_denies_is_said_once_and_healed_by_a_grant(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    rights = ("+@read", "+@scripting", "+@connection", "~*", "on", ">word")
    own_redis.cli("ACL", "SETUSER", "few", *rights)
    configure(monkeypatch, redis_url=own_redis.url.replace("redis://", "redis://few:word@"))
    with caplog.at_level(logging.WARNING, "agent_service"):
        async with publishing(0.02) as task:
            await until(lambda: "cannot be shown" in caplog.text)
            errors = (await get_redis_manager()).metrics.redis_errors
            before = errors["denied"]
            await until(lambda: errors["denied"] >= before + 5)
            own_redis.cli("ACL", "SETUSER", "few", "+time", "+hset", "+hdel", "+zadd", "+zremrangebyscore", "+pexpire")
            await seen(1)

            assert not task.done()
    await close_cache()

    assert caplog.text.count("cannot be shown") == 1


async def test_the_database_forgets_what_has_expired(database_url: str, monkeypatch: pytest.MonkeyPatch):
    configure(monkeypatch, database_url=database_url)
    clock = FakeClock()
    await keep_snapshot(get_database(), "a", "first", seconds=10, clock=clock)
    clock.advance(6)
    await keep_snapshot(get_database(), "b", "second", seconds=10, clock=clock)
    both = await kept_snapshots(get_database(), clock=clock)
    clock.advance(4)
    one = await kept_snapshots(get_database(), clock=clock)
    await keep_snapshot(get_database(), "b", "third", seconds=10, clock=clock)
    clock_before = FakeClock(clock.now() - timedelta(days=1))
    rows = await kept_snapshots(get_database(), clock=clock_before)
    await close_database()

    assert (sorted(both), one, rows) == (["first", "second"], ["second"], ["third"])


async def test_what_another_version_wrote_is_left_out(place: str):
    async with publishing(0.05):
        await seen(1)
    other = Snapshots().take().to_json().replace(b'"format":1', b'"format":2')
    if place == "redis":
        values, ends = _keys("agent_service")
        client = (await get_redis_manager()).client
        await client.pipeline([("HSET", values, "other", other), ("ZADD", ends, 10**15, "other")])
    else:
        await keep_snapshot(get_database(), "other", other.decode(), seconds=60)

    assert "other" not in [each.process for each in await read_fleet()]


@pytest.mark.parametrize("interval", [0, -1, True, "5", float("nan"), float("inf"), 3601, None])
async def test_an_interval_that_cannot_be_used_is_refused(interval: Any):
    with pytest.raises(ConfigurationError, match="interval"):
        await publish_fleet(interval)


@pytest.mark.parametrize("prefix", ["agent_service", "a{b}c", "{", "}{"])
def test_the_keys_share_a_slot_of_a_cluster(prefix: str):
    values, ends = _keys(prefix)

    assert hashed_part(values) == hashed_part(ends)
