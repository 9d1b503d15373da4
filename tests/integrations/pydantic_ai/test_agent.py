"""Agents whose conversations are kept between runs, end to end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, ToolDenied
from pydantic_ai.conversation import Conversation, ConversationTypeAdapter
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.usage import UsageLimits

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.pydantic_ai import DatabaseConversationStore
from tests.integrations.pydantic_ai.conftest import Counted

NAMES = ["Bergen", "Oslo", "Voss"]


def calls_three(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Call the tool for every name at once, then say what came back."""
    returned = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    if returned:
        return ModelResponse(parts=[TextPart(", ".join(str(part.content) for part in returned))])
    return ModelResponse(parts=[ToolCallPart("leaves", {"to": name}, tool_call_id=name) for name in NAMES])


def counts(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Say how many messages the model was sent."""
    return ModelResponse(parts=[TextPart(f"{len(messages)} messages")])


async def test_a_conversation_goes_on_in_the_next_run(store: DatabaseConversationStore, counted: Counted) -> None:
    agent = Agent(FunctionModel(counts))
    outputs = []
    for text in ("one", "two", "three"):
        conversation = await store.load("chat", scope="ada") or Conversation(conversation_id="chat")
        result = await agent.run(text, conversation=conversation)
        outputs.append(result.output)
        assert len(await store.save(result, scope="ada")) == 2

    loaded = await store.load("chat")
    assert outputs == ["1 messages", "3 messages", "5 messages"]
    assert loaded is not None
    assert loaded.messages == result.all_messages()
    assert loaded.usage.requests == 3
    assert await counted() == (1, 6)


async def test_a_saved_result_goes_on_without_loading_it(store: DatabaseConversationStore) -> None:
    agent = Agent(FunctionModel(counts))
    result = await agent.run("one", conversation=Conversation(conversation_id="chat"))
    await store.save(result)
    result = await agent.run("two", conversation=result.conversation)

    assert len(await store.save(result)) == 2
    assert await store.save(result) == []


async def test_parallel_tools_keep_their_calls_and_returns(store: DatabaseConversationStore) -> None:
    agent = Agent(FunctionModel(calls_three))
    arrived = asyncio.Barrier(3)

    @agent.tool_plain
    async def leaves(to: str) -> str:
        async with asyncio.timeout(60):
            await arrived.wait()
        return f"{to} 16:05"

    result = await agent.run("When?", conversation=Conversation(conversation_id="chat"))
    await store.save(result)
    loaded = await store.load("chat")

    assert result.output == "Bergen 16:05, Oslo 16:05, Voss 16:05"
    assert loaded is not None
    assert loaded.messages == result.all_messages()
    assert loaded.usage.tool_calls == 3


def asks(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Ask for something to be deleted and something to be fetched, then report."""
    returned = [part for part in messages[-1].parts if isinstance(part, ToolReturnPart)]
    if returned:
        return ModelResponse(parts=[TextPart("; ".join(str(part.content) for part in returned))])
    return ModelResponse(
        parts=[ToolCallPart("erase", {"path": "a"}, tool_call_id="1"), ToolCallPart("fetch", {}, tool_call_id="2")]
    )


def careful_agent() -> "Agent[object, str | DeferredToolRequests]":
    agent = Agent(FunctionModel(asks), output_type=[str, DeferredToolRequests])

    @agent.tool
    def erase(ctx: RunContext[object], path: str) -> str:
        if not ctx.tool_call_approved:
            raise ApprovalRequired(metadata={"why": "it is for good"})
        return f"erased {path}"

    @agent.tool_plain
    def fetch() -> str:
        raise CallDeferred(metadata={"job": 7, "raw": b"\xff"})

    return agent


@pytest.mark.parametrize(("approved", "said"), [(True, "erased a; done"), (ToolDenied("not today"), "not today; done")])
async def test_a_run_that_waits_for_tools_goes_on_in_another_process(
    database: DatabaseManager, approved: Any, said: str
) -> None:
    store = DatabaseConversationStore(database)
    paused = await careful_agent().run("Erase a", conversation=Conversation(conversation_id="chat"))
    await store.save(paused)
    requests = paused.output
    del paused, store

    # What another process has: the id, and nothing else.
    store = DatabaseConversationStore(database)
    conversation = await store.load("chat")
    assert conversation is not None
    waiting = conversation.deferred_tool_requests
    assert isinstance(requests, DeferredToolRequests)
    assert waiting is not None
    assert (waiting.calls, waiting.approvals) == (requests.calls, requests.approvals)
    assert waiting.metadata == {"1": {"why": "it is for good"}, "2": {"job": 7, "raw": "_w=="}}
    answers = DeferredToolResults(approvals={"1": approved}, calls={"2": "done"})
    resumed = await careful_agent().run(conversation=conversation, deferred_tool_results=answers)
    await store.save(resumed)

    loaded = await store.load("chat")
    assert resumed.output == said
    assert loaded is not None
    assert loaded.deferred_tool_requests is None
    assert loaded.messages == resumed.all_messages()


async def test_what_was_streamed_is_kept_whole(store: DatabaseConversationStore) -> None:
    async def stream(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[Any]:
        if len(messages) == 1:
            yield {0: DeltaToolCall(name="leaves", json_args='{"to": ', tool_call_id="1")}
            yield {0: DeltaToolCall(json_args='"Bergen"}')}
            return
        for word in ("at ", "16:", "05"):
            yield word

    agent = Agent(FunctionModel(stream_function=stream))

    @agent.tool_plain
    def leaves(to: str) -> str:
        return f"{to} 16:05"

    async with agent.run_stream("When?", conversation=Conversation(conversation_id="chat")) as run:
        words = [word async for word in run.stream_text(delta=True, debounce_by=None)]
    conversation = Conversation(conversation_id="chat", messages=run.all_messages(), usage=run.usage)
    await store.save(conversation)

    loaded = await store.load("chat")
    assert "".join(words) == "at 16:05"
    assert loaded is not None
    assert loaded.messages == run.all_messages()


async def test_another_answer_to_an_earlier_question_leaves_the_first_as_a_branch(
    store: DatabaseConversationStore, counted: Counted
) -> None:
    agent = Agent(FunctionModel(counts))
    result = await agent.run("one", conversation=Conversation(conversation_id="chat"))
    await store.save(result)
    result = await agent.run("two", conversation=result.conversation)
    left = await store.save(result)

    branched = await store.branch("chat", at=2, expected_revision=result.conversation.revision)
    again = await agent.run("two, again", conversation=branched)
    entries = await store.save(again)
    (record,) = await store.list_conversations()
    back = await store.branch("chat", from_entry=left[-1].id, expected_revision=record.revision)

    assert record.branches == [left[-1].id]
    assert back.messages == result.all_messages()
    assert entries[0].parent_id == left[0].parent_id
    assert await counted() == (1, 6)


async def test_a_fork_shares_what_it_begins_with(store: DatabaseConversationStore, counted: Counted) -> None:
    agent = Agent(FunctionModel(counts))
    result = await agent.run("one", conversation=Conversation(conversation_id="chat"))
    await store.save(result, scope="ada")
    fork = await store.fork("chat", new_conversation_id="fork", scope="eve")
    forked = await agent.run("in the fork", conversation=fork)
    await store.save(forked)
    result = await agent.run("in the first", conversation=result.conversation)
    await store.save(result)

    assert forked.output == result.output == "3 messages"
    assert await counted() == (2, 6)
    await store.delete("chat")
    loaded = await store.load("fork", scope="eve")
    assert loaded is not None
    assert loaded.messages == forked.all_messages()
    assert await counted() == (1, 4)
    await store.delete("fork")
    assert await counted() == (0, 0)


async def test_time_travel_to_any_entry(store: DatabaseConversationStore) -> None:
    agent = Agent(TestModel())
    conversation = Conversation(conversation_id="chat")
    for text in ("one", "two", "three"):
        result = await agent.run(text, conversation=conversation)
        await store.save(result)
        conversation = result.conversation
    entries = await store.load_entries("chat")
    assert entries is not None

    for place, entry in enumerate(entries):
        then = await store.fork("chat", from_entry=entry.id)
        assert then.messages == conversation.messages[: place + 1]
        assert await store.read_history(entry.id) == entries[: place + 1]


async def test_a_window_is_saved_onto_the_whole(store: DatabaseConversationStore) -> None:
    agent = Agent(FunctionModel(counts))
    conversation = Conversation(conversation_id="chat")
    for text in ("one", "two", "three"):
        result = await agent.run(text, conversation=conversation)
        await store.save(result)
        conversation = result.conversation

    window = await store.load("chat", limit=2)
    assert window is not None
    result = await agent.run("four", conversation=window)
    await store.save(result)
    # A client had it, and gave it back.
    window = await store.load("chat", limit=2)
    assert window is not None
    sent = ConversationTypeAdapter.validate_json(ConversationTypeAdapter.dump_json(window))
    last = await agent.run("five", conversation=sent)
    await store.save(last)

    loaded = await store.load("chat")
    assert (result.output, last.output) == ("3 messages", "3 messages")
    assert loaded is not None
    assert len(loaded.messages) == 10


async def test_a_budget_holds_over_all_runs_of_a_conversation(store: DatabaseConversationStore) -> None:
    agent, limits = Agent(TestModel()), UsageLimits(request_limit=2)
    for _ in range(2):
        conversation = await store.load("chat") or Conversation(conversation_id="chat")
        await store.save(await agent.run("Hi", conversation=conversation, usage_limits=limits))

    spent = await store.load("chat")
    with pytest.raises(UsageLimitExceeded, match="request_limit of 2"):
        await agent.run("Hi", conversation=spent, usage_limits=limits)
