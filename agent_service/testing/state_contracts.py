"""The contract of state stores: inherit the class, say what to test, and pytest proves that a backend keeps it.

::

    class TestMyStore(StateStoreContract):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda model=None: MyStore(tmp_path, model=model)

Needs pytest, pytest-asyncio in its ``auto`` mode, and Hypothesis.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from pydantic import BaseModel, Field, ValidationError

from agent_service.core.errors import StateConflictError, StateStoreError
from agent_service.state.evolution import register_upgrader
from agent_service.state.interface import StateStore
from agent_service.state.models import AgentContext, ChatMessage, CoachContext, CoachingState, UserProfile
from agent_service.testing.context_contracts import HOSTILE_KEYS
from agent_service.testing.histories import StoreHistory, play

__all__ = ["StateStoreContract"]

METADATA: dict[str, Any] = {
    "at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "id": UUID(int=7),
    "price": Decimal("1.10"),
    "tuple": (1, "a"),
    "set": {1, 2},
    "bytes": b"\x00\xff",
    "big": 10**40,
    "float": 1.0,
    "nested": {"": [None, True, {"a\x00b": "\U0001f600"}]},
    "empty": {},
}


class Light(Enum):
    """States of an application's own agent."""

    GREEN = "green"
    RED = "red"


class Driver(BaseModel):
    """An application's own profile."""

    name: str = Field(alias="driverName", min_length=2)
    points: int = 0


class Crossing(AgentContext[Light, Driver]):
    """An application's own context, in its first version."""


class CrossingTwo(AgentContext[Light, Driver]):
    """The same in its third version."""

    lanes: int
    schema_version: int = 3


def _add_lane(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "lane": 1, "version": 99, "user_id": "somebody else"}


def _rename_lane(fields: dict[str, Any]) -> dict[str, Any]:
    fields["lanes"] = fields.pop("lane") + 1
    return fields


register_upgrader(CrossingTwo, 1, _add_lane)
register_upgrader(CrossingTwo, 2, _rename_lane)

OpenStore = Callable[..., StateStore[Any]]


