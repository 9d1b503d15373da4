"""What several processes of one run are given to begin with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.order import LONG, dealt

TESTS = Path(__file__).parents[1]


def test_files_that_are_said_to_take_long_exist():
    assert [each for each in LONG if not (TESTS / each).is_file()] == []


@pytest.mark.parametrize("shares", [1, 2, 3, 6, 40])
def test_each_share_begins_with_long_files_and_nothing_is_lost(shares: int):
    files = [f"short/{number % 50}.py" for number in range(4000)]
    files[1000:1000] = [each for each in LONG for _ in range(7)]
    items = list(enumerate(files))

    ordered = dealt(items, shares, lambda item: item[1])
    begins, taken = [], 0
    for number in range(shares):
        begins.append(ordered[taken][1])
        taken += (len(items) - taken) // (shares - number)

    assert sorted(ordered) == items
    assert ordered == dealt(items, shares, lambda item: item[1])
    assert tuple(begins[: len(LONG)]) == LONG[:shares]
    short = [each for each in ordered if each[1] not in LONG]
    assert short == sorted(short)


@given(st.lists(st.sampled_from([*LONG, "short/a.py", "short/b.py"]), max_size=60), st.integers(1, 9))
def test_however_few_tests_there_are_none_is_lost(files: list[str], shares: int):
    items = list(enumerate(files))

    assert sorted(dealt(items, shares, lambda item: item[1])) == items
