"""Whatever is done to it, the store answers as InMemoryConversationStore does."""

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from pydantic_ai.conversation import Conversation, ConversationTypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.pydantic_ai import DatabaseConversationStore
from tests.integrations.pydantic_ai.messages import deferred, messages, usages
from tests.support.depth import examples

IDS = st.sampled_from(["a", "b", "c"])
SCOPES = st.sampled_from([None, None, "ada", ""])
LIMITS = st.none() | st.integers(-1, 4)
PLACES = st.integers(-1, 6)
EXPECTED = (ConversationConflict, UserError, LookupError)

Both = tuple[Conversation, Conversation]
Work = Callable[[ConversationStore, int], Coroutine[Any, Any, Any]]


class Histories(RuleBasedStateMachine):
    """Does everything twice. Ids are made by the framework, so each entry here has its counterpart there."""

    runner: asyncio.Runner
    database: DatabaseManager

    def __init__(self) -> None:
        super().__init__()
        self.stores: tuple[ConversationStore, ConversationStore] = (
            DatabaseConversationStore(self.database, tenant_id=uuid4().hex),
            InMemoryConversationStore(),
        )
        self.held: list[Both] = []
        self.entries: dict[str, str] = {}

    def twice(self, work: Work) -> tuple[Any, Any] | None:
        """Return both results, or None where both raised the same."""
        mine, theirs = (self.outcome(work, which) for which in (0, 1))
        if isinstance(mine, EXPECTED) or isinstance(theirs, EXPECTED):
            assert [kind for kind in EXPECTED if isinstance(mine, kind)] == [
                kind for kind in EXPECTED if isinstance(theirs, kind)
            ], (mine, theirs)
            return None
        return mine, theirs

    def outcome(self, work: Work, which: int) -> Any:
        try:
            return self.runner.run(work(self.stores[which], which))
        except EXPECTED as exc:
            return exc

    def pair(self, mine: list[ConversationEntry], theirs: list[ConversationEntry]) -> None:
        """Note which entries are the same, and that they are."""
        assert len(mine) == len(theirs)
        for ours, other in zip(mine, theirs, strict=True):
            assert self.entries.setdefault(ours.id, other.id) == other.id
            assert self.counterpart(ours.parent_id) == other.parent_id
            assert ours.message == other.message

    def counterpart(self, entry_id: str | None) -> str | None:
        return None if entry_id is None else self.entries[entry_id]

    def hold(self, both: Any) -> None:
        if both is not None and both[0] is not None:
            assert both[1] is not None
            assert self.known(both[0]) == self.known(both[1])
            assert both[0].new_message_index == both[1].new_message_index
            self.held.append(both)
        elif both is not None:
            assert both[1] is None

    def known(self, conversation: Conversation) -> Conversation:
        return replace(conversation, revision=None if conversation.revision is None else "some")

    def chosen(self, number: int) -> Both:
        return self.held[number % len(self.held)]

    @rule(id_=IDS, said=messages, usage=usages)
    def begin(self, id_: str, said: list[Any], usage: Any) -> None:
        both = [Conversation(conversation_id=id_, messages=deepcopy(said), usage=deepcopy(usage)) for _ in range(2)]
        self.held.append((both[0], both[1]))

    @rule(id_=IDS, limit=LIMITS, scope=SCOPES)
    def load(self, id_: str, limit: int | None, scope: str | None) -> None:
        self.hold(self.twice(lambda store, _: store.load(id_, limit=limit, scope=scope)))

    @rule(id_=IDS, limit=LIMITS, scope=SCOPES)
    def load_entries(self, id_: str, limit: int | None, scope: str | None) -> None:
        both = self.twice(lambda store, _: store.load_entries(id_, limit=limit, scope=scope))
        if both is not None:
            assert (both[0] is None) == (both[1] is None)
            self.pair(both[0] or [], both[1] or [])

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), said=messages, usage=usages, waiting=deferred)
    def go_on(self, number: int, said: list[Any], usage: Any, waiting: Any) -> None:
        for conversation in self.chosen(number):
            conversation.messages.extend(deepcopy(said))
            conversation.usage = deepcopy(usage)
            conversation.deferred_tool_requests = deepcopy(waiting)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), place=st.integers(0, 5), said=messages, way=st.sampled_from(["cut", "put", "swap"]))
    def rewrite(self, number: int, place: int, said: list[Any], way: str) -> None:
        for conversation in self.chosen(number):
            end = {"cut": None, "put": place, "swap": place + 1}[way]
            conversation.messages[place:end] = deepcopy(said)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9))
    def send_to_a_client_and_back(self, number: int) -> None:
        mine, theirs = (
            ConversationTypeAdapter.validate_json(ConversationTypeAdapter.dump_json(each))
            for each in self.chosen(number)
        )
        self.held[number % len(self.held)] = (mine, theirs)

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), scope=SCOPES)
    def save(self, number: int, scope: str | None) -> None:
        conversations = self.chosen(number)
        both = self.twice(lambda store, which: store.save(conversations[which], scope=scope))
        if both is not None:
            self.pair(*both)
        assert self.known(conversations[0]) == self.known(conversations[1])
        assert conversations[0].new_message_index == conversations[1].new_message_index

    @rule(number=st.integers(0, 9), id_=IDS, at=st.none() | PLACES, entry=st.none() | PLACES, scope=SCOPES)
    def branch(self, number: int, id_: str, at: int | None, entry: int | None, scope: str | None) -> None:
        of_that = [each for each in self.held if each[0].conversation_id == id_]
        revisions = [each.revision for each in of_that[number % len(of_that)]] if of_that else [None, None]
        self.hold(
            self.twice(
                lambda store, which: store.branch(
                    id_, at=at, from_entry=self.entry(entry)[which], expected_revision=revisions[which], scope=scope
                )
            )
        )

    @rule(id_=IDS, new=IDS | st.just("d"), at=st.none() | PLACES, entry=st.none() | PLACES, scope=SCOPES, of=SCOPES)
    def fork(self, id_: str, new: str, at: int | None, entry: int | None, scope: str | None, of: str | None) -> None:
        self.hold(
            self.twice(
                lambda store, which: store.fork(
                    id_,
                    at=at,
                    from_entry=self.entry(entry)[which],
                    new_conversation_id=new,
                    scope=scope,
                    source_scope=of,
                )
            )
        )

    def entry(self, number: int | None) -> tuple[str | None, str | None]:
        if number is None:
            return None, None
        known = list(self.entries.items())
        return ("unknown", "unknown") if number < 0 or not known else known[number % len(known)]

    @rule(id_=IDS | st.just("d"), scope=SCOPES)
    def delete(self, id_: str, scope: str | None) -> None:
        self.twice(lambda store, _: store.delete(id_, scope=scope))

    @rule(scope=SCOPES, limit=LIMITS)
    def list_conversations(self, scope: str | None, limit: int | None) -> None:
        both = self.twice(lambda store, _: store.list_conversations(scope=scope, limit=limit))
        if both is not None:
            assert [self.translated(each) for each in both[0]] == [self.comparable(each) for each in both[1]]

    def translated(self, record: ConversationRecord) -> ConversationRecord:
        return replace(
            self.comparable(record),
            head_id=self.counterpart(record.head_id),
            forked_at=self.counterpart(record.forked_at),
            branches=[self.entries[each] for each in record.branches],
        )

    def comparable(self, record: ConversationRecord) -> ConversationRecord:
        return replace(record, revision="some", updated_at=datetime.max.replace(tzinfo=UTC))

    def teardown(self) -> None:
        self.list_conversations(None, None)
        for ids in self.entries.items():
            self.read_entry(ids)

    def read_entry(self, ids: tuple[str, str]) -> None:
        both = self.twice(lambda store, which: store.read_entry(ids[which]))
        if both is not None:
            self.pair([both[0]], [both[1]])


@pytest.mark.timeout(600)
def test_every_history_is_as_in_memory(database_url: str) -> None:
    with asyncio.Runner() as runner:
        database = DatabaseManager(database_url)
        machine = type("Machine", (Histories,), {"runner": runner, "database": database})
        try:
            run_state_machine_as_test(
                machine, settings=settings(max_examples=examples(12, 200), stateful_step_count=30, deadline=None)
            )
        finally:
            runner.run(database.close())
