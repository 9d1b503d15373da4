"""The bound itself: what a heartbeat proves, and how stale a served copy gets while everything fails."""

import asyncio
import random
import time
from bisect import bisect_right
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest

from agent_service.core.errors import RedisOperationError
from agent_service.infrastructure.redis.client import RedisClient
from tests.redis.conftest import Connect, Listen
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.waiting import until


async def test_trust_is_given_only_for_what_was_told(
    redis_url: str, redis_proxy: TcpProxy, connect: Connect, listen: Listen
):
    """Every write answered before a heartbeat was sent must have been heard when its reply gives trust.

    What is told takes longer than an answer, so that a trust without proof shows.
    """
    max_staleness = 0.05
    redis_proxy.delay(0.01)
    listener = listen(redis_proxy.url, max_staleness=max_staleness)
    writers = connect(redis_url)
    answered: list[tuple[float, bytes]] = []
    await listener.is_trusted()
    checked = proofs = 0

    def enough() -> bool:
        return checked > 300 and proofs > 5

    async def write(writer: int) -> None:
        number = 0
        while not enough():
            number += 1
            key = b"app:%d:%d" % (writer, number)
            await writers.execute("SET", key, 1, "PX", 5_000)
            answered.append((time.monotonic(), key))

    async def check() -> None:
        nonlocal checked, proofs
        last, heard = 0.0, set[bytes]()
        while not enough():
            if (trusted_until := listener.stream.trusted_until) > last:
                proofs, last = proofs + 1, trusted_until
                heard.update(key for key in listener.heard if isinstance(key, bytes))
                listener.heard.clear()
                while checked < len(answered) and answered[checked][0] <= trusted_until - max_staleness:
                    assert answered[checked][1] in heard
                    checked += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(check())
        for writer in range(10):
            group.create_task(write(writer))


class Copies:
    """A reader that keeps its copy of one number as :class:`InvalidationStream` says it must be kept."""

    def __init__(self, client: RedisClient, key: bytes, max_staleness: float) -> None:
        self._client = client
        self._key = key
        self._copy: int | None = None
        self._wanted: object | None = None
        self.stream = client.invalidations(
            prefix="app", on_invalidate=self._invalidate, on_flush=self._drop, max_staleness=max_staleness
        )
        self.stream.add_prefix(key)

    def _invalidate(self, keys: Sequence[bytes]) -> None:
        if self._key in keys:
            self._drop()

    def _drop(self) -> None:
        self._copy = self._wanted = None

    def get(self) -> int | None:
        """The copy, where there is one that may be served."""
        return self._copy if time.monotonic() < self.stream.trusted_until else None

    async def fetch(self) -> None:
        wanted = self._wanted = object()
        value = await self._client.execute("GET", self._key)
        if self._wanted is wanted and value is not None:
            self._copy = int(value)


class Race:
    """One writer counts up in Redis while a reader serves copies; how long ago a copy was outdated is measured."""

    def __init__(self, outside: RedisClient, copies: Copies, key: bytes) -> None:
        self._outside = outside
        self._copies = copies
        self._key = key
        self._numbers: list[int] = []
        self._answered: list[float] = []
        self.served = 0
        self.most_stale = 0.0

    async def run(self, harm: Coroutine[Any, Any, None]) -> None:
        """Race while everything goes wrong, and until a copy was served after that."""
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(self._write())
            reading = group.create_task(self._read())
            await harm
            served = self.served
            await until(lambda: self.served > served)
            writing.cancel()
            reading.cancel()

    async def _write(self) -> None:
        number = 0
        while True:
            number += 1
            with suppress(RedisOperationError):  # what was not answered may not have been written
                await self._outside.execute("SET", self._key, number)
                self._numbers.append(number)
                self._answered.append(time.monotonic())
            await asyncio.sleep(random.expovariate(1 / 0.01))

    async def _read(self) -> None:
        while True:
            now = time.monotonic()
            copy = self._copies.get()
            if copy is None:
                with suppress(RedisOperationError):
                    await self._copies.fetch()
            else:
                self.served += 1
                newer = bisect_right(self._numbers, copy)
                if newer < len(self._numbers):
                    self.most_stale = max(self.most_stale, now - self._answered[newer])
            await asyncio.sleep(0.002)


async def harm(proxy: TcpProxy, server: RedisServer, enough: Callable[[], bool]) -> None:
    """Let everything go wrong, one after the other; then let it be well."""
    while not enough():
        await asyncio.sleep(random.uniform(0.1, 0.5))
        match random.randrange(7):
            case 0 | 1:
                proxy.stall()
                await asyncio.sleep(random.uniform(0.1, 1))
                proxy.resume()
            case 2:
                proxy.drop()
            case 3:
                proxy.cut_reply_after(random.randrange(40))
            case 4:
                proxy.delay(random.uniform(0, 0.2))
                await asyncio.sleep(random.uniform(0.1, 0.6))
                proxy.delay(0)
            case 5:
                server.stop()
                await asyncio.sleep(random.uniform(0.1, 0.6))
                server.cont()
            case 6:
                await asyncio.to_thread(server.restart)


async def check_bound(own_redis: RedisServer, connect: Connect, *, seconds: float, max_staleness: float) -> str:
    async with TcpProxy(own_redis.url) as proxy:
        copies = Copies(connect(proxy.url, timeout=0.3), b"app:count", max_staleness)
        copies.stream.start()
        race = Race(connect(own_redis.url, timeout=1), copies, b"app:count")
        started = time.monotonic()

        def enough() -> bool:
            return (
                time.monotonic() > started + seconds
                and race.served > 20 * seconds  # which a busy machine takes longer for
                and copies.stream.reconnects > 0
            )

        await race.run(harm(proxy, own_redis, enough))
        await copies.stream.aclose()

    assert race.most_stale <= max_staleness
    return (
        f"bound {max_staleness:g} s: {race.served} copies served, none staler than {race.most_stale:.3f} s, "
        f"{copies.stream.reconnects} reconnects"
    )


async def test_no_copy_is_ever_staler_than_the_bound(own_redis: RedisServer, connect: Connect):
    await check_bound(own_redis, connect, seconds=6, max_staleness=0.3)


@pytest.mark.faults
async def test_no_copy_is_ever_staler_than_the_bound_for_a_minute(
    own_redis: RedisServer, connect: Connect, capsys: pytest.CaptureFixture[str]
):
    told = await check_bound(own_redis, connect, seconds=60, max_staleness=0.5)

    with capsys.disabled():
        print(told)  # noqa: T201
