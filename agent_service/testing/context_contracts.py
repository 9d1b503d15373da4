"""The contract of context stores: inherit the class, say what to test, and pytest proves that a backend keeps it.

::

    class TestMyStore(ContextStoreContract):
        @pytest.fixture
        async def store(self):
            async with MyStore() as store:
                yield store

Needs pytest, pytest-asyncio in its ``auto`` mode, and Hypothesis. ``docs/contributing/add-a-context-store.md`` builds a
store that keeps the contract.
"""

import asyncio
import enum
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from agent_service.context.interface import ContextStore
from agent_service.context.keys import encode_key
from agent_service.core.errors import ContextStoreError
from agent_service.core.ttl import NEVER
from agent_service.testing.histories import StoreHistory, play

__all__ = ["DISTINCT_KEYS", "HOSTILE_KEYS", "ContextStoreContract"]

SHORT = 0.06
"""Seconds; long enough for an operation on a loaded machine, short enough to wait for."""

DISTINCT_KEYS: list[Any] = [
    1,
    "1",
    True,
    1.0,
    ("a", 1),
    ("a", "1"),
    ("a", True),
    ("a",),
    "a",
    (("a",),),
    None,
    "None",
    "null",
    b"a",
    frozenset({"a", 1}),
    UUID(int=1),
    str(UUID(int=1)),
    date(2026, 1, 2),
    datetime(2026, 1, 2, tzinfo=UTC),
    Decimal("1.0"),
    10**40,
    (),
]
"""Keys that a store must keep apart."""

HOSTILE_KEYS: list[str] = [
    "",
    " ",
    "a b",
    "a_b",
    "a:b",
    "a/b",
    "/etc/passwd",
    "..",
    ".",
    "../../x",
    "a\\b",
    "C:\\x",
    "*",
    "?",
    "[a]",
    "{a}",
    "a}b{c",
    "~",
    "~1",
    '~"a"',
    "%41",
    "A",
    "a\x00b",
    "a\x00",
    "\n",
    "'; DROP TABLE context_store; --",
    "é",
    "e\u0301",
    "\U0001f600",
    "con",
    "CON",
    "x" * 200,
    "x" * 10_000,
    "x" * 9_999 + "y",
    "\U0001f600" * 2_500,
]
"""Text that is hard on separators, globs, file systems, case and lengths."""

VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    10**40,
    1.0,
    -0.0,
    1e308,
    math.inf,
    "",
    "a\x00b",
    "\U0001f600",
    b"\x00\xff",
    [],
    {},
    [1, [2, {"a": None}]],
    {"$tuple": [1]},
    (1, "a"),
    {1, 2},
    {1: "one"},
    datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    timedelta(seconds=1.5),
    Decimal("1.10"),
    UUID(int=7),
]


class _Colour(enum.Enum):
    RED = "red"


