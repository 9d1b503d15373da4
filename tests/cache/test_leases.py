"""The leases of a namespace in one process."""

import threading

import pytest

from agent_service.infrastructure.cache.leases import LeaseBook


class Counted(str):
    """A key that counts how often it is hashed."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()

    __eq__ = str.__eq__


def test_a_write_costs_what_its_keys_cost_however_many_loads_are_running():
    book = LeaseBook()
    leases = [book.open(Counted(f"key {number}")) for number in range(1_000)]
    Counted.looks = 0
    book.break_keys(["key 5", "other"])

    assert [lease.key for lease in leases if lease.broken] == ["key 5"]
    assert Counted.looks == 0  # the key of no open lease was hashed
    for each in leases:
        book.close(each)


def test_every_lease_of_a_key_breaks_and_a_closed_one_leaves_nothing():
    book = LeaseBook()
    first, second, other = book.open("k"), book.open("k"), book.open("other")
    book.close(first)
    assert not second.broken

    book.break_keys(["k"])
    assert (second.broken, other.broken) == (True, False)

    book.close(second)
    book.close(second)  # again does nothing
    book.close(other)
    assert len(book) == 0
    assert not book._open


@pytest.mark.parametrize("how", ["keys", "matching", "tags", "all"])
def test_an_invalidation_in_one_thread_breaks_a_load_of_another(how: str):
    book = LeaseBook()
    opened = []
    thread = threading.Thread(target=lambda: opened.append(book.open("k", ("t",))))
    thread.start()
    thread.join()
    ended = book.ended
    {
        "keys": lambda: book.break_keys(["k"]),
        "matching": lambda: book.break_matching(lambda key: key == b"k"),
        "tags": lambda: book.break_tags(["t"]),
        "all": book.break_all,
    }[how]()

    assert opened[0].broken
    assert book.ended > ended
    book.close(opened[0])


def test_no_lease_that_stands_is_out_of_reach_while_threads_take_and_close_them():
    """Each thread takes and closes leases of one key; whoever breaks the key must reach every open one."""
    book, failures = LeaseBook(), []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(5_000):
            lease = book.open("k")
            book.break_keys(["k"])
            if not lease.broken:
                failures.append(lease)
            book.close(lease)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert not failures
    assert len(book) == 0
