"""What the outage journal remembers, and how much room it takes for that."""

import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any

import pytest

from agent_service.core.globs import Globs, compile_globs
from agent_service.infrastructure.cache.fallback.journal import BYTES_EACH, Journal
from agent_service.infrastructure.cache.fallback.largest import Largest
from agent_service.infrastructure.cache.fallback.pending import Increment
from agent_service.infrastructure.cache.redis.counters import Changes


def globs(*patterns: str) -> Globs:
    together = compile_globs(patterns)
    assert together is not None
    return together


def debts(journal: Journal) -> dict[str, tuple[list[str], list[str], dict[str, int]]]:
    return {
        name: (
            list(pending.patterns),
            list(pending.keys),
            {key: sum(each.amount for each in owed) for key, owed in pending.increments.items()},
        )
        for name, pending in journal.take().items()
    }


def test_only_the_last_operation_on_a_key_counts():
    journal = Journal()
    journal.add("ns", "n", Increment(5, 60))
    journal.invalidate("ns", ["n", "a", "a"])

    assert len(journal) == 2
    assert debts(journal) == {"ns": ([], ["n", "a"], {})}


def test_increments_add_up():
    journal = Journal()
    for _ in range(3):
        journal.add("ns", "n", Increment(2, 60))

    assert debts(journal) == {"ns": ([], [], {"n": 6})}


def test_a_counter_that_was_deleted_and_counted_again_starts_anew():
    journal = Journal()
    journal.add("ns", "n", Increment(5, 60))
    journal.invalidate("ns", ["n"])
    journal.add("ns", "n", Increment(2, 60))

    assert debts(journal) == {"ns": ([], ["n"], {"n": 2})}


def test_increments_of_a_value_set_meanwhile_are_not_pushed_just_as_the_value():
    journal = Journal()
    journal.invalidate("ns", ["n"], overwritten=True)
    journal.add("ns", "n", Increment(2, 60))

    assert debts(journal) == {"ns": ([], ["n"], {})}


def test_a_pattern_swallows_what_it_covers_and_spares_what_comes_later():
    journal = Journal()
    journal.invalidate("ns", ["user:1", "other"])
    journal.add("ns", "user:n", Increment(1, 60))
    journal.invalidate_matching("ns", globs("user:*"))
    journal.add("ns", "user:n", Increment(3, 60))

    assert debts(journal) == {"ns": (["user:*"], ["other"], {"user:n": 3})}


def test_namespaces_are_kept_apart():
    journal = Journal()
    journal.invalidate("a", ["k"])
    journal.invalidate_matching("b", globs("*"))

    assert debts(journal) == {"a": ([], ["k"], {}), "b": (["*"], [], {})}


def test_a_full_journal_collapses_its_largest_namespace():
    journal = Journal(limit=10)
    journal.invalidate("small", ["k"])
    for n in range(50):
        journal.invalidate("large", [f"k{n}"])
        assert len(journal) <= 10

    assert debts(journal)["small"] == ([], ["k"], {})


def test_what_could_not_be_replayed_comes_back_before_what_came_later():
    journal = Journal()
    journal.invalidate("ns", ["a"])
    journal.add("ns", "n", Increment(1, 60))
    journal.add("ns", "m", Increment(1, 60))
    taken = journal.take()
    journal.add("ns", "n", Increment(2, 60))
    journal.invalidate("ns", ["m"])
    journal.give_back(taken)

    assert len(journal) == 3
    assert debts(journal) == {"ns": ([], ["a", "m"], {"n": 3})}


def test_taking_empties_it():
    journal = Journal()
    journal.invalidate("ns", ["a"])
    journal.take()

    assert len(journal) == 0
    assert journal.take() == {}


def test_tags_and_clearing_are_remembered_and_clearing_swallows_the_rest():
    journal = Journal()
    journal.invalidate_tags("ns", ["t", "t", "u"])
    journal.invalidate("ns", ["k"])
    journal.add("ns", "n", Increment(1, 60))
    journal.clear("ns")
    journal.add("ns", "n", Increment(2, 60))
    (pending,) = journal.take().values()

    assert pending.cleared
    assert (pending.tags, pending.keys) == ({}, {})
    assert [each.amount for each in pending.increments["n"]] == [2]