class ContextStoreContract:
    """What every :class:`ContextStore` does. Provide a fixture ``store`` that returns an empty one."""

    expires: ClassVar[bool] = False
    """Whether the store can expire entries; it refuses a time to live otherwise."""
    short: ClassVar[float] = SHORT
    """Seconds that entries live in a test that waits for their end; more where :meth:`advance` moves a clock on."""
    examples: ClassVar[int] = 6
    """How many random histories the model test plays."""

    async def advance(self, seconds: float) -> None:
        """Let time pass for the store."""
        await asyncio.sleep(seconds)

    async def test_what_was_set_is_read(self, store: ContextStore) -> None:
        await store.set("session-123", {"user_name": "alice", "repo_name": "my-repo"})

        assert await store.get("session-123") == {"user_name": "alice", "repo_name": "my-repo"}

    async def test_a_missing_key_is_none(self, store: ContextStore) -> None:
        await store.set("other", {"a": 1})

        assert await store.get("missing") is None
        assert await store.get_many(["missing"]) == {}

    async def test_an_empty_dictionary_is_a_value(self, store: ContextStore) -> None:
        await store.set("a", {"old": 1})
        await store.set("a", {})

        assert await store.get("a") == {}
        assert await store.list_keys() == ["a"]
        assert await store.update("b", {}) == {}
        assert await store.get("b") == {}

    async def test_set_replaces_the_whole(self, store: ContextStore) -> None:
        await store.set("a", {"x": 1, "y": 2})
        await store.set("a", {"y": 3})

        assert await store.get("a") == {"y": 3}

    async def test_values_come_back_with_their_types(self, store: ContextStore) -> None:
        fields = {str(number): value for number, value in enumerate(VALUES)}
        await store.set("a", {**fields, "inner": fields})
        updated = await store.update("b", fields)
        found = await store.get("a") or {}

        assert [repr(updated[name]) for name in fields] == [repr(each) for each in VALUES]
        assert [repr(found[name]) for name in fields] == [repr(each) for each in VALUES]
        assert [repr(found["inner"][name]) for name in fields] == [repr(each) for each in VALUES]

    async def test_any_mapping_is_taken_and_any_text_is_a_field(self, store: ContextStore) -> None:
        fields = {"": 1, "$": 2, "a.b": 3, "é\x00": 4, "x" * 1000: 5}
        await store.set("a", fields)
        await store.set("b", {"$tuple": [1]})

        assert await store.get("a") == fields
        assert await store.get("b") == {"$tuple": [1]}
        assert await store.update("a", {"": None}) == {**fields, "": None}

    async def test_changing_a_value_changes_nothing_in_the_store(self, store: ContextStore) -> None:
        stored = {"inner": [1]}
        await store.set("a", stored)
        stored["inner"].append(2)
        (await store.get("a") or {})["inner"].append(3)
        (await store.update("a", {}))["inner"].append(4)
        (await store.get_many(["a"]))["a"]["inner"].append(5)
        patch = {"more": [1]}
        (await store.update("a", patch))["more"].append(2)
        patch["more"].append(3)

        assert await store.get("a") == {"inner": [1], "more": [1]}
        await store.delete("a")

    # -- update

    async def test_update_merges_the_top_level_and_gives_the_whole(self, store: ContextStore) -> None:
        await store.set("a", {"x": {"deep": 1}, "y": 2})

        merged = await store.update("a", {"x": {"other": 1}, "z": None})

        assert merged == await store.get("a") == {"x": {"other": 1}, "y": 2, "z": None}

    async def test_update_of_a_missing_key_makes_it(self, store: ContextStore) -> None:
        assert await store.update("a", {"x": 1}) == {"x": 1}
        assert await store.get("a") == {"x": 1}

    async def test_update_may_ignore_none(self, store: ContextStore) -> None:
        await store.set("a", {"x": 1})

        assert await store.update("a", {"x": None, "y": 2}, drop_none=True) == {"x": 1, "y": 2}
        assert await store.update("b", {"x": None}, drop_none=True) == {}
        assert await store.get("a") == {"x": 1, "y": 2}

    async def test_concurrent_updates_lose_nothing(self, store: ContextStore) -> None:
        results = await asyncio.gather(*(store.update("a", {f"field{n}": n}) for n in range(30)))

        assert await store.get("a") == {f"field{n}": n for n in range(30)}
        assert max(len(each) for each in results) == 30

    # -- compare and set

    async def test_compare_and_set_stores_where_the_present_value_is_as_expected(self, store: ContextStore) -> None:
        assert await store.compare_and_set("a", {"version": 1}, expected={"version": 0}) is False
        assert await store.compare_and_set("a", {"version": 1}, expected={}) is False
        assert await store.get("a") is None
        assert await store.compare_and_set("a", {"version": 1, "x": [1]}, expected=None) is True
        assert await store.compare_and_set("a", {"version": 9}, expected=None) is False
        assert await store.compare_and_set("a", {"version": 9}, expected={"version": 1.0}) is False
        assert await store.compare_and_set("a", {"version": 9}, expected={"version": 1, "missing": None}) is False
        assert await store.get("a") == {"version": 1, "x": [1]}
        assert await store.compare_and_set("a", {"version": 2}, expected={"version": 1, "x": [1]}) is True
        assert await store.get("a") == {"version": 2}
        assert await store.compare_and_set("a", {}, expected={}) is True
        assert await store.get("a") == {}

    async def test_one_of_many_concurrent_writers_wins(self, store: ContextStore) -> None:
        created = await asyncio.gather(
            *(store.compare_and_set("a", {"version": 1, "by": n}, expected=None) for n in range(10))
        )
        changed = await asyncio.gather(
            *(store.compare_and_set("a", {"version": 2, "by": n}, expected={"version": 1}) for n in range(10))
        )

        assert sorted(created) == sorted(changed) == [False] * 9 + [True]
        assert await store.get("a") == {"version": 2, "by": changed.index(True)}

    # -- keys

    async def test_keys_differ_by_type_and_come_back(self, store: ContextStore) -> None:
        for number, key in enumerate(DISTINCT_KEYS):
            await store.set(key, {"n": number})

        assert [await store.get(key) for key in DISTINCT_KEYS] == [{"n": n} for n in range(len(DISTINCT_KEYS))]
        assert sorted(map(encode_key, await store.list_keys())) == sorted(map(encode_key, DISTINCT_KEYS))
        await store.delete(1)
        assert await store.get(1) is None
        assert await store.get(True) is not None

    async def test_hostile_text_is_a_key_like_any_other(self, store: ContextStore) -> None:
        await store.set_many({key: {"key": key} for key in HOSTILE_KEYS})

        for key in HOSTILE_KEYS:
            assert await store.get(key) == {"key": key}
        assert sorted(await store.list_keys()) == sorted(HOSTILE_KEYS)
        for key in HOSTILE_KEYS:
            await store.delete(key)
        assert await store.list_keys() == []

    async def test_an_unusable_key_is_refused(self, store: ContextStore) -> None:
        unusable: list[Any] = [[], {}, {"a"}, object(), ("a", object()), "\ud800", ("\udfff",), _Colour.RED]
        for key in unusable:
            for call in (
                store.get(key),
                store.set(key, {}),
                store.update(key, {}),
                store.delete(key),
                store.compare_and_set(key, {}, expected=None),
                store.get_many(["good", key]),
                store.delete_many(["good", key]),
            ):
                with pytest.raises(ContextStoreError, match="key"):
                    await call
        assert await store.list_keys() == []

    async def test_an_unusable_value_is_refused_and_nothing_changes(self, store: ContextStore) -> None:
        await store.set("a", {"old": 1})

        unusable: list[Any] = [None, [], "text", {1: 2}, {"a": object()}, {"a": "\ud800"}, {"\ud800": 1}]
        for value in unusable:
            for call in (
                store.set("a", value),
                store.update("a", value),
                store.compare_and_set("a", value, expected={}),
                store.set_many({"b": {}, "a": value}),
            ):
                with pytest.raises(ContextStoreError):
                    await call
        assert await store.get("a") == {"old": 1}
        assert await store.list_keys() == ["a"]

    # -- delete, list, bulk

    async def test_deleting_removes_and_deleting_again_is_no_error(self, store: ContextStore) -> None:
        await store.set("a", {"x": 1})
        await store.delete("a")
        await store.delete("a")

        assert await store.get("a") is None
        assert await store.list_keys() == []
        assert await store.update("a", {"y": 1}) == {"y": 1}

    async def test_many_keys_at_once(self, store: ContextStore) -> None:
        values: dict[Any, dict[str, int]] = {("row", n): {"n": n} for n in range(300)}
        await store.set("text", {"kept": 1})
        await store.set_many(values)

        assert await store.get_many([*values, "missing", ("row", 1)]) == values
        assert len(await store.list_keys()) == 301
        assert await store.delete_many([*values, "missing", ("row", 1)]) == 300
        assert await store.list_keys() == ["text"]

    async def test_many_values_may_be_pairs(self, store: ContextStore) -> None:
        await store.set_many([("a", {"n": 1}), ["b", {"n": 2}], ("a", {"n": 3})])  # type: ignore[list-item] # lists, too
        await store.set_many((key, {"n": 4}) for key in (("c", 1), ("c", "1")))
        await store.set_many([])

        assert await store.get_many(["a", "b", ("c", 1), ("c", "1")]) == {
            "a": {"n": 3},
            "b": {"n": 2},
            ("c", 1): {"n": 4},
            ("c", "1"): {"n": 4},
        }

    async def test_pairs_hold_keys_that_a_mapping_cannot(self, store: ContextStore) -> None:
        await store.set_many([(1, {"n": "int"}), (True, {"n": "bool"}), (1.0, {"n": "float"})])

        assert [await store.get(key) for key in (1, True, 1.0)] == [{"n": "int"}, {"n": "bool"}, {"n": "float"}]

    async def test_what_is_neither_a_mapping_nor_pairs_is_refused_and_nothing_changes(
        self, store: ContextStore
    ) -> None:
        unusable: list[Any] = [None, 5, "ab", ["ab"], [("a",)], [("a", {}, 1)], [("b", {}), "ab"], [("b", {}), None]]
        for values in unusable:
            with pytest.raises(ContextStoreError, match="values"):
                await store.set_many(values)
        with pytest.raises(ContextStoreError):
            await store.set_many([("b", {}), ("a", None)])  # type: ignore[list-item] # that is the point
        assert await store.list_keys() == []

    async def test_many_of_nothing_is_nothing(self, store: ContextStore) -> None:
        await store.set_many({})

        assert await store.get_many([]) == {}
        assert await store.delete_many([]) == 0

    # -- time

    async def test_time_to_live_is_kept_or_refused(self, store: ContextStore) -> None:
        await store.set("never", {"x": 1}, ttl=NEVER)
        if not self.expires:
            with pytest.raises(ContextStoreError, match="ttl"):
                await store.set("a", {"x": 1}, ttl=self.short)
            assert await store.list_keys() == ["never"]
            return
        await store.set("a", {"x": 1}, ttl=self.short)
        await store.set_many({"b": {}, "c": {}}, ttl=timedelta(seconds=self.short))
        await store.update("b", {"y": 1})
        await store.set("c", {"stays": 1})
        await self.advance(self.short * 2)

        assert await store.get_many(["a", "b"]) == {}
        assert await store.compare_and_set("a", {}, expected={}) is False
        assert await store.delete_many(["a", "b"]) == 0
        assert sorted(await store.list_keys()) == ["c", "never"]
        assert await store.update("b", {"new": 1}) == {"new": 1}

    async def test_an_unusable_ttl_is_refused(self, store: ContextStore) -> None:
        unusable: list[Any] = [0, -1, math.nan, math.inf, True, "60"]
        for ttl in unusable:
            for call in (
                store.set("a", {}, ttl=ttl),
                store.set_many({"a": {}}, ttl=ttl),
                store.compare_and_set("a", {}, expected=None, ttl=ttl),
            ):
                with pytest.raises(ContextStoreError, match="ttl"):
                    await call
        assert await store.list_keys() == []

    # -- the whole, against a model

    async def test_any_history_gives_what_a_dictionary_gives(self, store: ContextStore) -> None:
        await play(_ContextHistory, store, examples=self.examples, steps=20)


