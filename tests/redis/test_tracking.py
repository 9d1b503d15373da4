"""What a stream of invalidations reports and promises, on a server that works."""

import asyncio
import logging
import time
from collections.abc import Sequence

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.tracking.stream import InvalidationStream, TrackingState
from tests.redis.conftest import Connect, Listen
from tests.redis.listener import Listener
from tests.servers.proxy import TcpProxy
from tests.servers.redis import GivenServer, RedisServer
from tests.support.waiting import until

AnyServer = RedisServer | GivenServer


async def test_writes_of_this_client_and_of_others_are_told(redis_url: str, redis_server: AnyServer, connect: Connect):
    client = connect(redis_url)
    listener = Listener(client)
    listener.stream.start()
    await listener.is_trusted()

    await client.execute("SET", b"app:mine", 1)
    await listener.hears(b"app:mine")
    redis_server.cli("SET", "app:theirs", 1)
    await listener.hears(b"app:theirs")
    redis_server.cli("HSET", "app:hash", "field", 1)
    await listener.hears(b"app:hash")
    await listener.stream.aclose()


async def test_changes_of_life_time_and_deletions_are_told(redis_url: str, redis_server: AnyServer, listen: Listen):
    redis_server.cli("MSET", "app:a", 1, "app:b", 2, "app:c", 3)
    listener = listen(redis_url)
    await listener.is_trusted()

    redis_server.cli("PEXPIRE", "app:a", 60_000)
    redis_server.cli("PERSIST", "app:a")
    await listener.hears(b"app:a", b"app:a")
    redis_server.cli("UNLINK", "app:a", "app:missing")
    await listener.hears(b"app:a")
    redis_server.cli("DEL", "app:b")
    await listener.hears(b"app:b")
    redis_server.cli("EVAL", "return redis.call('GETDEL', KEYS[1])", 1, "app:c")
    await listener.hears(b"app:c")


async def test_an_expired_key_is_told_when_the_server_removes_it(
    redis_url: str, redis_server: AnyServer, listen: Listen
):
    listener = listen(redis_url)
    await listener.is_trusted()

    redis_server.cli("SET", "app:short", 1, "PX", 20)
    await listener.hears(b"app:short")
    await listener.hears(b"app:short")

    assert redis_server.cli("EXISTS", "app:short") == 0


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
async def test_a_flushed_server_flushes_and_trust_goes_on(
    command: str, redis_url: str, redis_server: AnyServer, listen: Listen
):
    listener = listen(redis_url)
    await listener.is_trusted()

    redis_server.cli(command)

    await listener.hears("flush")
    assert listener.trusted
    assert listener.stream.state is TrackingState.LIVE


async def test_keys_of_other_prefixes_are_not_told(redis_url: str, redis_server: AnyServer, listen: Listen):
    listener = listen(redis_url, b"app:a:", b"app:b:")
    await listener.is_trusted()

    redis_server.cli("MSET", "app:c:1", 1, "app:a:1", 1, "app:ab", 1)
    redis_server.cli("SET", "app:b:1", 1)

    await listener.hears(b"app:a:1", b"app:b:1")


async def test_keys_are_told_in_the_order_in_which_they_were_written(
    redis_url: str, redis_server: AnyServer, listen: Listen
):
    listener = listen(redis_url)
    await listener.is_trusted()
    keys = [b"app:%d" % number for number in range(500)]

    for key in keys:
        redis_server.cli("SET", key, 1)

    await listener.hears(*keys)
    assert listener.stream.invalidations >= len(keys)


async def test_there_is_no_trust_before_the_start_and_none_after_the_end(redis_url: str, connect: Connect):
    listener = Listener(connect(redis_url))
    assert not listener.trusted

    listener.stream.start()
    await listener.is_trusted()
    await listener.stream.aclose()

    assert not listener.trusted
    assert listener.stream.state is TrackingState.CLOSED


async def test_a_closed_stream_does_not_begin_again(redis_url: str, connect: Connect):
    listener = Listener(connect(redis_url))
    await listener.stream.aclose()

    listener.stream.start()
    await asyncio.sleep(0.05)

    assert listener.stream.state is TrackingState.CLOSED
    assert not listener.heard


async def test_a_stream_that_never_began_can_be_closed(redis_url: str, connect: Connect):
    listener = Listener(connect(redis_url))

    await listener.stream.aclose()

    assert listener.stream.state is TrackingState.CLOSED


async def test_starting_twice_opens_one_connection(redis_url: str, redis_server: AnyServer, listen: Listen):
    listener = listen(f"{redis_url}?client_name=twice")
    listener.stream.start()
    await listener.is_trusted()

    assert redis_server.cli("CLIENT", "LIST").count(b"name=twice-invalidations") == 1


async def test_after_the_end_no_connection_and_no_lasting_key_is_left(
    redis_url: str, redis_server: AnyServer, connect: Connect
):
    listener = Listener(connect(f"{redis_url}?client_name=ended"))
    listener.stream.start()
    await until(lambda: listener.trusted)
    await listener.stream.aclose()

    keys = redis_server.cli("KEYS", "*")
    assert keys
    assert all(redis_server.cli("PTTL", key) > 0 for key in keys)
    await until(lambda: b"name=ended-invalidations" not in redis_server.cli("CLIENT", "LIST"))


