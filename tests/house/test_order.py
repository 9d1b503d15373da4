"""What several processes of one run are given to begin with."""

from pathlib import Path

import pytest

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


def test_a_share_that_is_smaller_than_its_long_files_loses_none():
    items = [(number, LONG[number % 3]) for number in range(10)]

    assert sorted(dealt(items, 4, lambda item: item[1])) == items
