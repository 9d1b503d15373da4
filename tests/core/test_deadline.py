import math

from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.deadline import Deadline
from agent_service.testing.clock import FakeClock

SECONDS = st.floats(0, 1e6)


@given(SECONDS, SECONDS)
def test_time_runs_from_the_moment_it_was_set(seconds: float, passed: float):
    clock = FakeClock()
    clock.advance(7)
    deadline = Deadline.after(seconds, clock.monotonic)

    clock.advance(passed)

    assert deadline.left == max(deadline.at - clock.monotonic(), 0)
    assert deadline.over == (clock.monotonic() >= deadline.at)
    assert deadline.over == (deadline.left == 0)


def test_it_is_over_at_its_moment_and_not_before():
    clock = FakeClock()
    deadline = Deadline.after(2, clock.monotonic)

    clock.advance(1.5)
    before = deadline.over, deadline.left
    clock.advance(0.5)

    assert before == (False, 0.5)
    assert (deadline.over, deadline.left) == (True, 0.0)


def test_none_never_comes():
    deadline = Deadline.after(None)

    assert (deadline.left, deadline.over) == (math.inf, False)