def test_an_increment_of_unknown_outcome_keeps_its_number_and_is_not_added_to():
    journal = Journal()
    number = journal.changes.begin()
    journal.add("ns", "n", Increment(5, 60, number))
    journal.add("ns", "n", Increment(1, 60))
    journal.add("ns", "n", Increment(2, 60))
    (pending,) = journal.take().values()

    assert [(each.amount, each.number) for each in pending.increments["n"]] == [(5, number), (3, None)]


def test_an_increment_that_is_dropped_is_not_sent_again():
    journal = Journal(limit=3)
    for drop in (
        lambda: journal.invalidate("ns", ["n"]),
        lambda: journal.invalidate_matching("ns", globs("n*")),
        lambda: journal.clear("ns"),
        lambda: journal.invalidate("ns", list("abcdef")),
    ):
        journal.add("ns", "n", Increment(5, 60, journal.changes.begin()))
        assert len(journal.changes) == 1
        drop()

        assert len(journal.changes) == 0


LONG = "é" * 1000


def remember_keys(journal: Journal, n: int) -> None:
    journal.invalidate(f"ns{n % 3}", [f"{n}{LONG}"])


def remember_values(journal: Journal, n: int) -> None:
    journal.invalidate(f"ns{n % 3}", [f"{n}{LONG}"], overwritten=True)


def remember_tags(journal: Journal, n: int) -> None:
    journal.invalidate_tags(f"ns{n % 3}", [f"{n}{LONG}"])


def remember_patterns(journal: Journal, n: int) -> None:
    journal.invalidate_matching(f"ns{n % 3}", globs(f"{n}{LONG}*"))


def remember_increments(journal: Journal, n: int) -> None:
    journal.add(f"ns{n % 3}", f"{n}{LONG}", Increment(n, n / 7))


def remember_sent_increments(journal: Journal, n: int) -> None:
    journal.add(f"ns{n % 3}", f"counter{n % 5}", Increment(n, n / 7, journal.changes.begin(), n / 3))


@pytest.mark.parametrize(
    "remember",
    [
        remember_keys,
        remember_values,
        remember_tags,
        remember_patterns,
        remember_increments,
        remember_sent_increments,
    ],
)
def test_the_journal_never_needs_more_memory_than_it_says(remember):
    limit = 500
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        journal = Journal(limit)
        needed = []
        for n in range(1, 2 * limit):
            remember(journal, n)
            needed.append((tracemalloc.get_traced_memory()[0] - before, journal.bytes))
    finally:
        tracemalloc.stop()

    house = 20_000  # the journal itself, and what its namespaces, the patterns last compiled and our list take
    assert all(real <= said + house + 200 * len(needed) for real, said in needed)
    assert max(said for _, said in needed) <= limit * BYTES_EACH
    assert journal.collapsed > 0


def test_values_whose_keys_were_paid_for_take_room_until_they_are_over():
    journal = Journal(limit=100)
    for n in range(1000):
        journal.invalidate("ns", [f"{n}" + "x" * 1000], overwritten=True)
        taken = journal.take()
        taken["ns"].done_keys(list(taken["ns"].keys))  # replayed, before the replay broke off
        journal.give_back(taken)
        assert journal.bytes <= 100 * BYTES_EACH

    assert journal.collapsed > 0


@pytest.mark.parametrize("count", [1, 3, 2000])
def test_patterns_that_came_during_a_replay_swallow_what_is_given_back(count):
    journal = Journal()
    journal.invalidate("ns", ["user:1", "other"])
    journal.add("ns", "user:n", Increment(1, 60))
    taken = journal.take()
    for n in range(count):
        journal.invalidate_matching("ns", globs(f"user:{n}*"))
    journal.invalidate_matching("ns", globs("user:n"))
    journal.add("ns", "user:n", Increment(3, 60))
    journal.give_back(taken)
    (pending,) = journal.take().values()

    assert pending.cleared == (count == 2000)
    assert list(pending.keys) == ([] if count == 2000 else ["user:1", "other"] if count == 1 else ["other"])
    assert [each.amount for each in pending.increments["user:n"]] == [3]


