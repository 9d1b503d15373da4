"""Failures of loads: remembered for their time, bounded in number, each raised as one of its own."""

import pytest

from agent_service.infrastructure.cache.loads.failures import Failures
from agent_service.testing.clock import FakeClock

BOUND = 10_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def failures(clock: FakeClock) -> Failures:
    return Failures(clock.monotonic)


def test_a_failure_stands_until_its_back_off_is_over(failures: Failures, clock: FakeClock):
    failures.remember("a", LookupError("no"), 2)
    clock.advance(1.9)
    before = failures.recent("a")
    clock.advance(0.1)

    assert repr(before) == "LookupError('no')"
    assert failures.recent("a") is None
    assert len(failures) == 0


def test_the_latest_failure_of_a_key_counts_with_its_own_time(failures: Failures, clock: FakeClock):
    failures.remember("a", LookupError("first"), 10)
    failures.remember("a", LookupError("second"), 2)

    assert str(failures.recent("a")) == "second"
    clock.advance(2)
    assert failures.recent("a") is None


def test_past_the_bound_the_oldest_failure_is_forgotten_first(failures: Failures):
    for number in range(BOUND):
        failures.remember(f"{number}", LookupError(), 60)
    failures.remember("1", LookupError(), 60)  # the youngest again, and no further one
    known = failures.recent("0")
    failures.remember("one more", LookupError(), 60)
    failures.remember("and another", LookupError(), 60)

    assert known is not None
    assert len(failures) == BOUND
    assert [failures.recent(key) is None for key in ("0", "1", "2", "3", "one more")] == [
        True,
        False,
        True,
        False,
        False,
    ]


def test_each_who_asks_gets_an_exception_of_its_own_without_the_frames_of_the_load(failures: Failures):
    try:
        raise LookupError("no")
    except LookupError as exc:
        failures.remember("a", exc, 60)
    first, second = failures.recent("a"), failures.recent("a")

    assert first is not second
    assert first is not None
    assert first.__traceback__ is None


def test_what_is_forgotten_may_be_loaded_at_once_and_nothing_else(failures: Failures):
    for key in "abc":
        failures.remember(key, LookupError(), 60)
    failures.forget(["a", "nobody"])

    assert [failures.recent(key) is None for key in "abc"] == [True, False, False]
    failures.clear()
    assert len(failures) == 0
