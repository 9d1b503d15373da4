"""The table behind the memory cache: exact LRU over cachetools, a TTL for each entry, bounds in entries and bytes.

Why not ``cachetools.TTLCache`` or ``TLRUCache``: a read takes them several times longer, and reads are what this table
is for. It is a :class:`cachetools.Cache` with an order of its own (an ``OrderedDict``) and a heap of expiry times.

Two ideas make a decorated hit cheap:

* *An entry that left is dead.* Eviction, deletion, overwriting and clearing set all times of an entry to minus
  infinity, so the owner of a reference (a decorated function keeps one for each argument tuple) needs a single
  comparison, ``entry.settled_until > now``, to know that it is in the table, fresh, and not due for a refresh. Only
  entries with tags need a look at their tokens besides.
* *Expired entries leave in a batch.* Every write first removes all that are due, by the heap, at O(log n) each. Heap
  items of entries that were overwritten or evicted are skipped, and the heap is rebuilt when they outnumber the live.

Writers of several threads (event loops) are serialised by a lock. A read takes none: it finds the entry in the order
and moves it there, each in one step that no other thread can interrupt, so what writers do meanwhile costs it a miss at
worst. A forked process starts with an empty table, because a thread of its parent may have been writing.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from heapq import heapify, heappop, heappush
from time import monotonic as system_monotonic
from typing import Any, Protocol

import cachetools

from agent_service.core.forking import renew_after_fork
from agent_service.infrastructure.cache.table_tags import TagTable, Token

__all__ = ["Entry", "HitCounter", "MemoryStore"]

_DEAD = -math.inf
_HEAP_SLACK = 64


class HitCounter(Protocol):
    """Something with a number of hits."""

    hits: int


class Entry:
    """One value. ``copy`` makes each reader's own of it; None: it is immutable and is shared.

    An entry is fresh until ``fresh_until`` (None: until it expires), and stale from then until it expires. ``due``
    (None: never) is when a reader should have it refreshed though it is fresh. All are seconds of the store's clock.
    """

    __slots__ = (
        "copy",
        "created",
        "expires",
        "fresh_until",
        "key",
        "raised",
        "settled_until",
        "size",
        "tokens",
        "value",
    )

    def __init__(
        self,
        key: str,
        value: Any,
        *,
        expires: float,
        created: float = 0.0,
        fresh_until: float | None = None,
        due: float | None = None,
        copy: Callable[[Any], Any] | None = None,
        size: int = 1,
        tokens: tuple[Token, ...] = (),
        raised: bool = False,
    ) -> None:
        self.key = key
        self.value = value
        self.copy = copy
        self.created = created
        self.expires = expires
        self.fresh_until = expires if fresh_until is None else fresh_until
        self.settled_until = self.fresh_until if due is None else min(due, self.fresh_until)
        self.size = size
        self.tokens = tokens
        self.raised = raised
        if raised:
            self.settled_until = _DEAD

    def outdated(self) -> bool:
        """Whether one of its tags was invalidated."""
        return True in [token.dead for token in self.tokens]


class _Table(cachetools.Cache[str, Entry]):
    """Evicts the least recently used entry. Whatever leaves is dead before it is gone."""

    def __init__(self, maxsize: float, getsizeof: Callable[[Entry], float] | None = None) -> None:
        super().__init__(maxsize, getsizeof)
        self.order: OrderedDict[str, Entry] = OrderedDict()

    def __setitem__(self, key: str, entry: Entry) -> None:
        super().__setitem__(key, entry)
        self.order[key] = entry
        self.order.move_to_end(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        _kill(self.order.pop(key))

    def popitem(self) -> tuple[str, Entry]:
        # In one step: a reader may move a key between the two that next(iter(...)) takes.
        key, entry = self.order.popitem(last=False)
        _kill(entry)
        super().__delitem__(key)
        return key, entry


def _kill(entry: Entry) -> None:
    entry.expires = entry.fresh_until = entry.settled_until = _DEAD
    entry.value = None
    entry.key = ""  # no key is empty; heap and decorated functions may keep the entry for a while, and keys are long


class MemoryStore:
    """Entries of one namespace of one process. Synchronous; never waits.

    :param max_entries: most entries kept.
    :param max_bytes: most bytes kept, counting ``Entry.size``; None: no such bound.
    :param monotonic: seconds that never go back.
    """

    def __init__(
        self,
        max_entries: int,
        *,
        max_bytes: int | None = None,
        monotonic: Callable[[], float] = system_monotonic,
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.monotonic = monotonic
        self._pushed = 0
        self._begin()
        renew_after_fork(self._begin_anew)

    def _begin(self) -> None:
        self.tags = TagTable()
        # The bound in entries is kept by _insert, because it may change.
        self._table = _Table(math.inf) if self.max_bytes is None else _Table(self.max_bytes, _size_of)
        self.find = self._table.order.get
        """Return the entry of a key, live or not, or None."""
        self._due: list[tuple[float, int, Entry]] = []
        self._lock = threading.Lock()
        self.touch = self._table.order.move_to_end
        """Make a key the most recently used. Only for keys of live entries."""

    def _begin_anew(self) -> None:
        """Leave the table to the parent process, whose entries decorated functions may still refer to."""
        order = self._table.order
        for entry in order.values():
            _kill(entry)
        order.clear()
        self._begin()

    def resize(self, max_entries: int) -> None:
        """Change the bound in entries. Entries beyond it leave with the next write."""
        self.max_entries = max_entries

    def __len__(self) -> int:
        """How many entries are kept, stale and outdated ones among them."""
        with self._lock:
            self._remove_expired()
            return len(self._table)

    def live(self, key: str) -> Entry | None:
        """Return the fresh value's entry without making it the most recently used."""
        entry = self.find(key)
        if entry is None or entry.fresh_until <= self.monotonic() or (entry.tokens and entry.outdated()):
            return None
        return None if entry.raised else entry

    def read(self, key: str) -> tuple[Any, Entry] | None:
        """Return the reader's own value of an entry that is fresh or stale, and make it the most recently used."""
        entry = self.find(key)
        if entry is None:
            return None
        value = entry.value  # before the check: an entry that another thread kills loses its value
        if entry.expires <= self.monotonic() or (entry.tokens and entry.outdated()):
            return None
        with suppress(KeyError):  # another thread removed it since
            self.touch(key)
        return (value if entry.copy is None else entry.copy(value)), entry

    def put(self, entry: Entry) -> bool:
        """Store an entry; it replaces the one under its key. False when it alone is larger than ``max_bytes``."""
        with self._lock:
            return self._insert(entry)

    def update(self, key: str, change: Callable[[Entry | None], Entry]) -> Entry:
        """Replace the live entry, or None, by what ``change`` makes of it, atomically; an exception changes nothing."""
        with self._lock:
            entry = change(self.live(key))
            self._insert(entry)
            return entry

    def expire(self, key: str, expires: float) -> bool:
        """Change until when a fresh entry is fresh; then it expires. False when there is none."""
        with self._lock:
            entry = self.live(key)
            if entry is None:
                return False
            entry.expires = entry.fresh_until = entry.settled_until = expires
            self._schedule(entry)
            return True

    def remove(self, key: str) -> bool:
        """Remove an entry. Whether it was fresh."""
        with self._lock:
            was_live = self.live(key) is not None
            self._table.pop(key, None)
            return was_live

    def keys(self) -> list[str]:
        """Return the keys of all entries, stale and outdated ones among them, least recently used first."""
        with self._lock:
            self._remove_expired()
            return list(self._table.order)

    def live_keys(self) -> list[str]:
        """Return the keys of fresh entries, least recently used first."""
        return [key for key in self.keys() if self.live(key) is not None]

    def clear(self) -> None:
        """Remove everything."""
        with self._lock:
            while self._table:
                self._table.popitem()
            self._due.clear()

    def _insert(self, entry: Entry) -> bool:
        self._remove_expired()
        table = self._table
        if entry.key in table.order:
            del table[entry.key]
        if self.max_bytes is not None and entry.size > self.max_bytes:
            return False
        while len(table.order) >= self.max_entries:
            table.popitem()
        table[entry.key] = entry
        self._schedule(entry)
        return True

    def _schedule(self, entry: Entry) -> None:
        if entry.expires == math.inf:
            return
        self._pushed += 1  # a tie-breaker, so that entries are never compared
        heappush(self._due, (entry.expires, self._pushed, entry))
        if len(self._due) > 2 * len(self._table) + _HEAP_SLACK:
            self._due = [item for item in self._due if item[2].expires == item[0]]
            heapify(self._due)

    def _remove_expired(self) -> None:
        if not self._due:
            return
        now = self.monotonic()
        while self._due and self._due[0][0] <= now:
            due, _, entry = heappop(self._due)
            if entry.expires == due and self.find(entry.key) is entry:
                del self._table[entry.key]


def _size_of(entry: Entry) -> float:
    return entry.size
