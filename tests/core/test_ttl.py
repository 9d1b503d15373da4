"""One meaning of a TTL, and a clear word for everything that has none."""

import math
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.errors import CacheValueError
from agent_service.core.ttl import MAX_TTL, NEVER, resolve_ttl


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (None, 300),
        (NEVER, math.inf),
        (60, 60),
        (0.25, 0.25),
        (timedelta(days=14), 1_209_600),
        (timedelta(milliseconds=5), 0.005),
        (0, 0),
        (-1, -1),
        (timedelta(seconds=-3), -3),
        (MAX_TTL, MAX_TTL),
    ],
)
def test_a_ttl_becomes_seconds(ttl, seconds):
    assert resolve_ttl(ttl, 300) == seconds


@pytest.mark.parametrize(
    "ttl",
    [math.nan, math.inf, -math.inf, True, False, "60", Decimal(60), [], MAX_TTL + 1, 10**400, timedelta.max, object],
)
def test_what_is_no_duration_is_refused_naming_the_argument(ttl):
    with pytest.raises(CacheValueError, match=r"^soft_ttl must be") as caught:
        resolve_ttl(ttl, 300, name="soft_ttl")

    assert len(str(caught.value)) < 300


@given(st.floats(max_value=MAX_TTL, allow_nan=False, allow_infinity=False) | st.integers(-(10**9), int(MAX_TTL)))
def test_any_finite_number_up_to_the_maximum_is_taken_as_seconds(ttl):
    assert resolve_ttl(ttl, 300) == ttl


def test_never_reads_like_its_name():
    assert repr(NEVER) == "NEVER"
