"""Whatever happens to connection or server: all is flushed before there is trust again, and no trust lasts too long."""

import asyncio
import logging
import random
import time

import pytest
import redis

from agent_service.core.urls.redis import parse_redis_url
from agent_service.infrastructure.redis.tracking.stream import InvalidationStream, TrackingState
from tests.redis.conftest import Connect, Listen
from tests.redis.listener import LATE, Listener
from tests.servers.ports import free_port
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.waiting import ticking, until

NAME = b"name=faults-invalidations"


async def loses_trust_and_flushes(listener: Listener, since: int) -> None:
    """Wait until it is trusted again; between there must have been a flush without trust."""
    await until(lambda: listener.stream.reconnects > since and listener.trusted)

    assert "flush" in listener.heard
    assert not any(listener.trusted_when_flushed)


def kill_tracking(server: RedisServer) -> None:
    (line,) = [line for line in server.cli("CLIENT", "LIST").splitlines() if NAME in line]
    server.cli("CLIENT", "KILL", "ID", line.split()[0].partition(b"=")[2])


async def test_a_killed_connection_is_flushed_at_once_and_opened_again(own_redis: RedisServer, listen: Listen):
    listener = listen(f"{own_redis.url}?client_name=faults", max_staleness=5)
    await listener.is_trusted()
    for number in range(3):
        kill_tracking(own_redis)
        await until(lambda: not listener.trusted, seconds=0.5)
        await loses_trust_and_flushes(listener, since=number)

    own_redis.cli("SET", "app:a", 1)
    listener.heard.clear()
    await listener.hears(b"app:a")


async def test_a_server_killed_and_started_again_is_followed_again(own_redis: RedisServer, listen: Listen):
    listener = listen(own_redis.url)
    await listener.is_trusted()

    own_redis.kill()
    await listener.comes_to(TrackingState.DOWN)
    assert not listener.trusted
    own_redis.restart()

    await loses_trust_and_flushes(listener, since=0)


async def test_a_server_that_is_not_there_yet_is_followed_when_it_comes(own_redis: RedisServer, listen: Listen):
    own_redis.kill()
    listener = listen(own_redis.url)
    await listener.comes_to(TrackingState.DOWN)
    assert listener.stream.supported

    own_redis.restart()

    await until(lambda: listener.trusted)


async def test_trust_in_a_server_that_hangs_runs_out_in_time(own_redis: RedisServer, listen: Listen):
    listener = listen(own_redis.url, max_staleness=0.3)
    await listener.is_trusted()

    own_redis.stop()
    async with ticking() as ticks:
        await until(lambda: not listener.trusted)
    assert ticks.seconds < 0.3 + LATE
    await listener.comes_to(TrackingState.DOWN)
    own_redis.cont()

    await loses_trust_and_flushes(listener, since=0)


async def test_a_master_that_becomes_a_replica_is_not_trusted(own_redis: RedisServer, listen: Listen):
    listener = listen(own_redis.url, max_staleness=0.3)
    await listener.is_trusted()

    own_redis.cli("REPLICAOF", "127.0.0.1", "1")
    await listener.comes_to(TrackingState.DOWN)
    assert not listener.trusted
    own_redis.cli("REPLICAOF", "NO", "ONE")

    await loses_trust_and_flushes(listener, since=0)


async def test_nothing_is_proven_in_the_middle_of_a_long_script(own_redis: RedisServer, listen: Listen):
    """Then a server answers some commands, but pushes nothing, not even what was written before the script."""
    own_redis.cli("CONFIG", "SET", "lua-time-limit", 50)
    listener = listen(own_redis.url, max_staleness=0.2)
    await listener.is_trusted()

    running = asyncio.create_task(asyncio.to_thread(own_redis.cli, "EVAL", "while true do end", 0))
    await until(lambda: not listener.trusted)
    for _ in range(50):
        await asyncio.sleep(0.01)
        assert not listener.trusted
    own_redis.cli("SCRIPT", "KILL")
    with pytest.raises(redis.ResponseError, match="killed"):
        await running

    await loses_trust_and_flushes(listener, since=0)


async def test_a_process_that_stands_still_keeps_its_stream(own_redis: RedisServer, listen: Listen):
    listener = listen(own_redis.url, max_staleness=0.2, timeout=0.2)
    await listener.is_trusted()

    for _ in range(3):
        time.sleep(0.6)  # noqa: ASYNC251 - what a handler that computes does to the loop
        await asyncio.sleep(0)
    await until(lambda: listener.trusted)

    assert listener.stream.reconnects == 0
    assert listener.stream.state is TrackingState.LIVE


async def test_a_way_that_swallows_everything_is_given_up_and_another_opened(redis_proxy: TcpProxy, listen: Listen):
    listener = listen(redis_proxy.url, max_staleness=0.3)
    await listener.is_trusted()

    redis_proxy.stall()
    async with ticking() as ticks:
        await until(lambda: not listener.trusted)
    assert ticks.seconds < 0.3 + LATE
    await listener.comes_to(TrackingState.DOWN)
    accepted = redis_proxy.accepted
    redis_proxy.resume()

    await loses_trust_and_flushes(listener, since=0)
    assert redis_proxy.accepted > accepted