class StateStoreContract:
    """What every :class:`StateStore` does.

    Provide a fixture ``open_store`` that returns a function. Each call opens a store over the same place, which is
    empty at first, for the given ``model``.
    """

    examples: ClassVar[int] = 5
    """How many random histories the model test plays."""

    @pytest.fixture
    async def store(self, open_store: OpenStore) -> AsyncIterator[StateStore]:
        """The store for CoachContext."""
        async with open_store() as store:
            yield store

    async def test_an_unknown_user_is_none(self, store: StateStore) -> None:
        await store.save_context(CoachContext(user_id="other"))

        assert await store.load_context("user-123") is None

    async def test_what_was_saved_is_loaded(self, store: StateStore) -> None:
        context = CoachContext(
            user_id="user-123",
            current_state=CoachingState.ACTION_PLANNING,
            conversation_history=[ChatMessage(role="user", content="a\x00b \U0001f600", metadata={"n": 1})],
            consolidated_summary="so far",
            user_profile=UserProfile(name="Ada", goals=["x"]),
            metadata=METADATA,
        )

        await store.save_context(context)
        found = await store.load_context("user-123")

        assert found == context
        assert found is not context
        assert found.current_state is CoachingState.ACTION_PLANNING
        assert repr(found.metadata) == repr(METADATA)

    async def test_saving_replaces_the_whole(self, store: StateStore) -> None:
        await store.save_context(CoachContext(user_id="a", metadata={"x": 1}, user_profile=UserProfile(name="Ada")))
        await store.save_context(CoachContext(user_id="a", metadata={"y": 2}))

        found = await store.load_context("a")

        assert found is not None
        assert (found.metadata, found.user_profile) == ({"y": 2}, None)

    async def test_what_is_not_saved_is_not_stored(self, store: StateStore) -> None:
        context = CoachContext(user_id="a", metadata={"list": [1]})
        await store.save_context(context)
        context.metadata["list"].append(2)
        context.conversation_history.append(ChatMessage(role="user", content="lost"))
        loaded = await store.load_context("a")
        assert loaded is not None
        loaded.metadata["list"].append(3)
        loaded.current_state = CoachingState.ACCOUNTABILITY

        found = await store.load_context("a")

        assert found is not None
        assert found.metadata == {"list": [1]}
        assert found.conversation_history == []
        assert found.current_state is CoachingState.INTRODUCTION

    # -- versions

    async def test_each_save_is_a_version_and_the_last_writer_wins(self, store: StateStore) -> None:
        first, second = CoachContext(user_id="a"), CoachContext(user_id="a", consolidated_summary="second")
        await store.save_context(first)
        await store.save_context(second)
        versions = [first.version, second.version]
        await store.save_context(first)

        found = await store.load_context("a")

        assert [*versions, first.version] == [1, 2, 3]
        assert found == first

    async def test_a_version_that_no_longer_holds_is_refused(self, store: StateStore) -> None:
        await store.save_context(CoachContext(user_id="a"))
        mine, theirs = await store.load_context("a"), await store.load_context("a")
        assert mine is not None
        assert theirs is not None
        theirs.consolidated_summary = "theirs"
        await store.save_context(theirs, expected_version=theirs.version)
        mine.consolidated_summary = "mine"

        with pytest.raises(StateConflictError, match="'a'"):
            await store.save_context(mine, expected_version=mine.version)

        assert mine.version == 1
        assert theirs.version == 2
        assert await store.load_context("a") == theirs

    async def test_version_zero_expects_that_there_is_none(self, store: StateStore) -> None:
        with pytest.raises(StateConflictError):
            await store.save_context(CoachContext(user_id="a"), expected_version=1)
        assert await store.load_context("a") is None
        await store.save_context(CoachContext(user_id="a"), expected_version=0)

        with pytest.raises(StateConflictError):
            await store.save_context(CoachContext(user_id="a"), expected_version=0)

    async def test_one_of_many_concurrent_savers_of_a_version_wins(self, open_store: OpenStore) -> None:
        async with open_store() as store, open_store() as other:
            for expected in range(3):
                results = await asyncio.gather(
                    *(
                        (store, other)[n % 2].save_context(
                            CoachContext(user_id="a", metadata={"by": n}), expected_version=expected
                        )
                        for n in range(10)
                    ),
                    return_exceptions=True,
                )
                winners = [n for n, result in enumerate(results) if result is None]
                found = await store.load_context("a")

                assert len(winners) == 1
                assert sum(isinstance(each, StateConflictError) for each in results) == 9
                assert found is not None
                assert (found.metadata, found.version) == ({"by": winners[0]}, expected + 1)

    async def test_concurrent_saves_without_a_version_all_succeed_and_all_count(self, store: StateStore) -> None:
        contexts = [CoachContext(user_id="a", metadata={"by": n}) for n in range(10)]

        await asyncio.gather(*map(store.save_context, contexts))

        assert sorted(each.version for each in contexts) == list(range(1, 11))
        assert await store.load_context("a") == next(each for each in contexts if each.version == 10)

    @pytest.mark.parametrize("version", [-1, True, 1.0, "1"], ids=repr)
    async def test_an_unusable_version_is_refused(self, store: StateStore, version: Any) -> None:
        with pytest.raises(StateStoreError, match="expected_version"):
            await store.save_context(CoachContext(user_id="a"), expected_version=version)

        assert await store.load_context("a") is None

    # -- deleting and listing

    async def test_a_deleted_user_is_unknown_and_begins_again(self, store: StateStore) -> None:
        for _ in range(3):
            await store.save_context(CoachContext(user_id="a"))
        await store.delete_context("a")
        await store.delete_context("a")
        assert await store.load_context("a") is None
        assert await store.list_user_ids() == []
        context = CoachContext(user_id="a")

        await store.save_context(context, expected_version=0)

        assert context.version == 1

    async def test_every_user_is_listed_once(self, store: StateStore) -> None:
        assert await store.list_user_ids() == []
        users = [f"user-{n}" for n in range(25)]
        await asyncio.gather(*(store.save_context(CoachContext(user_id=each)) for each in users * 2))

        assert sorted(await store.list_user_ids()) == sorted(users)

    # -- user ids

    async def test_hostile_ids_are_kept_apart_or_refused(self, store: StateStore) -> None:
        contexts = [CoachContext(user_id=each, metadata={"id": each}) for each in HOSTILE_KEYS]
        results = await asyncio.gather(*map(store.save_context, contexts), return_exceptions=True)
        kept = [each for each, result in zip(contexts, results, strict=True) if result is None]
        refused = [each.user_id for each, result in zip(contexts, results, strict=True) if result is not None]

        assert all(isinstance(each, StateStoreError) for each in results if each is not None)
        assert all(not each or len(each.encode()) > 1000 for each in refused)
        for user_id in refused:
            with pytest.raises(StateStoreError):
                await store.load_context(user_id)
        for context in kept:
            assert await store.load_context(context.user_id) == context
        assert sorted(await store.list_user_ids()) == sorted(each.user_id for each in kept)
        for context in kept:
            await store.delete_context(context.user_id)
        assert await store.list_user_ids() == []

    async def test_what_is_no_user_id_is_refused(self, store: StateStore) -> None:
        unusable: list[Any] = ["", None, 1, b"a", "\ud800", "a\udfff"]
        for user_id in unusable:
            unchecked = CoachContext.model_construct(
                user_id=user_id,
                current_state=CoachingState.INTRODUCTION,
                conversation_history=[],
                metadata={},
                version=0,
                schema_version=1,
            )
            for call in (store.load_context(user_id), store.delete_context(user_id), store.save_context(unchecked)):
                with pytest.raises(StateStoreError):
                    await call
        assert await store.list_user_ids() == []

    # -- models

    async def test_contexts_of_ones_own_come_back_as_their_class(self, open_store: OpenStore) -> None:
        async with open_store(model=Crossing) as store:
            context = Crossing(user_id="a", current_state=Light.RED, user_profile=Driver(driverName="Ada", points=3))
            await store.save_context(context)

            found = await store.load_context("a")

        assert found == context
        assert type(found) is Crossing
        assert type(found.user_profile) is Driver

    async def test_what_would_not_load_again_is_not_saved(self, store: StateStore) -> None:
        await store.save_context(CoachContext(user_id="a", metadata={"old": 1}))
        junk: Any = 42
        in_history = CoachContext(user_id="a", conversation_history=[])
        in_history.conversation_history.append(junk)
        in_metadata = CoachContext(user_id="a", metadata={"x": {"y": object()}})

        with pytest.raises(StateStoreError, match=r"'a'.*conversation_history\.0") as first:
            await store.save_context(in_history)
        with pytest.raises(StateStoreError, match=r"'a'.*\['x'\]\['y'\]"):
            await store.save_context(in_metadata, expected_version=1)
        found = await store.load_context("a")

        assert isinstance(first.value.__cause__, ValidationError)
        assert found is not None
        assert (found.metadata, found.version) == ({"old": 1}, 1)

    async def test_a_context_of_another_model_is_refused(self, store: StateStore) -> None:
        class Richer(CoachContext):
            extra: int = 1

        others: list[Any] = [
            Richer(user_id="a"),
            Crossing(user_id="a", current_state=Light.RED),
            None,
            {"user_id": "a"},
        ]
        for other in others:
            with pytest.raises(StateStoreError, match="must be a CoachContext"):
                await store.save_context(other)
        assert await store.list_user_ids() == []

    async def test_stored_data_that_does_not_validate_is_an_error(self, open_store: OpenStore) -> None:
        async with open_store(model=Crossing) as crossings, open_store() as coaches:
            await crossings.save_context(Crossing(user_id="ada", current_state=Light.RED))

            with pytest.raises(StateStoreError, match=r"'ada'.*current_state") as caught:
                await coaches.load_context("ada")
            await coaches.save_context(CoachContext(user_id="ada"))
            found = await coaches.load_context("ada")

        assert isinstance(caught.value.__cause__, ValidationError)
        assert found is not None
        assert found.version == 2

    # -- schema versions

    async def test_older_contexts_are_upgraded_when_they_are_loaded(self, open_store: OpenStore) -> None:
        async with open_store(model=Crossing) as old, open_store(model=CrossingTwo) as new:
            await old.save_context(Crossing(user_id="a", current_state=Light.RED, metadata={"x": 1}))
            upgraded = await new.load_context("a")
            assert upgraded == CrossingTwo(
                user_id="a", current_state=Light.RED, metadata={"x": 1}, lanes=2, version=1, schema_version=3
            )
            await new.save_context(upgraded, expected_version=1)

            with pytest.raises(StateStoreError, match=r"'a'.*schema_version is 3"):
                await old.load_context("a")
            assert await new.load_context("a") == upgraded

    # -- the whole, against a model

    async def test_any_history_gives_what_a_dictionary_gives(self, store: StateStore) -> None:
        await play(_StateHistory, store, examples=self.examples, steps=15)


