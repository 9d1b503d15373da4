"""The table behind the memory cache."""

import math
import threading
import weakref
from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_service.infrastructure.cache.table import Entry, MemoryStore
from tests.support.depth import examples


def entry(key: str, value: object = "v", *, expires: float = math.inf, size: int = 1) -> Entry:
    return Entry(key, value, expires=expires, size=size)


class Now:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def heap_of(store: MemoryStore) -> list:
    return store._due


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), max_size=300), st.integers(1, 12))
def test_eviction_is_exact_lru(requests: list[int], capacity: int):
    store = MemoryStore(capacity)
    model: OrderedDict[str, None] = OrderedDict()
    for number in requests:
        key = str(number)
        hit = store.read(key) is not None
        assert hit == (key in model)
        if hit:
            model.move_to_end(key)
        else:
            store.put(entry(key))
            model[key] = None
            if len(model) > capacity:
                model.popitem(last=False)

    assert list(store.live_keys()) == list(model)


def test_expired_entries_leave_the_table_before_any_live_one():
    now = Now()
    store = MemoryStore(3, monotonic=now)
    store.put(entry("live-and-oldest"))
    store.put(entry("short", expires=1))
    store.put(entry("shorter", expires=0.5))
    now.now = 2
    store.put(entry("new"))

    assert list(store.live_keys()) == ["live-and-oldest", "new"]


def test_the_values_of_expired_entries_are_freed():
    class Value:
        pass

    now = Now()
    store = MemoryStore(10, monotonic=now)
    value = Value()
    freed = weakref.ref(value)
    store.put(entry("a", value, expires=1))
    del value
    now.now = 1
    store.put(entry("b"))

    assert freed() is None
    assert len(store) == 1


def test_overwriting_with_a_ttl_does_not_pile_up_heap_items():
    now = Now()
    store = MemoryStore(100, monotonic=now)
    for _ in range(10_000):
        store.put(entry("a", expires=300))

    assert len(heap_of(store)) < 200


def test_an_entry_leaves_at_the_time_that_was_set_last():
    now = Now()
    store = MemoryStore(10, monotonic=now)
    store.put(entry("extended", expires=1))
    store.put(entry("shortened", expires=5))
    store.expire("extended", 5)
    store.expire("shortened", 1)
    now.now = 2
    left_at_two, live_at_two = len(store), store.live_keys()
    now.now = 5

    assert (left_at_two, live_at_two, len(store)) == (1, ["extended"], 0)


def test_an_entry_that_left_is_dead_for_whoever_kept_it():
    store = MemoryStore(2)
    kept = [entry("overwritten"), entry("removed"), entry("evicted"), entry("cleared")]
    store.put(kept[0])
    store.put(entry("overwritten"))
    store.put(kept[1])
    store.remove("removed")
    store.put(kept[2])
    store.put(entry("x"))
    store.put(entry("y"))
    store.clear()
    store.put(kept[3])
    store.clear()

    assert [each.expires for each in kept] == [-math.inf] * 4
    assert [each.value for each in kept] == [None] * 4


def test_bytes_are_bounded_too():
    store = MemoryStore(100, max_bytes=100)
    for n in range(10):
        store.put(entry(str(n), size=30))

    assert list(store.live_keys()) == ["7", "8", "9"]
    assert store.put(entry("huge", size=101)) is False
    assert list(store.live_keys()) == ["7", "8", "9"]


def test_a_value_too_large_removes_what_it_was_to_replace():
    store = MemoryStore(100, max_bytes=100)
    store.put(entry("a", size=1))

    assert store.put(entry("a", size=101)) is False
    assert store.read("a") is None


def test_threads_may_share_it():
    store = MemoryStore(50)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(3000):
                key = str((n * seed) % 97)
                if store.read(key) is None:
                    store.put(entry(key, expires=store.monotonic() + 0.001 * (n % 3)))
                if n % 50 == 0:
                    store.clear()
        except BaseException as exc:  # noqa: BLE001 - reported by the assertion below
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert len(store) <= 50


KEYS = st.sampled_from("abcde")


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of operations and any passage of time, against a dictionary."""

    CAPACITY = 3

    def __init__(self) -> None:
        super().__init__()
        self.now = Now()
        self.store = MemoryStore(self.CAPACITY, monotonic=self.now)
        self.model: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.count = 0

    def expire_model(self) -> None:
        for key in [key for key, (_, expires) in self.model.items() if expires <= self.now.now]:
            del self.model[key]

    @rule(key=KEYS, ttl=st.sampled_from([1, 2, math.inf]))
    def put(self, key: str, ttl: float) -> None:
        self.count += 1
        self.expire_model()
        self.store.put(entry(key, self.count, expires=self.now.now + ttl))
        self.model.pop(key, None)
        if len(self.model) == self.CAPACITY:
            self.model.popitem(last=False)
        self.model[key] = (self.count, self.now.now + ttl)

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        self.expire_model()
        found = self.store.read(key)
        assert (None if found is None else found[0]) == (self.model[key][0] if key in self.model else None)
        if key in self.model:
            self.model.move_to_end(key)

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        self.expire_model()
        assert self.store.remove(key) == (self.model.pop(key, None) is not None)

    @rule(key=KEYS, ttl=st.sampled_from([1, 2, math.inf]))
    def expire(self, key: str, ttl: float) -> None:
        self.expire_model()
        assert self.store.expire(key, self.now.now + ttl) == (key in self.model)
        if key in self.model:
            self.model[key] = (self.model[key][0], self.now.now + ttl)

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def advance(self, seconds: float) -> None:
        self.now.now += seconds

    @rule()
    @precondition(lambda self: self.model)
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    @rule()
    def count_entries(self) -> None:
        """Not after each step: counting removes what expired, which a write must do by itself."""
        self.expire_model()
        assert len(self.store) == len(self.model)

    @invariant()
    def same_live_keys_in_the_same_order(self) -> None:
        self.expire_model()
        kept = list(self.store._table.order)
        assert [key for key in kept if self.store.live(key)] == list(self.model)
        assert len(kept) <= self.CAPACITY


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=examples(60, 300), stateful_step_count=40, deadline=None)