async def test_a_push_that_was_held_back_reaches_no_reader_too_late(
    redis_url: str, redis_proxy: TcpProxy, connect: Connect, listen: Listen
):
    """What was written while the connection was slow is reported, or trust ends, before the bound is over."""
    outside = connect(redis_url)
    listener = listen(redis_proxy.url, max_staleness=0.3)
    await listener.is_trusted()
    for _ in range(5):
        await until(lambda: listener.trusted)
        listener.heard.clear()
        redis_proxy.delay(random.uniform(0.05, 0.4))
        async with ticking() as ticks:
            await outside.execute("SET", b"app:late", 1)
            await until(lambda: bool(listener.heard) or not listener.trusted)
        assert ticks.seconds < 0.3 + LATE
        redis_proxy.delay(0)


async def test_connections_cut_in_the_middle_of_a_push_are_flushed(
    redis_url: str, redis_proxy: TcpProxy, connect: Connect, listen: Listen
):
    outside = connect(redis_url)
    listener = listen(redis_proxy.url)
    await listener.is_trusted()

    redis_proxy.cut_reply_after(10)
    await outside.execute("SET", b"app:cut", 1)

    await loses_trust_and_flushes(listener, since=0)
    assert b"app:cut" not in listener.heard


async def test_a_server_whose_user_may_not_track_is_told_once_and_loudly(
    own_redis: RedisServer, listen: Listen, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "agent_service")
    own_redis.cli("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@all", "-client")
    listener = listen(own_redis.url.replace("redis://", "redis://reader:s3cret@"))

    await listener.comes_to(TrackingState.UNSUPPORTED)
    assert not listener.stream.supported
    assert not listener.trusted
    await asyncio.sleep(1.5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no permissions" in caplog.text
    assert "s3cret" not in caplog.text

    own_redis.cli("ACL", "SETUSER", "reader", "+client")
    await until(lambda: listener.trusted)
    assert listener.stream.supported
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_server_that_refuses_the_password_is_not_followed(own_redis: RedisServer, listen: Listen):
    own_redis.cli("CONFIG", "SET", "requirepass", "right")
    listener = listen(own_redis.url.replace("redis://", "redis://:wrong@"))

    await listener.comes_to(TrackingState.UNSUPPORTED)

    assert not listener.trusted


async def _is_served() -> bool:
    return True


async def test_pushes_of_another_server_than_the_one_written_to_are_found_out(
    own_redis: RedisServer, redis_url: str, connect: Connect
):
    """As behind an address that leads to a different server with each connection."""
    stream = InvalidationStream(
        parse_redis_url(own_redis.url),
        connect(redis_url).pipeline,
        is_served=_is_served,
        prefix="app",
        on_invalidate=lambda _: None,
        on_flush=lambda: None,
        max_staleness=0.3,
    )
    stream.start()

    await until(lambda: stream.state is TrackingState.UNSUPPORTED)

    assert stream.trusted_until == 0.0
    await stream.aclose()


async def test_a_server_that_speaks_another_protocol_is_down(listen: Listen, caplog: pytest.LogCaptureFixture):
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    listener = listen(f"redis://127.0.0.1:{port}/0")

    await listener.comes_to(TrackingState.DOWN)

    assert not listener.trusted
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await listener.stream.aclose()
    server.close()
    await server.wait_closed()


async def test_a_stream_that_is_down_does_not_keep_trying_without_a_pause(listen: Listen):
    accepted = 0

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    started = time.monotonic()
    listener = listen(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    await until(lambda: accepted >= 7)  # one of them is a command's, which finds out whether Redis is away

    assert time.monotonic() - started > (0.05 + 0.1 + 0.2 + 0.4 + 0.8) / 2
    await listener.stream.aclose()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("fault", ["stop", "kill"])
async def test_a_stream_can_be_closed_while_its_server_is_gone(fault: str, own_redis: RedisServer, listen: Listen):
    listener = listen(own_redis.url, max_staleness=0.3, timeout=0.3)
    await listener.is_trusted()
    getattr(own_redis, fault)()
    await listener.comes_to(TrackingState.DOWN)
    for pause in (0, 0.02, 0.2):
        await asyncio.sleep(pause)

    async with ticking() as ticks:
        await listener.stream.aclose()

    assert ticks.seconds < 0.2 + LATE


async def test_pushes_that_fail_while_commands_are_served_are_told_once(
    own_redis: RedisServer, connect: Connect, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "agent_service")
    client = connect(own_redis.url)
    stream = InvalidationStream(
        parse_redis_url(f"redis://127.0.0.1:{free_port()}"),  # as where a firewall lets the pool through only
        client.pipeline,
        is_served=client._is_served,
        prefix="app",
        on_invalidate=lambda _: None,
        on_flush=lambda: None,
        max_staleness=0.3,
    )
    stream.start()
    await until(lambda: "do not arrive" in caplog.text)
    await asyncio.sleep(0.5)  # some more tries
    await stream.aclose()

    assert [record.levelname for record in caplog.records] == ["WARNING"]
