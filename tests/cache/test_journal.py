"""What the outage journal remembers."""

from agent_service.infrastructure.cache.journal import Increment, Journal


def debts(journal: Journal) -> dict[str, tuple[list[str], list[str], dict[str, int]]]:
    return {
        name: (
            list(debt.patterns),
            list(debt.stale),
            {key: sum(each.amount for each in owed) for key, owed in debt.added.items()},
        )
        for name, debt in journal.take().items()
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
    journal.match("ns", "user:*")
    journal.add("ns", "user:n", Increment(3, 60))

    assert debts(journal) == {"ns": (["user:*"], ["other"], {"user:n": 3})}


def test_namespaces_are_kept_apart():
    journal = Journal()
    journal.invalidate("a", ["k"])
    journal.match("b", "*")

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
    (debt,) = journal.take().values()

    assert debt.cleared
    assert (debt.tags, debt.stale) == ({}, {})
    assert [each.amount for each in debt.added["n"]] == [2]


def test_an_increment_of_unknown_outcome_keeps_its_number_and_is_not_added_to():
    journal = Journal()
    number = journal.changes.begin()
    journal.add("ns", "n", Increment(5, 60, number))
    journal.add("ns", "n", Increment(1, 60))
    journal.add("ns", "n", Increment(2, 60))
    (debt,) = journal.take().values()

    assert [(each.amount, each.number) for each in debt.added["n"]] == [(5, number), (3, None)]


def test_an_increment_that_is_dropped_is_not_sent_again():
    journal = Journal(limit=3)
    for drop in (
        lambda: journal.invalidate("ns", ["n"]),
        lambda: journal.match("ns", "n*"),
        lambda: journal.clear("ns"),
        lambda: journal.invalidate("ns", list("abcdef")),
    ):
        journal.add("ns", "n", Increment(5, 60, journal.changes.begin()))
        assert len(journal.changes) == 1
        drop()

        assert len(journal.changes) == 0
