"""RedisClient against a real server."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from agent_service.core.errors import ConfigurationError, RedisCommandError, RedisUnavailableError
from agent_service.core.metrics import CacheMetrics
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import Script
from tests.redis.conftest import Connect
from tests.servers.redis import GivenServer, RedisServer


async def test_replies_come_back_as_resp2_has_them(client: RedisClient):
    replies = [
        await client.execute("SET", b"a", b"\x00\xff"),
        await client.execute("GET", b"a"),
        await client.execute(b"EXISTS", b"a"),
        await client.execute("PEXPIRE", b"a", 10_000),
        await client.execute("GET", b"missing"),
        await client.execute("HSET", b"h", "field", 1.5),
        await client.execute("HGETALL", b"h"),
    ]

    assert replies == [b"OK", b"\x00\xff", 1, 1, None, 1, [b"field", b"1.5"]]


async def test_get_gives_bytes_or_none(client: RedisClient):
    await client.execute("SET", b"a", b"1")

    assert (await client.get(b"a"), await client.get(b"missing")) == (b"1", None)


async def test_get_of_another_type_is_none_alone_and_in_company(client: RedisClient):
    await client.execute("LPUSH", b"list", 1)

    assert await client.get(b"list") is None
    assert await asyncio.gather(*(client.get(b"list") for _ in range(10))) == [None] * 10


async def test_concurrent_gets_travel_together_and_each_gets_its_own(
    client: RedisClient, redis_server: RedisServer | GivenServer
):
    await client.set_many({b"%d" % number: b"v%d" % number for number in range(100)})
    redis_server.cli("CONFIG", "RESETSTAT")

    values = await asyncio.gather(*(client.get(b"%d" % number) for number in range(100)))

    assert values == [b"v%d" % number for number in range(100)]
    assert b"cmdstat_mget:calls=2," in redis_server.cli("INFO", "commandstats")


async def test_a_thousand_tasks_never_meet_a_connection_limit(
    client: RedisClient, redis_server: RedisServer | GivenServer
):
    async def work(number: int) -> int:
        await client.execute("SET", b"key:%d" % number, number)
        return int(await client.get(b"key:%d" % number) or -1)

    assert await asyncio.gather(*(work(number) for number in range(1000))) == list(range(1000))
    assert redis_server.cli("CLIENT", "LIST").count(b"name=under-test") <= 50


async def test_get_many_keeps_order_over_many_commands(client: RedisClient):
    keys = [b"key:%d" % number for number in range(2500)]
    await client.set_many({key: key for key in keys[::2]})

    assert await client.get_many(keys) == [key if number % 2 == 0 else None for number, key in enumerate(keys)]
    assert await client.get_many([]) == []


async def test_unlink_counts_what_was_there(client: RedisClient):
    keys = [b"key:%d" % number for number in range(2500)]
    await client.set_many(dict.fromkeys(keys, b"x"))

    assert await client.unlink([*keys, b"missing", keys[0]]) == 2500
    assert await client.unlink([]) == 0


async def test_a_pipeline_gives_every_reply(client: RedisClient):
    assert await client.pipeline([("SET", b"a", 1), ("INCR", b"a"), ("GET", b"b")]) == [b"OK", 2, None]
    assert await client.pipeline([]) == []


async def test_a_failing_command_of_a_pipeline_raises_after_the_others_ran(client: RedisClient):
    with pytest.raises(RedisCommandError, match="command 2 of 3"):
        await client.pipeline([("SET", b"a", "x"), ("INCR", b"a"), ("SET", b"b", 2)])

    assert await client.get_many([b"a", b"b"]) == [b"x", b"2"]


async def test_an_atomic_pipeline_runs_as_one_transaction(client: RedisClient):
    assert await client.pipeline([("SET", b"a", 1), ("INCR", b"a")], atomic=True) == [b"OK", 2]


async def test_an_atomic_pipeline_with_a_malformed_command_runs_nothing_and_says_which(client: RedisClient):
    with pytest.raises(RedisCommandError, match=r"wrong number of arguments for 'incr'"):
        await client.pipeline([("SET", b"a", 1), ("INCR",)], atomic=True)

    assert await client.get(b"a") is None


async def test_a_script_unknown_to_the_server_is_sent_whole_once(
    client: RedisClient, redis_server: RedisServer | GivenServer
):
    script = Script("return {KEYS[1], ARGV[1]}")
    redis_server.cli("SCRIPT", "FLUSH")
    redis_server.cli("CONFIG", "RESETSTAT")

    replies = [await client.run_script(script, [b"k"], [number]) for number in range(3)]

    assert replies == [[b"k", b"0"], [b"k", b"1"], [b"k", b"2"]]
    assert b"cmdstat_eval:calls=1," in redis_server.cli("INFO", "commandstats")


async def test_scan_gives_every_key_over_many_pages(client: RedisClient):
    keys = {b"page:%d" % number for number in range(3000)}
    await client.set_many(dict.fromkeys(keys, b"x") | {b"other": b"x"})

    pages = [page async for page in client.scan(b"page:*", count=100)]

    assert len(pages) > 20
    assert {key for page in pages for key in page} == keys


async def test_every_operation_is_measured(redis_url: str):
    metrics = CacheMetrics()
    client = RedisClient(redis_url, metrics=metrics)
    await client.ping()
    await client.get_many([b"a", b"b"])
    with pytest.raises(RedisCommandError):
        await client.execute("NONSENSE")
    await client.aclose()

    assert metrics.redis_latency.count == 3


@pytest.mark.parametrize("argument", [None, True, {}, [1], bytearray(b"x"), "\ud800"])
async def test_an_argument_that_cannot_be_sent_is_the_callers_error(client: RedisClient, argument: Any):
    with pytest.raises(RedisCommandError, match="argument of 'SET'"):
        await client.execute("SET", b"a", argument)
    with pytest.raises(RedisCommandError, match="argument of 'SET'"):
        await client.pipeline([("SET", b"a", 1), ("SET", b"a", argument)])

    assert await client.get(b"a") is None


async def test_a_command_without_a_name_is_the_callers_error(client: RedisClient):
    with pytest.raises(RedisCommandError, match="needs a name"):
        await client.execute()
    with pytest.raises(RedisCommandError, match="needs a name"):
        await client.pipeline([("PING",), ()])


async def test_a_given_client_is_used_and_stays_open(redis_url: str):
    given = Redis.from_url(redis_url, protocol=2)
    client = RedisClient.over(given)
    await client.execute("SET", b"a", 1)
    await client.aclose()

    assert await given.get("a") == b"1"
    await given.aclose()


async def test_a_given_client_that_decodes_is_refused(redis_url: str):
    given = Redis.from_url(redis_url, decode_responses=True)

    with pytest.raises(ConfigurationError, match="decode_responses=False"):
        RedisClient.over(given)


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"timeout": float("nan")}, {"max_connections": 0}])
def test_limits_that_allow_nothing_are_refused(wrong: dict[str, float]):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        RedisClient("redis://localhost", **wrong)  # type: ignore[arg-type]


async def test_a_closed_client_says_so(redis_url: str):
    client = RedisClient(redis_url)
    await client.ping()
    await client.aclose()
    await client.aclose()

    with pytest.raises(RedisUnavailableError, match="was closed"):
        await client.ping()
    with pytest.raises(RedisUnavailableError, match="was closed"):
        await client.get(b"a")


async def test_closing_waits_for_running_operations(client: RedisClient):
    running = asyncio.create_task(client.execute("BLPOP", b"never", 0.1))
    await asyncio.sleep(0)

    await client.aclose()

    assert running.done()
    assert await running is None


async def test_closing_a_client_of_a_server_that_hangs_ends_in_time_without_an_error(
    own_redis: RedisServer, connect: Connect
):
    client = connect(own_redis.url, timeout=0.3)
    await client.ping()
    own_redis.stop()
    unanswered = asyncio.create_task(client.execute("SET", b"a", b"x" * 20_000_000))
    await asyncio.sleep(0.01)

    async with asyncio.timeout(60):
        await client.aclose()

    with pytest.raises(RedisUnavailableError):
        await unanswered
    own_redis.kill()


def test_a_client_belongs_to_the_loop_that_used_it_first(redis_url: str):
    client = RedisClient(redis_url)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.ping())

        with pytest.raises(RedisUnavailableError, match="another event loop"):
            second.run(client.ping())

        first.run(client.aclose())


async def test_thousands_of_operations_at_once_wait_for_their_turn_as_long_as_redis_answers(redis_url: str):
    client = RedisClient(redis_url, timeout=0.5)

    counts = await asyncio.gather(*(client.execute("INCR", b"n") for _ in range(2_000)))

    assert sorted(counts) == list(range(1, 2_001))
    assert client.available
    await client.aclose()
