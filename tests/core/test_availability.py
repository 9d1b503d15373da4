"""One line when an outage begins and one when it is over, whoever reports it."""

import asyncio
import gc
import logging

import pytest

from agent_service.core.availability import Availability, availability_of
from tests.support.waiting import until

LOG = logging.getLogger("agent_service.redis")


@pytest.fixture(autouse=True)
def everything_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent_service")


async def test_many_failures_and_answers_are_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    server = Availability("Redis at here", LOG, quiet=0.02)

    for number in range(100):
        server.failed(f"refused {number}")
    for _ in range(100):
        server.answered()
    await until(lambda: not server.away)
    server.answered()

    assert [(each.levelname, each.name) for each in caplog.records] == [
        ("WARNING", "agent_service.redis"),
        ("INFO", "agent_service.redis"),
    ]
    assert caplog.messages[0].endswith("refused 0")
    assert caplog.messages[1] == "Redis at here serves again"


async def test_answers_between_failures_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = Availability("x", LOG, quiet=3600)

    for _ in range(5):
        server.failed("refused")
        server.answered()

    assert server.away
    assert len(caplog.records) == 1


async def test_a_failure_after_the_last_answer_keeps_the_outage_going(caplog: pytest.LogCaptureFixture) -> None:
    server = Availability("x", LOG, quiet=0.01)
    server.failed("refused")
    server.answered()
    server.failed("refused")
    await asyncio.sleep(0.05)  # several times as long as it would take
    still_away = server.away
    server.answered()

    assert still_away
    assert not server.away
    assert len(caplog.records) == 2


def test_an_outage_that_one_event_loop_saw_ends_on_another(caplog: pytest.LogCaptureFixture) -> None:
    server = Availability("x", LOG, quiet=0.01)

    async def lose() -> None:
        server.failed("refused")
        server.answered()  # the timer that it starts ends with the loop

    async def find() -> None:
        await asyncio.sleep(0.02)
        server.answered()
        await until(lambda: not server.away)

    asyncio.run(lose())
    asyncio.run(find())

    assert len(caplog.records) == 2


def test_all_who_use_one_server_share_what_is_known_about_it() -> None:
    mine, yours = (availability_of("Redis at here", LOG, quiet=1) for _ in range(2))
    another = availability_of("Redis at there", LOG, quiet=1)

    assert mine is yours is not another
    mine.failed("refused")
    del mine, yours
    gc.collect()
    assert not availability_of("Redis at here", LOG, quiet=1).away
