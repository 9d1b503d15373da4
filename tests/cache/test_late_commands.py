"""Commands that were given up for want of an answer, and arrive later all the same."""

import asyncio
from collections.abc import Callable

import pytest

from agent_service.core.breaker import BreakerState
from agent_service.infrastructure.cache.interface import MISS, Hit
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.servers.proxy import TcpProxy
from tests.support.caches import Pair, recover
from tests.support.waiting import until


async def test_a_value_that_was_deleted_meanwhile_is_not_brought_back_by_a_late_command(
    behind_proxy: Pair, redis_proxy: TcpProxy
):
    cache, outage = behind_proxy
    await cache.set("k", "first")
    let_go = redis_proxy.hold()
    assert await cache.set("k", "late")
    await cache.delete("k")
    await recover(cache, outage)
    let_go()
    await asyncio.sleep(0.1)

    assert await cache.lookup("k") is MISS


@pytest.mark.parametrize("arrives", ["before the replay", "after the replay", "its reply is lost"])
async def test_an_increment_of_unknown_outcome_counts_once(
    behind_proxy: Pair, redis_proxy: TcpProxy, client: RedisClient, arrives: str
):
    cache, outage = behind_proxy
    await cache.increment("n", 10)
    held: list[Callable[[], None]] = []
    if arrives == "its reply is lost":
        redis_proxy.cut_reply_after(0)
        assert await cache.increment("n", 5) == 5
        elsewhere: RedisCache[int] = RedisCache(client)
        assert await elsewhere.get("n") == 15
    else:
        held.append(redis_proxy.hold())
        assert await cache.increment("n", 5) == 5
    assert await cache.increment("n", 2) == 7
    if arrives == "before the replay":
        held.pop()()
        await asyncio.sleep(0.1)
    await recover(cache, outage)
    if arrives == "after the replay":
        held.pop()()
        await asyncio.sleep(0.1)

    assert await cache.get("n") == 17
    assert len(outage.journal.changes) == 0


@pytest.mark.parametrize("late", ["increment", "set"])
async def test_a_command_that_is_given_up_while_redis_recovers_is_late_for_ever(
    behind_proxy: Pair, redis_proxy: TcpProxy, late: str
):
    """Two commands get no answer, one after the other; the second is given up in the middle of the recovery."""
    cache, outage = behind_proxy
    await cache.set("k", "first")
    await cache.increment("n", 10)
    await asyncio.gather(cache.exists("a"), cache.exists("b"), cache.exists("c"))
    let_go = redis_proxy.hold()
    first = asyncio.create_task(cache.delete("found out by this one"))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(cache.increment("n", 5) if late == "increment" else cache.set("k", "late"))
    await until(lambda: outage.breaker.state is not BreakerState.CLOSED)
    while outage.breaker.state is not BreakerState.RECOVERING:
        await cache.exists("probe")
        await asyncio.sleep(0)
    let_recover = redis_proxy.hold()
    await asyncio.wait([first, second])
    let_recover()
    await recover(cache, outage)
    await cache.increment("n", 2)
    let_go()
    await asyncio.sleep(0.1)

    assert await cache.get("n") == (17 if late == "increment" else 12)
    assert await cache.lookup("k") == (Hit("first") if late == "increment" else MISS)
    assert len(outage.journal) == len(outage.journal.changes) == 0


async def test_many_increments_through_cut_replies_add_up(behind_proxy: Pair, redis_proxy: TcpProxy):
    cache, outage = behind_proxy
    wanted = 0
    for n in range(200):
        if n % 7 == 0:
            redis_proxy.cut_reply_after(n % 3)
        await cache.increment("n", n)
        wanted += n
    await recover(cache, outage)

    assert await cache.get("n") == wanted
    assert len(outage.journal) == len(outage.journal.changes) == 0
