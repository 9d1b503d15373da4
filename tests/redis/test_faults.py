"""What goes wrong between a client and its server: cancellation, silence, cut connections, crashes, refusals."""

import asyncio
import logging
import shutil
import time

import pytest

from agent_service.core.errors import (
    RedisCommandError,
    RedisRefusedError,
    RedisUnavailableError,
)
from agent_service.infrastructure.redis.client import RedisClient
from tests.redis.conftest import Connect
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.waiting import ticking

NOWHERE = "redis://127.0.0.1:1/0"


async def test_a_cancelled_caller_leaves_nobody_his_reply(redis_proxy: TcpProxy, connect: Connect):
    client = connect(redis_proxy.url, max_connections=1)
    await client.pipeline([("SET", b"mine", b"mine"), ("SET", b"yours", b"yours")])
    redis_proxy.stall()
    cancelled = asyncio.create_task(client.execute("GET", b"mine"))
    await asyncio.sleep(0.02)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    redis_proxy.resume()

    assert await client.execute("GET", b"yours") == b"yours"


async def test_a_caller_cancelled_in_the_middle_of_a_reply_leaves_nobody_the_rest(
    redis_proxy: TcpProxy, connect: Connect
):
    client = connect(redis_proxy.url, timeout=5, max_connections=1)
    await client.pipeline([("SET", b"mine", b"m" * 500_000), ("SET", b"yours", b"yours")])
    redis_proxy.delay(0.05)
    cancelled = asyncio.create_task(client.execute("GET", b"mine"))
    await asyncio.sleep(0.08)
    cancelled.cancel()

    assert await client.execute("GET", b"yours") == b"yours"
    with pytest.raises(asyncio.CancelledError):
        await cancelled


async def test_callers_cancelled_at_any_moment_cost_no_slot_and_mix_no_replies(redis_url: str, connect: Connect):
    client = connect(redis_url, timeout=5, max_connections=3)
    keys = [b"%d" % number for number in range(50)]
    await client.set_many({key: key for key in keys})

    async def read(key: bytes, steps: int) -> None:
        task = asyncio.create_task(client.execute("GET", key) if steps % 2 else client.get(key))
        for _ in range(steps % 13):
            await asyncio.sleep(0)
        if steps % 3:
            task.cancel()
        try:
            assert await task == key
        except asyncio.CancelledError:
            assert steps % 3

    for round_ in range(20):
        await asyncio.gather(*(read(key, number + round_) for number, key in enumerate(keys)))

    assert await asyncio.gather(*(client.execute("GET", key) for key in keys)) == keys


async def test_one_cancelled_reader_of_a_joined_read_does_not_disturb_the_others(client: RedisClient):
    await client.set_many({b"a": b"1", b"b": b"2"})
    readers = [asyncio.create_task(client.get(key)) for key in (b"a", b"a", b"b", b"b")]
    await asyncio.sleep(0)
    readers[2].cancel()

    replies = await asyncio.gather(*readers, return_exceptions=True)

    assert replies[:2] == [b"1", b"1"]
    assert isinstance(replies[2], asyncio.CancelledError)
    assert replies[3] == b"2"


async def test_a_cancellation_by_the_caller_is_not_taken_for_a_timeout(redis_proxy: TcpProxy, connect: Connect):
    client = connect(redis_proxy.url, timeout=0.3)
    await client.ping()
    redis_proxy.stall()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await client.ping()

    redis_proxy.resume()


async def test_a_server_that_hangs_costs_one_deadline_whatever_the_caller_waits_for(
    own_redis: RedisServer, connect: Connect
):
    client = connect(own_redis.url, timeout=0.3, max_connections=2)
    await client.ping()
    own_redis.stop()

    async def waited(operation: "asyncio.Future[object]") -> float:
        started = time.perf_counter()
        with pytest.raises(RedisUnavailableError, match=r"did not answer within 0.3 s"):
            await operation
        return time.perf_counter() - started

    operations = [client.execute("GET", b"a"), client.ping(), client.unlink([b"a"]), client.get(b"a"), client.get(b"b")]
    async with ticking() as ticks:
        waits = await asyncio.gather(*(waited(asyncio.ensure_future(each)) for each in operations))

    assert min(waits) >= 0.3
    assert ticks.seconds < 2 * 0.3, "one after the other"
    assert client.available is False
    own_redis.cont()
    await client.ping()
    assert client.available is True


async def test_an_unanswered_command_may_have_been_executed_and_one_never_sent_was_not(
    own_redis: RedisServer, connect: Connect
):
    client = connect(own_redis.url, timeout=0.3, max_connections=1)
    await client.ping()
    own_redis.stop()

    sent, waiting = await asyncio.gather(client.ping(), client.ping(), return_exceptions=True)

    assert isinstance(sent, RedisUnavailableError)
    assert sent.maybe_executed
    assert isinstance(waiting, RedisUnavailableError)
    assert not waiting.maybe_executed
    own_redis.cont()


