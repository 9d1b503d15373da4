"""Futures are ended when their time is over, by one timer."""

import asyncio
from typing import Any

import pytest

from agent_service.infrastructure.database.append.deadlines import Deadlines


def futures(count: int) -> list["asyncio.Future[Any]"]:
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


async def test_a_future_that_is_not_done_in_time_is_ended() -> None:
    deadlines, (late, done) = Deadlines(0.05), futures(2)
    deadlines.watch(late)
    deadlines.watch(done)
    done.set_result("in time")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late, 60)

    assert done.result() == "in time"
    deadlines.close()


async def test_each_has_its_own_time() -> None:
    deadlines, (first, second) = Deadlines(0.2), futures(2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    deadlines.watch(first)
    loop.call_later(0.1, deadlines.watch, second)

    await asyncio.wait([first], timeout=60)
    after_first, pending = loop.time() - started, not second.done()
    await asyncio.wait([second], timeout=60)

    assert round(after_first, 3) >= 0.2  # some loops count whole milliseconds
    assert pending
    assert round(loop.time() - started, 3) >= 0.3
    assert isinstance(first.exception(), TimeoutError)
    assert isinstance(second.exception(), TimeoutError)
    deadlines.close()


async def test_what_was_done_is_not_kept() -> None:
    deadlines, given = Deadlines(60), futures(100)
    for each in given:
        deadlines.watch(each)
        each.set_result(None)

    assert len(deadlines._waiting) == 1
    deadlines.close()


async def test_closed_it_ends_nothing() -> None:
    deadlines, (waiting,) = Deadlines(0.01), futures(1)
    deadlines.watch(waiting)
    deadlines.close()

    await asyncio.wait([waiting], timeout=0.05)

    assert not waiting.done()