async def test_a_stream_closed_at_any_moment_of_its_start_leaves_nothing(redis_url: str, connect: Connect):
    client = connect(redis_url)
    for steps in range(40):
        listener = Listener(client)
        listener.stream.start()
        for _ in range(steps):
            await asyncio.sleep(0)
        await listener.stream.aclose()
        assert listener.stream.trusted_until == 0.0


async def test_all_is_flushed_before_there_is_trust(redis_url: str, listen: Listen):
    listener = listen(redis_url)
    await until(lambda: listener.trusted)

    assert listener.heard
    assert set(listener.heard) == {"flush"}
    assert not any(listener.trusted_when_flushed)


async def test_trust_is_renewed_long_before_it_runs_out(redis_url: str, listen: Listen):
    listener = listen(redis_url, max_staleness=3)  # with room for a machine that has other work, too
    await listener.is_trusted()

    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert listener.trusted
        assert listener.stream.trusted_until <= time.monotonic() + 3
        await asyncio.sleep(0.005)


async def test_the_time_an_answer_takes_is_not_trusted_twice(redis_proxy: TcpProxy, listen: Listen):
    redis_proxy.delay(0.2)
    listener = listen(redis_proxy.url)
    await listener.is_trusted()

    for _ in range(3):
        before = listener.stream.trusted_until
        while listener.stream.trusted_until == before:
            await asyncio.sleep(0.002)
        assert listener.stream.trusted_until - time.monotonic() <= 1 - 0.2


async def test_a_prefix_can_be_added_while_it_runs(redis_url: str, redis_server: AnyServer, listen: Listen):
    listener = listen(redis_url, b"app:a:")
    await listener.is_trusted()

    listener.stream.add_prefix(b"app:b:")
    assert not listener.trusted
    await until(lambda: listener.trusted)
    redis_server.cli("SET", "app:b:1", 1)
    redis_server.cli("SET", "app:a:1", 1)

    await listener.hears("flush", b"app:b:1", b"app:a:1")
    assert listener.stream.reconnects == 0


async def test_a_prefix_added_while_a_heartbeat_is_on_its_way_is_watched_before_there_is_trust(
    redis_server: AnyServer, redis_proxy: TcpProxy, listen: Listen
):
    redis_proxy.delay(0.02)  # so that most of the time a heartbeat is on its way
    listener = listen(redis_proxy.url, b"app:first:", max_staleness=0.1)
    for number in range(10):
        await listener.is_trusted()
        await asyncio.sleep(0.007 * number)

        listener.stream.add_prefix(b"app:%d:" % number)
        await until(lambda: listener.trusted)
        assert listener.heard == ["flush"]
        redis_server.cli("SET", f"app:{number}:key", 1)

        await listener.hears("flush", b"app:%d:key" % number)


async def test_a_prefix_that_is_watched_already_changes_nothing(redis_url: str, listen: Listen):
    listener = listen(redis_url, b"app:a:")
    await listener.is_trusted()

    listener.stream.add_prefix(b"app:a:")

    assert listener.trusted


async def test_all_of_a_prefix_may_be_watched_bookkeeping_included(redis_url: str, listen: Listen, connect: Connect):
    early, late = listen(redis_url, b"app:"), listen(redis_url, b"other:")
    await late.is_trusted()
    late.stream.add_prefix(b"app:")
    await early.is_trusted()
    await late.is_trusted()

    await connect(redis_url).execute("SET", "app:a", 1)

    await early.hears(b"app:a")
    await late.hears(b"app:a")


@pytest.mark.parametrize("prefix", [b"app:a:b", b"app:", b"", b"app:%probe:x"])
async def test_prefixes_that_overlap_are_refused(prefix: bytes, redis_url: str, connect: Connect):
    listener = Listener(connect(redis_url), b"app:a:")

    with pytest.raises(ConfigurationError, match="overlaps"):
        listener.stream.add_prefix(prefix)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
async def test_a_bound_that_is_none_is_refused(seconds: float, redis_url: str, connect: Connect):
    with pytest.raises(ConfigurationError, match="max_staleness"):
        Listener(connect(redis_url), max_staleness=seconds)


async def test_a_client_that_was_given_cannot_be_followed(client: RedisClient):
    with pytest.raises(ConfigurationError, match="URL"):
        Listener(RedisClient.over(client.raw))


async def test_a_callback_that_fails_costs_the_connection_and_is_logged(
    redis_url: str, redis_server: AnyServer, connect: Connect, caplog: pytest.LogCaptureFixture
):
    flushes = 0

    def fail(keys: Sequence[bytes]) -> None:
        if b"app:bad" in keys:
            raise ValueError("a bug in the callback")

    def flush() -> None:
        nonlocal flushes
        flushes += 1

    stream: InvalidationStream = connect(redis_url).invalidations(prefix="app", on_invalidate=fail, on_flush=flush)
    stream.add_prefix(b"app:")
    stream.start()
    await until(lambda: stream.trusted_until > 0)
    before = flushes

    redis_server.cli("SET", "app:bad", 1)
    await until(lambda: stream.reconnects == 1)
    await stream.aclose()

    assert flushes >= before + 2
    assert [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR] == [True]