def test_what_it_counts_is_what_it_remembers():
    journal = Journal()
    for n in range(50):
        journal.invalidate("ns", [f"k{n % 7}", f"n{n}"], overwritten=n % 2 == 0)
        journal.add(
            "ns", f"n{n % 11}", Increment(n, 60, journal.changes.begin() if n % 3 else None), restarted=n % 5 == 0
        )
        journal.invalidate_matching("ns", globs(f"k{n % 4}*", f"n{n % 13}"))
        journal.invalidate_tags("ns", [f"t{n % 3}"])
        counted = len(journal), journal.bytes
        debts = journal.take()
        remembered = sum(map(len, debts.values()))
        journal.give_back(debts)

        assert counted == (remembered, journal.bytes)
        assert len(journal) == remembered


# -- the work of a write


def steps_of(work: Callable[[], object]) -> int:
    """How many lines of Python the journal runs for some work."""
    steps = 0

    def count(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        if "/fallback/" not in frame.f_code.co_filename:
            return None
        steps += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps


def full_journal(namespaces: int, *, clears_only: bool = False) -> Journal:
    """A journal in which one more operation is one too many."""
    journal = Journal(limit=namespaces)
    journal.clears_only = clears_only
    for number in range(namespaces):
        journal.add(f"n{number}", "counter", Increment(1, 60))
    return journal


WRITES: dict[str, Callable[[Journal], object]] = {
    "a counter": lambda journal: journal.add("n7", "another", Increment(1, 60)),
    "a key": lambda journal: journal.invalidate("n7", ["another"]),
    "a value": lambda journal: journal.invalidate("n7", ["another"], overwritten=True),
    "a tag": lambda journal: journal.invalidate_tags("n7", ["another"]),
    "a pattern": lambda journal: journal.invalidate_matching("n7", globs("another*")),
    "a namespace": lambda journal: journal.clear("n7"),
    "in a new namespace": lambda journal: journal.invalidate("new", ["another"]),
}


@pytest.mark.parametrize("clears_only", [False, True])
@pytest.mark.parametrize("write", WRITES)
def test_a_write_costs_the_same_however_many_namespaces_are_pending(write: str, clears_only: bool):
    few, many = (full_journal(number, clears_only=clears_only) for number in (10, 3_000))
    for journal in (few, many):
        WRITES[write](journal)  # what has just been cleared, or swept, is not again

    assert steps_of(lambda: WRITES[write](many)) <= steps_of(lambda: WRITES[write](few)) + 20


def test_giving_back_what_could_not_be_replayed_counts_nothing_again():
    few, many = Journal(), Journal()
    for journal, keys in ((few, 10), (many, 3_000)):
        for number in range(keys):
            journal.add("n", f"counter{number}", Increment(1, 60))

    assert steps_of(lambda: many.give_back(many.take())) == steps_of(lambda: few.give_back(few.take()))
    assert len(many) == 3_000


def test_the_lowest_open_change_is_found_at_once_after_many_have_ended():
    """A dict would look at the place of every change that has ended."""
    changes = Changes()
    numbers = [changes.begin() for _ in range(1_000)]
    for number in numbers[:-1]:
        changes.end(number)

    assert changes.change(numbers[-1]).lowest == numbers[-1]
    assert isinstance(changes._open, OrderedDict)


def test_the_largest_namespace_is_found_while_sizes_change():
    largest, random = Largest(), Random(7)
    sizes: dict[str, int] = {}
    for _ in range(5_000):
        name, size = f"n{random.randrange(20)}", random.randrange(100)
        grown = largest.put(name, size)
        assert grown == size - sizes.get(name, 0)
        sizes[name] = size
        assert sizes[largest.find()] == max(sizes.values())
        assert largest._heap is not None
        assert len(largest._heap) <= 2 * len(sizes) + 16
