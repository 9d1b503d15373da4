"""Servers and networks fail under load, and caches keep their promises.

Two processes, or what stands for them, share a Redis and use it in every way there is. In each run no call raises or is
held longer than its deadlines add up to, nobody is shown what he must know to be invalid, every increment counts once,
no copy in memory is staler than its bound, and in the end nothing is left.
"""

import logging
from collections.abc import AsyncIterator

import pytest

from tests.cache.faults.faults import FAULTS, Fault
from tests.cache.faults.run import LONG, SHORT, run
from tests.support.leftovers import open_sockets

pytestmark = pytest.mark.server  # each starts some of its own

KINDS = pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
async def no_socket_is_left_and_no_error_was_logged(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    before = open_sockets()
    yield
    assert open_sockets() <= before
    told = [each for each in caplog.get_records("call") if each.exc_info or each.levelno >= logging.ERROR]
    assert not told, told


@KINDS
@pytest.mark.timeout(300)
async def test_a_fault_costs_speed_only(kind: type[Fault]):
    await run(kind, SHORT)


@KINDS
@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_a_fault_costs_speed_only_for_a_minute(kind: type[Fault], capsys: pytest.CaptureFixture[str]):
    told = await run(kind, LONG)

    with capsys.disabled():
        print(told)  # noqa: T201
