"""A cache against a dictionary: whatever is called, in whatever order, both return the same.

::

    class MyMachine(CacheMachine):
        async def open(self):
            self.clock = FakeClock()
            return MyCache(clock=self.clock)

        async def advance(self, seconds):
            self.clock.advance(seconds)

    TestMyHistories = MyMachine.TestCase

Needs Hypothesis, and pytest or unittest. Every example has an event loop of its own.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent_service.core.errors import CacheValueError
from agent_service.core.glob import compile_glob
from agent_service.core.ttl import NEVER, TTL, resolve_ttl
from agent_service.infrastructure.cache.interface import MISS, Hit, ICache

__all__ = ["CacheMachine"]

STEP: Final = 20.0
"""Seconds. Every time here is a multiple of it, so the duration of the calls does not matter."""

_NAMES: Final = ["a", "b", "ab", "n", "a:{b}", "*", "é\x00"]
_KEYS: Final = st.sampled_from(_NAMES)
_VALUES: Final = st.sampled_from([None, 0, 41, -1, 2**63 - 1, True, 1.5, "", "1", [1, {"k": (None,)}], b"\x00"])
_TTLS: Final = st.sampled_from([None, STEP, 3 * STEP, 600, timedelta(hours=1), 86_400, NEVER, NEVER, 0, -5])
_PASSES: Final = st.sampled_from([STEP, 2 * STEP, 5 * STEP, 600, 3600, 7200, 86_400])
_TAGS: Final = st.lists(st.sampled_from(["t", "u:%", "{é}"]), max_size=3)
_PATTERNS: Final = st.sampled_from(["*", "a*", "?", r"\*", "a", "[^a]*", "x*"])
_AMOUNTS: Final = st.sampled_from([1, -1, 5, 0, 2**63 - 1, -(2**63)])


@dataclass(frozen=True)
class _Entry:
    value: Any
    expires: float
    tags: frozenset[str] = frozenset()


class _FailedError(Exception):
    pass


class CacheMachine(RuleBasedStateMachine):
    """Plays random calls on a cache and on a dictionary; override :meth:`open` and :meth:`advance`."""

    default_ttl: ClassVar[float] = 300.0
    """Seconds; a multiple of 20."""

    async def open(self) -> ICache[Any]:
        """Return an empty cache."""
        raise NotImplementedError("override `open`")

    async def close(self, cache: ICache[Any]) -> None:
        """Close what :meth:`open` opened."""
        await cache.aclose()

    async def advance(self, seconds: float) -> None:
        """Let time pass for the cache."""
        raise NotImplementedError("override `advance`")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._model: dict[str, _Entry] = {}
        self._now = 0.0
        self._cache = self._run(self.open())

    def teardown(self) -> None:
        self._run(self.close(self._cache))
        self._runner.close()

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(call)

    # -- the dictionary

    def _live(self, key: str) -> _Entry | None:
        return self._model.get(key)

    def _put(self, key: str, value: Any, ttl: TTL | None, tags: list[str]) -> bool:
        seconds = resolve_ttl(ttl, self.default_ttl)
        self._model.pop(key, None)
        if seconds > 0:
            self._model[key] = _Entry(value, self._now + seconds, frozenset(tags))
        return seconds > 0

    def _drop(self, unwanted: Callable[[str, _Entry], bool]) -> int:
        gone = [key for key, entry in self._model.items() if unwanted(key, entry)]
        for key in gone:
            del self._model[key]
        return len(gone)

    def _sum(self, key: str, amount: int) -> int | None:
        """Return the new value of a counter; None where it cannot be added to."""
        entry = self._live(key)
        value = 0 if entry is None else entry.value
        fits = type(value) is int and -(2**63) <= value + amount < 2**63
        return value + amount if fits else None

    # -- writing

    @rule(key=_KEYS, value=_VALUES, ttl=_TTLS, tags=_TAGS)
    def _set(self, key: str, value: Any, ttl: Any, tags: list[str]) -> None:
        assert self._run(self._cache.set(key, value, ttl, tags=tags)) is self._put(key, value, ttl, tags)

    @rule(entries=st.dictionaries(_KEYS, _VALUES, max_size=4), ttl=_TTLS, tags=_TAGS)
    def _set_many(self, entries: dict[str, Any], ttl: Any, tags: list[str]) -> None:
        stored = [self._put(key, value, ttl, tags) for key, value in entries.items()]

        assert self._run(self._cache.set_many(entries, ttl, tags=tags)) is all(stored)

    @rule(key=_KEYS, amount=_AMOUNTS, ttl=_TTLS)
    def _increment(self, key: str, amount: int, ttl: Any) -> None:
        expected, entry = self._sum(key, amount), self._live(key)
        try:
            given = self._run(self._cache.increment(key, amount, ttl))
        except CacheValueError:
            given = None

        assert given == expected
        if expected is not None and entry is not None:
            self._model[key] = replace(entry, value=expected)
        elif expected is not None:
            self._put(key, expected, ttl, [])

    @rule(key=_KEYS, ttl=_TTLS.filter(lambda ttl: ttl is not None))
    def _expire(self, key: str, ttl: Any) -> None:
        entry = self._live(key)

        assert self._run(self._cache.expire(key, ttl)) is (entry is not None)
        if entry is not None and self._put(key, entry.value, ttl, []):
            self._model[key] = replace(self._model[key], tags=entry.tags)

    # -- loading

    @rule(key=_KEYS, value=_VALUES, ttl=_TTLS, tags=_TAGS, of_result=st.booleans())
    def _load(self, key: str, value: Any, ttl: Any, tags: list[str], of_result: bool) -> None:
        async def loader() -> Any:
            return value

        named: Any = (lambda _result: tags) if of_result else tags
        given = self._run(self._cache.get_or_load(key, loader, ttl=ttl, tags=named))

        entry = self._live(key)
        assert repr(given) == repr(value if entry is None else entry.value)
        if entry is None:
            self._put(key, value, ttl, tags)

    @rule(key=_KEYS)
    def _load_in_vain(self, key: str) -> None:
        async def loader() -> Any:
            raise _FailedError

        entry = self._live(key)
        try:
            given = self._run(self._cache.get_or_load(key, loader))
        except _FailedError:
            assert entry is None
        else:
            assert entry is not None
            assert repr(given) == repr(entry.value)

    @rule(entries=st.dictionaries(_KEYS, _VALUES, max_size=4), unknown=_KEYS, ttl=_TTLS, tags=_TAGS)
    def _load_many(self, entries: dict[str, Any], unknown: str, ttl: Any, tags: list[str]) -> None:
        asked: list[str] = []

        async def loader(keys: list[str]) -> dict[str, Any]:
            asked.extend(keys)
            return {key: entries[key] for key in keys if key in entries}

        wanted = [*entries, unknown]
        missing = [key for key in dict.fromkeys(wanted) if self._live(key) is None]
        given = self._run(self._cache.get_or_load_many(wanted, loader, ttl=ttl, tags=tags))

        assert asked == missing
        expected = {key: entry.value for key in wanted if (entry := self._live(key)) is not None}
        expected |= {key: entries[key] for key in missing if key in entries}
        assert {key: repr(value) for key, value in given.items()} == {k: repr(v) for k, v in expected.items()}
        for key in missing:
            if key in entries:
                self._put(key, entries[key], ttl, tags)

    # -- invalidating

    @rule(key=_KEYS)
    def _delete(self, key: str) -> None:
        assert self._run(self._cache.delete(key)) is (self._drop(lambda each, _: each == key) > 0)

    @rule(keys=st.lists(_KEYS, max_size=4))
    def _delete_many(self, keys: list[str]) -> None:
        assert self._run(self._cache.delete_many(keys)) == self._drop(lambda each, _: each in keys)

    @rule(pattern=_PATTERNS)
    def _delete_pattern(self, pattern: str) -> None:
        matches = compile_glob(pattern)

        assert self._run(self._cache.delete_pattern(pattern)) == self._drop(lambda each, _: matches(each.encode()))

    @rule(tags=_TAGS)
    def _invalidate_tags(self, tags: list[str]) -> None:
        self._run(self._cache.invalidate_tags(tags))
        self._drop(lambda _, entry: not entry.tags.isdisjoint(tags))

    @rule()
    def _clear(self) -> None:
        self._run(self._cache.clear())
        self._model.clear()

    @rule(seconds=_PASSES)
    def _let_time_pass(self, seconds: float) -> None:
        self._run(self.advance(seconds))
        self._now += seconds
        self._drop(lambda _, entry: entry.expires <= self._now)

    # -- reading

    @rule(key=_KEYS)
    def _read(self, key: str) -> None:
        entry = self._live(key)

        found = self._run(self._cache.lookup(key))
        assert repr(found) == repr(MISS if entry is None else Hit(entry.value))
        assert self._run(self._cache.exists(key)) is (entry is not None)
        default = object()
        given = self._run(self._cache.get(key, default))
        assert given is default if entry is None else repr(given) == repr(entry.value)

    @rule(key=_KEYS)
    def _ttl(self, key: str) -> None:
        entry = self._live(key)
        left = self._run(self._cache.ttl(key))

        if entry is None or entry.expires == math.inf:
            assert left is (None if entry is None else NEVER)
        else:
            assert entry.expires - self._now - STEP / 2 < left <= entry.expires - self._now

    @rule(pattern=_PATTERNS)
    def _scan(self, pattern: str) -> None:
        matches = compile_glob(pattern)

        assert sorted(self._run(self._scanned(pattern))) == sorted(key for key in self._model if matches(key.encode()))

    async def _scanned(self, pattern: str) -> list[str]:
        return [key async for key in self._cache.scan(pattern)]

    @invariant()
    def _all_entries_are_those_of_the_dictionary(self) -> None:
        found = self._run(self._cache.get_many(_NAMES))

        assert {key: repr(value) for key, value in found.items()} == {
            key: repr(entry.value) for key, entry in self._model.items()
        }
