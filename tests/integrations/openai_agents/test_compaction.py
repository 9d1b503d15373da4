"""Compaction by the SDK's OpenAIResponsesCompactionSession around ours, on both engines."""

import asyncio
from typing import Any

import pytest
from agents import Agent, OpenAIResponsesCompactionSession, RunConfig, Runner
from agents.extensions.memory import EncryptedSession
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import CompactedResponse

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import Truncation
from agent_service.integrations.openai_agents import DatabaseSession, StoredItem
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import call, output, reply, said
from tests.integrations.openai_agents.test_runner import QUIET, weather

SUMMARY: Any = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}


class Compacting:
    """The part of OpenAI's client that a compaction calls: what was sent, and an answer."""

    def __init__(self, *, meanwhile: Any = None) -> None:
        self.responses = self
        self.sent: list[Any] = []
        self._meanwhile = meanwhile

    async def compact(self, **request: Any) -> CompactedResponse:
        self.sent.append(request)
        if self._meanwhile is not None:
            await self._meanwhile()
        usage = {
            "input_tokens": 5, "output_tokens": 1, "total_tokens": 6,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        return CompactedResponse.model_validate(
            {"id": "cmp", "created_at": 1, "object": "response.compaction", "output": [SUMMARY], "usage": usage}
        )


def around(session: DatabaseSession, client: Compacting, candidates: int = 1) -> OpenAIResponsesCompactionSession:
    return OpenAIResponsesCompactionSession(
        session.session_id,
        session,
        client=client,  # type: ignore[arg-type]
        compaction_mode="input",
        should_trigger_compaction=lambda seen: len(seen["compaction_candidate_items"]) >= candidates,
    )


def agent_of(*steps: Any) -> Agent[Any]:
    return Agent(name="assistant", model=ScriptedModel(steps), tools=[weather])


async def test_a_run_compacts_what_the_model_has_seen(new: NewSession) -> None:
    client = Compacting()
    steps = [
        {"output": [function_call("weather", {"city": "Oslo"}, call_id="c1", item_id="fc_1")], "response_id": "r1"},
        {"output": [assistant_message("It snows", item_id="msg_1")], "response_id": "r2"},
        {"output": [assistant_message("Bye", item_id="msg_2")], "response_id": "r3"},
    ]
    agent = agent_of(*steps)
    await Runner.run(agent, "Weather?", session=around(new(), client, 3), run_config=QUIET)
    assert await new().get_items() == [SUMMARY]

    await Runner.run(agent, "Thanks", session=around(new(), client, 3), run_config=QUIET)
    assert [item.get("type") for item in await new().get_items()] == ["compaction", None, "message"]
    assert agent.model.last_call.input == [SUMMARY, said("Thanks")]  # type: ignore[union-attr]
    assert len(client.sent) == 1
    assert [item.get("type") for item in client.sent[0]["input"]] == [
        None, "function_call", "function_call_output", "message",
    ]  # fmt: skip


async def test_a_run_that_read_the_end_only_keeps_what_stands_before(new: NewSession) -> None:
    old = [said("Old"), reply("old answer", "msg_0")]
    await new().add_items(old)
    client = Compacting()
    agent = agent_of({"output": [assistant_message("Bye", item_id="msg_2")], "response_id": "r3"})
    config = RunConfig(tracing_disabled=True, session_settings={"limit": 1})

    await Runner.run(agent, "Thanks", session=around(new(), client), run_config=config)

    assert await new().get_items() == [*old, SUMMARY]
    assert len(client.sent[0]["input"]) == 2


async def test_what_another_process_adds_during_a_compaction_stays(new: NewSession, database_url: str) -> None:
    elsewhere = DatabaseManager(database_url)

    async def add() -> None:
        await new(database=elsewhere).add_items([said("meanwhile")])

    agent = agent_of({"output": [assistant_message("Bye", item_id="msg_2")], "response_id": "r3"})
    await Runner.run(agent, "Hi", session=around(new(), Compacting(meanwhile=add)), run_config=QUIET)
    await elsewhere.close()

    found = await new().get_items()
    assert next(item.get("content") for item in found) == "Hi"
    assert found[2:] == [said("meanwhile")]


async def test_run_compaction_replaces_the_history_at_once(new: NewSession) -> None:
    session = new()
    await session.add_items([said("Weather?"), call("c1", "fc_1"), output("c1"), reply("snow", "msg_1")])
    seen: list[int] = []
    done = asyncio.Event()

    async def look() -> None:
        while not done.is_set():
            seen.append(len(await new().get_items()))

    looking = asyncio.create_task(look())
    await around(session, Compacting()).run_compaction({"force": True})
    done.set()
    await looking

    assert await session.get_items() == [SUMMARY]
    assert set(seen) <= {4, 1}


async def test_a_snapshot_is_replaced_only_while_it_is_the_end(new: NewSession) -> None:
    session = new()
    items = [said(str(number)) for number in range(5)]
    await session.add_items(items)

    for change, left in (
        (session.add_items([said("5")]), [*items, said("5")]),
        (session.pop_item(), items),
        (session.pop_item(), items[:-1]),
        (session._atomic_replace_items([said("new")]), [said("new")]),
        (session.clear_session(), []),
    ):
        snapshot = await session._get_compaction_snapshot(2)
        assert snapshot is not None
        await change
        assert not await snapshot.replace_suffix(0, [SUMMARY])
        assert await session.get_items() == left


async def test_a_snapshot_says_whether_it_is_the_whole_history(new: NewSession) -> None:
    session = new()
    empty = await session._get_compaction_snapshot(3)
    assert empty is not None
    assert (empty.items, empty.complete) == ([], True)
    assert not await empty.replace_suffix(0, [SUMMARY])
    await session.add_items([said("a"), said("b"), said("c")])

    for limit, complete in ((2, False), (3, True), (4, True)):
        snapshot = await session._get_compaction_snapshot(limit)
        assert snapshot is not None
        assert (snapshot.items, snapshot.complete) == ([said("a"), said("b"), said("c")][-limit:], complete)
        assert not await snapshot.replace_suffix(3, [SUMMARY])
    whole = await session._get_compaction_snapshot(4)
    assert whole is not None
    assert await whole.replace_suffix(1, [SUMMARY, SUMMARY])
    assert not await whole.replace_suffix(1, [SUMMARY])
    assert await session.get_items() == [said("a"), SUMMARY, SUMMARY]


async def test_a_snapshot_of_a_fork_leaves_its_parent_alone(new: NewSession) -> None:
    session = new()
    await session.add_items([said("a"), said("b"), said("c")])
    fork = await session.fork("fork", at=2)

    snapshot = await fork._get_compaction_snapshot(1)
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [SUMMARY])

    assert await fork.get_items() == [said("a"), SUMMARY]
    assert await session.get_items() == [said("a"), said("b"), said("c")]


