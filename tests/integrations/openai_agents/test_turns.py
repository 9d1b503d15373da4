"""Whole turns: what a model takes, however several processes have mixed their items."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.infrastructure.database.append.message import accept_message
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.integrations.openai_agents.items import role_of
from agent_service.integrations.openai_agents.turns import whole_turns
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import call, output, reasoning, reply, said
from tests.support.depth import examples

SESSION = UUID(int=1)


def stored(items: Sequence[Any]) -> list[SessionMessage]:
    """Return items as messages of a session."""
    found = []
    for seq, item in enumerate(items, 1):
        message = accept_message(SESSION, item, role=role_of(item))
        found.append(
            SessionMessage.stored(
                session_id=SESSION, seq=seq, client_id=None, role=message.role, search_text=message.search_text,
                data=message.data, token_count=None, created_at=SYSTEM_CLOCK.now(), tenant_id="",
            )
        )  # fmt: skip
    return found


def whole(items: Sequence[Any], *, from_the_start: bool = True) -> list[Any]:
    return [message.to_dict() for message in whole_turns(stored(items), from_the_start=from_the_start)]


PENDING: Any = {"type": "mcp_approval_request", "id": "a1", "server_label": "db", "name": "drop", "arguments": "{}"}
ANSWER: Any = {"type": "mcp_approval_response", "approval_request_id": "a1", "approve": True}
SEARCH: Any = {"type": "tool_search_call", "call_id": "s1", "arguments": {}, "execution": "client"}
FOUND: Any = {"type": "tool_search_output", "call_id": "s1", "tools": [], "execution": "client"}
HOSTED: Any = {"type": "tool_search_call", "call_id": None, "arguments": {}, "execution": "server"}
HOSTED_FOUND: Any = {"type": "tool_search_output", "call_id": None, "tools": [], "execution": "server"}
PROGRAM: Any = {"type": "program", "call_id": "p1", "code": "1"}
PROGRAM_OUTPUT: Any = {"type": "program_output", "call_id": "p1", "result": "1", "status": "completed"}
WEB: Any = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {}}
A, B = said("a"), said("b")


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([A, reply("b")], [A, reply("b")]),
        ([A, call("c1")], [A]),
        ([A, reasoning("r1"), call("c1")], [A]),
        ([A, reasoning("r1"), reasoning("r2"), call("c1"), B], [A, B]),
        ([A, reasoning("r1")], [A]),
        ([A, reasoning("r1"), reply("b")], [A, reasoning("r1"), reply("b")]),
        ([A, call("c1"), B, output("c1")], [A, call("c1"), B, output("c1")]),
        ([A, call("c1"), call("c2"), output("c2")], [A, call("c2"), output("c2")]),
        ([output("c1"), A], [A]),
        ([A, call("c1"), output("c1"), output("c1", "again")], [A, call("c1"), output("c1")]),
        ([A, call("c1"), output("c1"), B, call("c1")], [A, call("c1"), output("c1"), B]),
        ([A, PENDING], [A]),
        ([A, PENDING, ANSWER], [A, PENDING, ANSWER]),
        ([A, SEARCH], [A]),
        ([A, SEARCH, call("c1"), FOUND, output("c1")], [A, SEARCH, call("c1"), FOUND, output("c1")]),
        ([A, call("c1"), HOSTED, HOSTED_FOUND, output("c1")], [A, call("c1"), HOSTED, HOSTED_FOUND, output("c1")]),
        ([A, PROGRAM, PROGRAM_OUTPUT, {**PROGRAM, "call_id": "p2"}], [A, PROGRAM, PROGRAM_OUTPUT]),
        ([A, reasoning("r1"), WEB], [A, reasoning("r1"), WEB]),
    ],
)
def test_what_is_not_whole_is_left_out(items: list[Any], expected: list[Any]) -> None:
    assert whole(items) == expected


def test_a_cut_history_begins_with_what_a_user_said() -> None:
    cut = [reply("the rest of a turn"), output("c0"), A, call("c1"), output("c1")]

    assert whole(cut, from_the_start=False) == cut[2:]
    assert whole(cut[:2], from_the_start=False) == []
    assert whole([reply("hello"), A]) == [reply("hello"), A]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Any], int]:
    """The items of several processes, each in its own order, mixed; and how many of them were added until now."""
    lines: list[list[Any]] = []
    for process in range(draw(st.integers(1, 3))):
        line: list[Any] = []
        for turn in range(draw(st.integers(0, 2))):
            name = f"{process}.{turn}"
            line += [said(name)]
            calls = [f"{name}.{number}" for number in range(draw(st.integers(0, 3)))]
            line += [reasoning(name)] if draw(st.booleans()) else []
            # A batch is added at once, so nothing of others comes between.
            line[-1:] = [[line[-1], *map(call, calls)]] if line[-1].get("type") == "reasoning" and calls else line[-1:]
            line += [] if isinstance(line[-1], list) else list(map(call, calls))
            line += [output(each) for each in draw(st.permutations(calls))]
            line += [reply(name)]
        lines.append(line)
    mixed: list[Any] = []
    while any(lines):
        line = draw(st.sampled_from([each for each in lines if each]))
        batch = line.pop(0)
        mixed += batch if isinstance(batch, list) else [batch]
    return mixed, draw(st.integers(0, len(mixed)))


@given(histories(), st.booleans())
@settings(max_examples=examples(60, 2000))
def test_however_processes_mix_their_items_a_reader_sees_whole_turns(
    drawn: tuple[list[Any], int], from_the_start: bool
) -> None:
    items, until = drawn
    found = whole(items[:until], from_the_start=from_the_start)

    calls = [item["call_id"] for item in found if item.get("type") == "function_call"]
    outputs = [item["call_id"] for item in found if item.get("type") == "function_call_output"]
    assert sorted(calls) == sorted(outputs)
    for call_id in calls:
        assert found.index(call(call_id)) < found.index(output(call_id))
    kinds = [item.get("type") for item in found]
    assert "reasoning" not in kinds[-1:]
    assert found == [item for item in items if item in found]
    assert whole(found) == found
    if from_the_start:
        assert [each for each in found if each.get("role") == "user"] == [
            each for each in items[:until] if each.get("role") == "user"
        ]
        if until == len(items):
            assert len(found) == len(items)


async def test_a_limit_counts_before_what_is_left_out(new: NewSession) -> None:
    session = new()
    turn = [A, reasoning("r1"), call("c1", "fc_1"), output("c1"), reply("snow", "msg_1")]
    await session.add_items([*turn, B, call("c2", "fc_2")])

    assert await session.get_items(whole_turns=True) == [*turn, B]
    assert await session.get_items(7, whole_turns=True) == [*turn, B]
    assert await session.get_items(6, whole_turns=True) == [B]
    assert await session.get_items(1, whole_turns=True) == []
    assert (await session.get_items(1))[0]["call_id"] == "c2"  # type: ignore[typeddict-item]