_USERS = st.sampled_from(["a", "A", "a/b", "..", "~a", "*", "a\x00"])
_SUMMARIES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


class _StateHistory(StoreHistory[StateStore]):
    def __init__(self, store: StateStore, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(store, loop)
        self.model: dict[str, CoachContext] = {}
        for user_id in self.run(store.list_user_ids()):
            self.run(store.delete_context(user_id))

    @rule(user_id=_USERS, summary=_SUMMARIES, expected=st.none() | st.integers(0, 3))
    def save(self, user_id: str, summary: str, expected: int | None) -> None:
        context = CoachContext(user_id=user_id, consolidated_summary=summary)
        present = self.model[user_id].version if user_id in self.model else 0
        if expected is not None and expected != present:
            with pytest.raises(StateConflictError):
                self.run(self.store.save_context(context, expected))
            assert context.version == 0
        else:
            self.run(self.store.save_context(context, expected))
            assert context.version == present + 1
            self.model[user_id] = context

    @rule(user_id=_USERS)
    def load(self, user_id: str) -> None:
        assert self.run(self.store.load_context(user_id)) == self.model.get(user_id)

    @rule(user_id=_USERS)
    def delete(self, user_id: str) -> None:
        self.run(self.store.delete_context(user_id))
        self.model.pop(user_id, None)

    @invariant()
    def users_are_those_of_the_model(self) -> None:
        assert sorted(self.run(self.store.list_user_ids())) == sorted(self.model)
