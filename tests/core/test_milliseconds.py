from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.milliseconds import to_milliseconds
from agent_service.core.ttl import MAX_TTL


@given(st.floats(0, MAX_TTL, exclude_min=True))
def test_a_duration_never_becomes_nothing_and_ends_no_earlier(seconds: float):
    milliseconds = to_milliseconds(seconds)

    assert milliseconds >= 1
    # By a microsecond at most, or what a float of this size cannot hold, it may end before its time.
    assert Fraction(milliseconds) > Fraction(seconds) * 1000 * (1 - Fraction(1, 10**15)) - Fraction(1, 1000)
    assert Fraction(milliseconds) < Fraction(seconds) * 1000 * (1 + Fraction(1, 10**15)) + 1


@given(st.integers(0, int(MAX_TTL * 1000)))
def test_whole_milliseconds_stay_what_they_are(milliseconds: int):
    assert to_milliseconds(milliseconds / 1000) == milliseconds


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(0, 0), (-1, 0), (-0.0004, 0), (5e-324, 1), (0.0004, 1), (0.0011, 2), (1.1, 1100), (0.07, 70), (2, 2000)],
)
def test_fractions_are_rounded_up(seconds: float, milliseconds: int):
    assert to_milliseconds(seconds) == milliseconds
