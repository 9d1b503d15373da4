import random

from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.backoff import Backoff

SECONDS = st.floats(1e-6, 3e9)


@given(SECONDS, SECONDS, st.integers(0, 10**9))
def test_every_pause_is_between_half_of_its_bound_and_all_of_it(first: float, longest: float, failures: int):
    backoff = Backoff(first, longest)

    bound = backoff.bound(failures)

    assert 0 < bound / 2 <= backoff.pause(failures) <= bound <= longest


@given(SECONDS, SECONDS, st.integers(0, 2000))
def test_bounds_double_until_the_longest(first: float, longest: float, failures: int):
    backoff = Backoff(first, longest)

    assert backoff.bound(0) == min(first, longest)
    assert backoff.bound(failures + 1) in {2 * backoff.bound(failures), longest}


def test_callers_that_failed_together_do_not_come_back_together():
    pauses = {Backoff(1.0, 8.0).pause(2) for _ in range(200)}

    assert len(pauses) > 150
    assert max(pauses) - min(pauses) > 1.0


def test_a_pause_follows_what_random_gives(monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: low + (high - low) / 4)

    assert Backoff(0.5, 30.0).pause(3) == 2.5
