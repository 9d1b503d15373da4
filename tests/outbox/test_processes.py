"""Many processes and one outbox: killed, frozen or at work at once, they lose nothing."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from tests.servers.proxy import TcpProxy
from tests.support.forked import Forked
from tests.support.outbox import NAMESPACE, rows, until_drained
from tests.support.waiting import until


@asynccontextmanager
async def worker(*arguments: str) -> AsyncIterator[Forked]:
    """A process with this one's settings; killed at the end of the block unless it ended by then."""
    with await Forked.start("tests.outbox.worker", *arguments) as process:
        yield process


async def test_a_process_killed_between_commit_and_drain_leaves_the_row_to_others(
    house: TcpProxy, others: RedisCache[object]
):
    await others.set_many({"ada": 1, "grace": 2})
    async with worker("commit", "ada", "grace") as process:
        assert await process.line() == "committed"
        process.kill()
        await process.wait()

    assert await drain_outbox() == 2
    assert await others.get_many(["ada", "grace"]) == {}


async def test_a_process_killed_while_it_drains_leaves_the_row_to_others(
    house: TcpProxy, others: RedisCache[object], monkeypatch: pytest.MonkeyPatch, redis_url: str
):
    await others.set("ada", 1)
    async with get_session() as db:
        invalidate_in(db, keys=["ada"], namespace=NAMESPACE)
    async with drainer_that_hangs(house, monkeypatch, seconds=60) as process:
        process.kill()
        await process.wait()
        house.resume()
        # PostgreSQL frees the row when it notices that the process is gone.
        await until(drained)

    assert await others.lookup("ada") is MISS


async def test_a_process_frozen_while_it_drains_keeps_its_rows_for_a_bounded_time(
    house: TcpProxy, others: RedisCache[object], monkeypatch: pytest.MonkeyPatch
):
    await others.set("ada", 1)
    async with get_session() as db:
        invalidate_in(db, keys=["ada"], namespace=NAMESPACE)
    async with drainer_that_hangs(house, monkeypatch, seconds=0.5) as process:
        process.send_signal(signal.SIGSTOP)
        house.resume()
        await until(drained)
        invalidated = await others.lookup("ada") is MISS
        process.send_signal(signal.SIGCONT)
        await process.wait()

    assert invalidated
    assert await rows() == 0


async def drained() -> bool:
    return await drain_outbox() > 0


@asynccontextmanager
async def drainer_that_hangs(house: TcpProxy, monkeypatch: pytest.MonkeyPatch, seconds: float) -> AsyncIterator[Forked]:
    """A process that has taken all rows, and waits for a Redis that does not answer."""
    house.stall()
    accepted = house.accepted

    async def has_asked() -> bool:
        return house.accepted > accepted

    with monkeypatch.context() as its_own:
        its_own.setenv("REDIS_TIMEOUT", "60")
        async with worker("take", str(seconds)) as process:
            await until(has_asked)
            yield process


async def test_processes_that_drain_at_once_lose_nothing_and_leave_nothing(house: TcpProxy, others: RedisCache[object]):
    keys = [f"k{n}" for n in range(300)]
    async with worker("drain") as first, worker("drain") as second:
        assert [await first.line(), await second.line()] == ["ready", "ready"]
        await others.set_many(dict.fromkeys(keys, 1))
        for start in range(0, len(keys), 3):
            async with get_session() as db:
                for key in keys[start : start + 3]:
                    invalidate_in(db, keys=[key], namespace=NAMESPACE)
        await until_drained()
        for process in (first, second):
            process.stdin.close()
        applied = [int(await process.line()) for process in (first, second)]
        ended = (await first.wait(), await second.wait())

    assert await others.get_many(keys) == {}
    assert sum(applied) == 300
    assert ended == (0, 0)


async def test_what_one_process_commits_is_invalidated_for_all_while_another_runs(
    house: TcpProxy, others: RedisCache[object]
):
    await others.set("ada", 1)
    async with worker("run") as process:
        assert await process.line() == "ready"
        async with get_session() as db:
            invalidate_in(db, patterns=["a*"], namespace=NAMESPACE)
        await until_drained()

    assert await others.lookup("ada") is MISS