async def test_expired_items_at_the_beginning_go_with_the_replaced_end(new: NewSession) -> None:
    session = new()
    await session.add_items([said(each) for each in ("old 1", "old 2", "kept", "old 3", "end 1", "end 2")])

    snapshot = await session._get_compaction_snapshot(2, prune_prefix=lambda item: item["content"].startswith("old"))
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [SUMMARY])

    assert await session.get_items() == [said("kept"), said("old 3"), SUMMARY]
    snapshot = await session._get_compaction_snapshot(1, prune_prefix=lambda _: False)
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [])
    assert await session.get_items() == [said("kept"), said("old 3")]


async def test_an_encrypted_session_is_compacted_without_showing_what_it_holds(new: NewSession) -> None:
    client = Compacting()
    inner = around(new(), client)
    session = EncryptedSession("chat", inner, encryption_key="a secret of 32 characters or more")
    agent = agent_of({"output": [assistant_message("Bye", item_id="msg_2")], "response_id": "r3"})

    await Runner.run(agent, "Hi", session=session, run_config=QUIET)

    assert await session.get_items() == [SUMMARY]
    assert "gAAA" not in str([item.get("type") for item in await new().get_items()])
    assert client.sent[0]["input"][0] == said("Hi")


async def test_followers_are_told_what_a_compaction_removed(new: NewSession) -> None:
    session = new()
    await session.add_items([said("a"), said("b"), said("c")])
    feed = session.follow()
    seen: list[Any] = [await anext(feed) for _ in range(3)]
    snapshot = await session._get_compaction_snapshot(2)
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, [SUMMARY])
    seen += [await anext(feed), await anext(feed)]
    await feed.aclose()

    assert [each.seq if isinstance(each, StoredItem) else each.from_seq for each in seen] == [1, 2, 3, 2, 4]
    assert isinstance(seen[3], Truncation)
    assert seen[4].item == SUMMARY


async def test_a_class_with_items_of_its_own_is_not_passed_by(database: DatabaseManager) -> None:
    class Upper(DatabaseSession):
        async def add_items(self, items: Any, *, wrapper: Any = None) -> None:
            upper: list[Any] = [{**item, "content": item["content"].upper()} for item in items]
            await super().add_items(upper, wrapper=wrapper)

    session = Upper("chat", user_id="ada", database=database)
    await session.add_items([said("a")])

    assert await session._get_compaction_snapshot(5) is None
    assert not await session._atomic_replace_items([said("b")])
    assert await session.get_items() == [said("A")]


async def test_an_owner_from_a_run_is_refused_inside_of_another_session(database: DatabaseManager) -> None:
    session = DatabaseSession("chat", user_id=lambda each: each.user, database=database)

    with pytest.raises(SessionValueError, match="fixed user_id"):
        await Runner.run(agent_of(), "Hi", session=around(session, Compacting()), run_config=QUIET)