_KEYS = st.sampled_from(["a", "b", "~", "", 1, "1", True, ("a", 1), None])
_FIELDS = st.dictionaries(
    st.sampled_from(["x", "y", "", "é"]), st.none() | st.integers() | st.text(max_size=3) | st.lists(st.booleans())
)


class _ContextHistory(StoreHistory[ContextStore]):
    def __init__(self, store: ContextStore, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(store, loop)
        self.model: dict[str, dict[str, Any]] = {}
        self.run(store.delete_many(self.run(store.list_keys())))

    @rule(key=_KEYS, value=_FIELDS)
    def set(self, key: Any, value: dict[str, Any]) -> None:
        self.run(self.store.set(key, value))
        self.model[encode_key(key)] = value

    @rule(key=_KEYS, patch=_FIELDS, drop_none=st.booleans())
    def update(self, key: Any, patch: dict[str, Any], drop_none: bool) -> None:
        merged = self.run(self.store.update(key, patch, drop_none=drop_none))
        news = {name: each for name, each in patch.items() if not drop_none or each is not None}
        self.model[encode_key(key)] = {**self.model.get(encode_key(key), {}), **news}
        assert merged == self.model[encode_key(key)]

    @rule(key=_KEYS)
    def delete(self, key: Any) -> None:
        self.run(self.store.delete(key))
        self.model.pop(encode_key(key), None)

    @rule(key=_KEYS)
    def get(self, key: Any) -> None:
        assert self.run(self.store.get(key)) == self.model.get(encode_key(key))

    @rule(key=_KEYS, value=_FIELDS, expected=st.none() | _FIELDS)
    def compare_and_set(self, key: Any, value: dict[str, Any], expected: dict[str, Any] | None) -> None:
        present = self.model.get(encode_key(key))
        if present is None or expected is None:
            fits = present is None and expected is None
        else:
            fits = repr({**present, **expected}) == repr(present)
        assert self.run(self.store.compare_and_set(key, value, expected=expected)) is fits
        if fits:
            self.model[encode_key(key)] = value

    @rule(keys=st.lists(_KEYS, unique_by=encode_key), value=_FIELDS)
    def many(self, keys: list[Any], value: dict[str, Any]) -> None:
        self.run(self.store.set_many(dict.fromkeys(keys, value)))
        self.model.update({encode_key(key): value for key in dict.fromkeys(keys)})
        assert self.run(self.store.get_many(keys)) == {
            key: self.model[encode_key(key)] for key in keys if encode_key(key) in self.model
        }

    @rule(keys=st.lists(_KEYS))
    def delete_many(self, keys: list[Any]) -> None:
        texts = {encode_key(key) for key in keys}
        assert self.run(self.store.delete_many(keys)) == len(texts & self.model.keys())
        for text in texts:
            self.model.pop(text, None)

    @invariant()
    def keys_are_those_of_the_model(self) -> None:
        assert sorted(map(encode_key, self.run(self.store.list_keys()))) == sorted(self.model)
