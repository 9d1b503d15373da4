"""Version 7 UUIDs: unique, and in the order they were made."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122

from agent_service.core.identifiers import uuid7


def test_an_identifier_has_the_version_the_variant_and_the_time_of_rfc_9562():
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000

    assert (made.version, made.variant) == (7, RFC_4122)
    assert before <= made.int >> 80 <= after + 1


def test_identifiers_made_in_order_sort_in_order():
    made = [uuid7() for _ in range(5000)]

    assert made == sorted(made)
    assert [str(each) for each in made] == sorted(str(each) for each in made)
    assert len(set(made)) == len(made)


def test_threads_never_make_the_same_identifier():
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: [uuid7() for _ in range(500)], range(8)))

    assert len({each for batch in batches for each in batch}) == 4000
    assert all(batch == sorted(batch) for batch in batches)


def test_identifiers_keep_growing_when_the_clock_goes_back(monkeypatch):
    first = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 1)

    second, third = uuid7(), uuid7()

    assert first < second < third
    assert third.int >> 80 <= (first.int >> 80) + 1
