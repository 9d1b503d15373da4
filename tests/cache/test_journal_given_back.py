"""A replay that breaks off: what was written down meanwhile counts as if nothing had been taken out in between."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.core.globs import compile_globs
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.pending import Increment
from tests.support.depth import examples

KEYS = st.sampled_from(["a", "b", "ab"])
STEPS = st.one_of(
    st.tuples(st.just("invalidate"), KEYS),
    st.tuples(st.just("overwrite"), KEYS),
    st.tuples(st.just("tags"), KEYS),
    st.tuples(st.just("match"), st.sampled_from(["a*", "b"])),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("add"), KEYS),
    st.tuples(st.just("add anew"), KEYS),
)
GLOBS = {pattern: globs for pattern in ("a", "a*", "b") if (globs := compile_globs([pattern]))}
DO: dict[str, Callable[[Journal, Any], None]] = {
    "invalidate": lambda journal, key: journal.invalidate("n", [key]),
    "overwrite": lambda journal, key: journal.invalidate("n", [key], overwritten=True),
    "tags": lambda journal, tag: journal.invalidate_tags("n", [tag]),
    "match": lambda journal, pattern: journal.invalidate_matching("n", GLOBS[pattern]),
    "clear": lambda journal, _: journal.clear("n"),
    "add": lambda journal, key: journal.add("n", key, Increment(1, 60)),
    "add anew": lambda journal, key: journal.add("n", key, Increment(1, 60), restarted=True),
}


def owed(journal: Journal) -> Any:
    """What Redis is owed."""
    return [
        (
            pending.cleared,
            sorted(pending.tags),
            sorted(pending.patterns),
            sorted(pending.keys),
            {key: sum(each.amount for each in owed) for key, owed in pending.increments.items()},
        )
        for pending in journal.take().values()
    ]


ON_ONE_KEY = [(name, {"match": "a*", "clear": None}.get(name, "a")) for name in DO]


@given(before=st.lists(STEPS, max_size=6), after=st.lists(STEPS, max_size=6))
@settings(max_examples=examples(100, 2_000))
def test_a_broken_off_replay_changes_nothing_of_what_is_owed(before: list[Any], after: list[Any]):
    require_the_same(before, after)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_few_steps_on_one_key_make_a_difference(count: int):
    for steps in product(ON_ONE_KEY, repeat=count):
        for taken_after in range(count + 1):
            require_the_same(steps[:taken_after], steps[taken_after:])


def require_the_same(before: Sequence[Any], after: Sequence[Any]) -> None:
    whole, broken_off = Journal(), Journal()
    for step, what in before:
        DO[step](whole, what)
        DO[step](broken_off, what)
    taken = broken_off.take()
    for step, what in after:
        DO[step](whole, what)
        DO[step](broken_off, what)
    broken_off.give_back(taken)

    assert len(broken_off) == len(whole)
    assert broken_off.bytes == whole.bytes
    assert [each for each in owed(broken_off) if any(each)] == [each for each in owed(whole) if any(each)]


def test_what_is_added_during_a_replay_to_a_value_set_before_is_not_owed():
    journal = Journal()
    journal.invalidate("n", ["a"], overwritten=True)
    journal.take()
    journal.add("n", "a", Increment(1, 60))
    on_the_value = len(journal)
    journal.add("n", "a", Increment(1, 60), restarted=True)

    assert (on_the_value, owed(journal)) == (0, [(False, [], [], [], {"a": 1})])


def test_nothing_is_remembered_of_values_that_memory_holds_no_more():
    journal = Journal()
    journal.invalidate("n", ["a", "b"], overwritten=True)
    journal.take()
    journal.memory_is_empty()
    forgotten = journal.bytes
    journal.add("n", "a", Increment(1, 60))

    assert forgotten == 0
    assert owed(journal) == [(False, [], [], [], {"a": 1})]


@pytest.mark.parametrize("step", DO)
def test_what_came_while_another_namespace_was_replayed_is_kept(step: str):
    journal = Journal()
    journal.invalidate("other", ["x"])
    taken = journal.take()
    DO[step](journal, "a")
    journal.give_back(taken)

    assert len(journal) == 2
    assert {name for name, pending in journal.take().items() if len(pending)} == {"other", "n"}


def test_a_new_journal_is_empty():
    assert len(Journal()) == 0


def test_as_many_operations_as_the_limit_says_are_remembered_and_one_more_collapses():
    journal = Journal(3)
    journal.invalidate("n", ["a", "b", "c"])
    whole = owed(journal)
    journal.invalidate("n", ["a", "b", "c", "d"])

    assert whole == [(False, [], [], ["a", "b", "c"], {})]
    assert owed(journal) == [(True, [], [], [], {})]
