"""Background work that is started again."""

import asyncio
import logging

import pytest

from agent_service.core.backoff import Backoff
from agent_service.core.supervision import Supervised
from tests.support.waiting import until

QUICK = Backoff(0.001, 0.002)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="agent_service")
    return caplog


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_fails_is_started_again_and_told_once(messages: pytest.LogCaptureFixture) -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        raise LookupError("broken")

    supervised = Supervised("sweeping", work, pauses=QUICK)
    running = asyncio.create_task(supervised.run())
    await until(lambda: starts >= 10)
    failing = supervised.failing
    await cancelled(running)

    assert failing
    assert [each.getMessage() for each in messages.records] == ["sweeping failed and will be started again"]
    assert "LookupError: broken" in messages.text
    assert supervised.restarts >= 9


async def test_work_that_ends_is_started_again(messages: pytest.LogCaptureFixture) -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1

    running = asyncio.create_task(Supervised("sweeping", work, pauses=QUICK).run())
    await until(lambda: starts >= 3)
    await cancelled(running)

    assert [each.getMessage() for each in messages.records] == ["sweeping ended and will be started again"]


async def test_work_that_runs_well_again_is_told_once_and_may_fail_anew(messages: pytest.LogCaptureFixture) -> None:
    broken, well = asyncio.Event(), asyncio.Event()
    broken.set()

    async def work() -> None:
        await broken.wait()
        if well.is_set():
            broken.clear()
            well.clear()
            await broken.wait()
        raise LookupError

    supervised = Supervised("sweeping", work, pauses=QUICK, settled=0.2)
    running = asyncio.create_task(supervised.run())
    await until(lambda: supervised.restarts >= 2)
    well.set()
    await until(lambda: not supervised.failing)
    broken.set()
    await until(lambda: supervised.failing)
    await cancelled(running)

    told = "sweeping failed and will be started again"
    assert [each.getMessage() for each in messages.records] == [told, "sweeping runs again", told]


async def test_cancelling_waits_for_the_work_to_end() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    running = asyncio.create_task(Supervised("sweeping", work).run())
    await begun.wait()
    await cancelled(running)

    assert ended.is_set()


async def test_work_that_cancels_itself_is_started_again() -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    running = asyncio.create_task(Supervised("sweeping", work, pauses=QUICK).run())
    await until(lambda: starts >= 3)
    await cancelled(running)