async def test_a_reply_cut_in_the_middle_is_an_outage_of_that_one_command(redis_proxy: TcpProxy, connect: Connect):
    client = connect(redis_proxy.url)
    await client.execute("SET", b"a", b"x" * 1000)
    redis_proxy.cut_reply_after(500)

    with pytest.raises(RedisUnavailableError) as caught:
        await client.execute("GET", b"a")

    assert caught.value.maybe_executed
    assert await client.get(b"a") == b"x" * 1000


async def test_a_server_killed_and_started_again_is_used_again(own_redis: RedisServer, connect: Connect):
    client = connect(own_redis.url)
    await asyncio.gather(*(client.execute("SET", b"a", number) for number in range(20)))
    own_redis.kill()
    await asyncio.sleep(0.02)
    with pytest.raises(RedisUnavailableError) as caught:
        await client.ping()
    own_redis.restart()

    await asyncio.gather(*(client.ping() for _ in range(20)))

    assert not caught.value.maybe_executed
    assert await client.get(b"a") is None


async def test_dropped_idle_connections_cost_no_error(redis_proxy: TcpProxy, connect: Connect):
    client = connect(redis_proxy.url)
    await asyncio.gather(*(client.ping() for _ in range(10)))
    redis_proxy.drop()
    await asyncio.sleep(0.02)

    await asyncio.gather(*(client.ping() for _ in range(10)))


async def test_every_waiter_of_a_failed_joined_read_has_an_error_of_his_own(connect: Connect):
    client = connect(NOWHERE)

    errors = await asyncio.gather(*(client.get(b"a") for _ in range(10)), return_exceptions=True)

    assert all(isinstance(error, RedisUnavailableError) for error in errors)
    assert len({id(error) for error in errors}) == 10


async def test_nothing_is_sent_twice(redis_proxy: TcpProxy, connect: Connect):
    client = connect(redis_proxy.url)
    await client.execute("SET", b"n", 0)
    redis_proxy.cut_reply_after(0)
    with pytest.raises(RedisUnavailableError):
        await client.execute("INCR", b"n")

    assert await client.get(b"n") == b"1"


async def test_an_outage_is_logged_when_it_begins_and_when_it_is_over(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, connect: Connect
):
    caplog.set_level(logging.INFO, "agent_service")
    client = connect(own_redis.url.replace("redis://", "redis://default:s3cret@"), timeout=0.3)
    await client.ping()
    for _ in range(2):
        own_redis.kill()
        for _ in range(3):
            with pytest.raises(RedisUnavailableError):
                await client.ping()
        own_redis.restart()
        for _ in range(3):
            await client.ping()
    levels_while_it_comes_and_goes = [record.levelname for record in caplog.records]
    await asyncio.sleep(0.61)
    await client.ping()
    await client.ping()

    assert levels_while_it_comes_and_goes == ["WARNING"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "s3cret" not in caplog.text


async def test_a_full_server_refuses_writes_and_is_not_unavailable(own_redis: RedisServer, connect: Connect):
    client = connect(own_redis.url)
    await client.execute("SET", b"a", b"1")
    own_redis.cli("CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(RedisRefusedError, match="maxmemory"):
        await client.execute("SET", b"a", b"2")
    with pytest.raises(RedisRefusedError, match="maxmemory"):
        await client.pipeline([("GET", b"a"), ("SET", b"a", b"2")])

    assert await client.get(b"a") == b"1"
    assert client.available is True


async def test_a_read_only_replica_refuses_writes(own_redis: RedisServer, connect: Connect):
    client = connect(own_redis.url)
    own_redis.cli("REPLICAOF", "127.0.0.1", "1")

    with pytest.raises(RedisRefusedError, match="read only replica"):
        await client.execute("SET", b"a", 1)


async def test_a_server_that_cannot_save_refuses_writes(own_redis: RedisServer, connect: Connect):
    client = connect(own_redis.url)
    own_redis.cli("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(own_redis.home)
    own_redis.cli("BGSAVE")
    own_redis.wait_until("persistence", "rdb_last_bgsave_status:err")

    with pytest.raises(RedisRefusedError, match="MISCONF"):
        await client.execute("SET", b"a", 1)


async def test_a_command_on_the_wrong_type_is_the_callers_error(client: RedisClient):
    await client.execute("LPUSH", b"list", 1)

    with pytest.raises(RedisCommandError, match="WRONGTYPE"):
        await client.execute("INCR", b"list")


async def test_a_wrong_password_is_no_outage(own_redis: RedisServer, connect: Connect):
    own_redis.cli("CONFIG", "SET", "requirepass", "right")
    client = connect(own_redis.url.replace("redis://", "redis://:wrong@"))

    with pytest.raises(RedisCommandError, match="invalid username-password"):
        await client.ping()
