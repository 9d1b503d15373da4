"""The list of promises and of the tests that hold them is true: the words stand on the pages, the tests exist."""

import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LISTED = tomllib.loads((Path(__file__).parent / "promises.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", LISTED)
def test_the_words_of_each_promise_stand_on_its_page(page: str):
    text = " ".join((CHECKOUT / page).read_text(encoding="utf-8").split())

    assert [words for words in LISTED[page] if words not in text] == []


@pytest.mark.parametrize("page", LISTED)
def test_each_promise_has_tests_and_they_exist(page: str):
    missing = [test for tests in LISTED[page].values() for test in tests or ["none"] if not exists(test)]

    assert missing == []


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = CHECKOUT / file
    return path.is_file() and re.search(rf"def {re.escape(name)}\(", path.read_text(encoding="utf-8")) is not None
