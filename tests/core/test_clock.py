"""Clocks: the system's, and the one that tests move."""

import math
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.testing import FakeClock


def test_the_system_clock_gives_utc_and_monotonic_time():
    before = time.monotonic()

    assert before <= SYSTEM_CLOCK.monotonic() <= time.monotonic()
    assert SYSTEM_CLOCK.now().utcoffset() == timedelta()
    assert abs(SYSTEM_CLOCK.now().timestamp() - time.time()) < 5


def test_a_fake_clock_stands_still_until_it_is_advanced():
    clock: Clock = FakeClock()

    assert (clock.monotonic(), clock.now()) == (clock.monotonic(), clock.now())


def test_both_times_of_a_fake_clock_move_together():
    clock = FakeClock(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    clock.advance(0.1)
    clock.advance(0.2)

    assert clock.monotonic() == 0.3
    assert clock.now() == datetime(2026, 1, 1, 0, 0, 0, 300_000, UTC)
    assert clock.now().utcoffset() == timedelta()


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, -math.inf])
def test_a_fake_clock_refuses_to_go_back_or_to_the_end_of_time(seconds):
    clock = FakeClock()

    with pytest.raises(ValueError, match="must be finite and not negative"):
        clock.advance(seconds)
    assert clock.monotonic() == 0


def test_a_fake_clock_refuses_a_start_without_time_zone():
    with pytest.raises(ValueError, match="tzinfo=UTC"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001
