"""Notifications by a stream: every entry is followed by a call, on every topology and after every outage."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.tracking.notifications import StreamNotifications
from tests.redis.conftest import Connect
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.servers.sentinels import running_sentinels

Hear = Callable[[RedisClient, bytes], "Heard"]


class Heard:
    """What one subscriber hears."""

    def __init__(self, client: RedisClient, key: bytes) -> None:
        self.calls = 0
        self.notifications: StreamNotifications = client.notifications(key, self._hear)

    def _hear(self) -> None:
        self.calls += 1

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that"
            await asyncio.sleep(0.002)

    async def live(self) -> None:
        await self.until(lambda: self.notifications.live)

    async def called_after(self, calls: int) -> None:
        await self.until(lambda: self.calls > calls)


@pytest.fixture
async def hear() -> AsyncIterator[Hear]:
    """Makes started subscribers, and closes them at the end of the test."""
    made: list[Heard] = []

    def make(client: RedisClient, key: bytes = b"stream") -> Heard:
        heard = Heard(client, key)
        heard.notifications.start()
        made.append(heard)
        return heard

    yield make
    for each in made:
        await each.notifications.aclose()
        await each.notifications.aclose()


async def test_each_entry_is_followed_by_a_call(client: RedisClient, hear: Hear):
    heard = hear(client, b"stream")
    await heard.live()

    for _ in range(20):
        before = heard.calls
        await client.execute("XADD", "stream", "MAXLEN", 1, "*", "at", 1)
        await heard.called_after(before)


async def test_what_was_added_before_it_listens_needs_no_call_but_the_first(client: RedisClient, hear: Hear):
    await client.execute("XADD", "stream", "*", "at", 1)
    heard = hear(client, b"stream")
    await heard.live()
    first = heard.calls
    await client.execute("XADD", "stream", "*", "at", 1)
    await heard.called_after(first)

    assert (first, heard.calls) == (1, 2)


async def test_a_stream_that_was_deleted_is_heard_again_if_its_ids_go_on_growing(client: RedisClient, hear: Hear):
    heard = hear(client, b"stream")
    await heard.live()
    for number in range(1, 20):
        before = heard.calls
        await client.execute("XADD", "stream", f"{number}-1", "at", 1)
        await heard.called_after(before)
        await client.execute("DEL", "stream")


async def test_a_cluster_and_sentinels_make_no_difference(
    connect: Connect, hear: Hear, cluster_url: str, own_redis: RedisServer
):
    with running_sentinels(own_redis, service="main") as sentinels:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        for url in (cluster_url, f"redis+sentinel://{hosts}/main"):
            client = connect(url, timeout=10)
            for key in (b"a", b"b", b"c", b"{trigger}"):  # of different slots
                heard = hear(client, key)
                await heard.live()
                before = heard.calls
                await client.execute("XADD", key, "*", "at", 1)
                await heard.called_after(before)


async def test_what_is_added_while_the_connection_is_lost_is_heard_of_afterwards(
    connect: Connect, hear: Hear, own_redis: RedisServer
):
    async with TcpProxy(own_redis.url) as proxy:
        heard = hear(connect(proxy.url), b"stream")
        await heard.live()
        for _ in range(3):
            proxy.stall()
            proxy.drop()
            await heard.until(lambda: not heard.notifications.live)
            own_redis.cli("XADD", "stream", "*", "at", 1)
            before = heard.calls
            proxy.resume()
            await heard.live()
            assert heard.calls > before


async def test_losing_and_regaining_the_connection_are_calls_too(connect: Connect, hear: Hear, own_redis: RedisServer):
    heard = hear(connect(own_redis.url), b"stream")
    await heard.live()
    before = heard.calls
    own_redis.kill()
    await heard.until(lambda: not heard.notifications.live)
    lost = heard.calls
    own_redis.restart()
    await heard.live()

    assert (lost - before, heard.calls - lost) == (1, 1)


async def test_a_lost_connection_is_not_called_a_refusal(
    connect: Connect, hear: Hear, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "agent_service")
    heard = hear(connect(own_redis.url), b"stream")
    await heard.live()
    own_redis.kill()
    await heard.until(lambda: not heard.notifications.live)
    own_redis.restart()
    await heard.live()

    assert "refuses to notify" not in caplog.text
    assert "stream again" not in caplog.text


async def test_a_network_that_falls_silent_is_noticed(
    connect: Connect, hear: Hear, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent_service.infrastructure.redis.tracking.notifications._BLOCK", 0.1)
    async with TcpProxy(own_redis.url) as proxy:
        heard = hear(connect(proxy.url, timeout=0.5), b"stream")
        await heard.live()
        release = proxy.hold()
        await heard.until(lambda: not heard.notifications.live)
        await heard.live()
        before = heard.calls
        own_redis.cli("XADD", "stream", "*", "at", 1)
        await heard.called_after(before)
        release()


async def test_a_refusal_is_said_once_and_so_is_its_end(
    client: RedisClient, hear: Hear, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("agent_service.infrastructure.redis.tracking.notifications._REFUSED_PAUSES", (0.01, 0.01))
    caplog.set_level(logging.INFO, "agent_service")
    await client.execute("SET", "stream", "no stream")
    heard = hear(client, b"stream")
    await heard.until(lambda: "WRONGTYPE" in caplog.text)
    await asyncio.sleep(0.1)  # several more refusals
    await client.execute("DEL", "stream")
    await heard.live()

    assert caplog.text.count("refuses to notify") == 1
    assert caplog.text.count("stream again") == 1


async def test_a_client_that_was_given_has_no_address_to_listen_at(client: RedisClient):
    with pytest.raises(ConfigurationError, match="made from a URL"):
        RedisClient.over(client.raw).notifications(b"stream", lambda: None)
