"""Servers and networks fail under load, and caches keep their promises."""

import pytest

from tests.cache.faults.faults import FAULTS, Fault
from tests.cache.faults.run import LONG, SHORT, run

KINDS = pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)


@KINDS
async def test_a_fault_costs_speed_only(kind: type[Fault]):
    await run(kind, SHORT)


@KINDS
@pytest.mark.faults
async def test_a_fault_costs_speed_only_for_a_minute(kind: type[Fault], capsys: pytest.CaptureFixture[str]):
    told = await run(kind, LONG)

    with capsys.disabled():
        print(told)  # noqa: T201
