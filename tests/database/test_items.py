"""Items and events of frameworks have no role of their own: it is given beside them. On both engines."""

from contextlib import aclosing
from typing import Any

import pytest

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.repositories.token_window import TokenWindow, tokens
from tests.database.conftest import NewSession

REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "The user wants rain"}]}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Tromsø"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "Snow all week"}
PARTS_OUTPUT = {
    "type": "function_call_output",
    "call_id": "c1",
    "output": [{"type": "input_text", "text": "Snow all week"}, {"type": "input_image", "image_url": "data:needle"}],
}
SHELL = {"type": "local_shell_call", "id": "l1", "call_id": "c1", "action": {"command": ["ls", "-l"]}}
SHELL_OUTPUT = {"type": "local_shell_call_output", "id": "c1", "output": "total 0"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c1", "name": "sql", "input": "SELECT 1"}
CUSTOM_OUTPUT = {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"}
APPROVAL = {"type": "mcp_approval_request", "id": "a1", "name": "drop", "arguments": "{}"}
APPROVED = {"type": "mcp_approval_response", "approval_request_id": "a1", "approve": True}
EVENT_CALL = {
    "id": "e1",
    "author": "root",
    "content": {
        "role": "model",
        "parts": [{"function_call": {"id": "f1", "name": "weather", "args": {"city": "Bodø"}}}],
    },
    "actions": {"state_delta": {}},
}
EVENT_RESULT = {
    "id": "e2",
    "author": "root",
    "content": {
        "role": "user",
        "parts": [{"function_response": {"id": "f1", "name": "weather", "response": {"sky": "grey"}}}],
    },
}
RESPONSE = {
    "kind": "response",
    "parts": [{"part_kind": "tool-call", "tool_name": "add", "tool_call_id": "p1", "args": '{"a": 1}'}],
}
REQUEST = {
    "kind": "request",
    "parts": [{"part_kind": "tool-return", "tool_name": "add", "tool_call_id": "p1", "content": "two"}],
}
RETRY = {
    "kind": "request",
    "parts": [{"part_kind": "retry-prompt", "tool_name": "add", "tool_call_id": "p1", "content": "try again"}],
}
PAIRS = [
    (CALL, OUTPUT),
    (CALL, PARTS_OUTPUT),
    (SHELL, SHELL_OUTPUT),
    (CUSTOM, CUSTOM_OUTPUT),
    (APPROVAL, APPROVED),
    (EVENT_CALL, EVENT_RESULT),
    (RESPONSE, REQUEST),
    (RESPONSE, RETRY),
    (REASONING, CALL),
]
ITEMS: list[dict[str, Any]] = [REASONING, CALL, PARTS_OUTPUT, APPROVAL, APPROVED, EVENT_CALL, EVENT_RESULT, RESPONSE]


def window(items: list[dict[str, Any]], budget: int, *, backward: bool = True, limit: int = 100) -> list[int]:
    chosen = TokenWindow(budget, limit, backward=backward)
    history = [SessionMessage.stored(seq=n, role="user", data=each, token_count=1) for n, each in enumerate(items, 1)]
    for message in reversed(history) if backward else history:
        if not chosen.add(message):
            break
    return [each.seq for each in chosen.fitting()]


async def test_an_item_is_stored_exactly_under_the_role_given_beside_it(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()

    for item in ITEMS:
        stored = await repo.add_message_to_session(session.id, item, role="assistant")
        assert (stored.role, stored.to_dict(), list(stored)) == ("assistant", item, list(item))
    loaded = await repo.get_messages(session.id, roles=["assistant"])

    assert [each.to_dict() for each in loaded] == ITEMS
    assert {each.role for each in loaded} == {"assistant"}


async def test_a_batch_has_one_role_for_all_or_one_for_each(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    said = {"role": "user", "content": "Rain?"}

    await repo.add_messages_to_session(session.id, [said, REASONING], role="assistant")
    await repo.add_messages_to_session(session.id, [said, CALL, OUTPUT], role=[None, "assistant", "tool"])

    found = await repo.get_messages(session.id)
    assert [each.role for each in found] == ["user", "assistant", "user", "assistant", "tool"]
    assert [each.to_dict() for each in found] == [said, REASONING, said, CALL, OUTPUT]
    with pytest.raises(SessionValueError, match=r"role must be a list of a text or None for each of 2 messages"):
        await repo.add_messages_to_session(session.id, [CALL, OUTPUT], role=["tool"])
    with pytest.raises(SessionValueError, match=r"messages\[1\]\.role.*give role="):
        await repo.add_messages_to_session(session.id, [CALL, OUTPUT], role=["tool", None])
    assert await repo.recount() == []


async def test_a_writer_takes_a_role_beside_the_item(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db, "acme").create(Session(user_id="ada"))

    async with SessionWriter(database) as writer:
        first = await writer.append(session.id, CALL, role="assistant", tenant_id="acme")
        second = await writer.for_tenant("acme").append(session.id, OUTPUT, role="tool")

    assert [(each.seq, each.role, each.to_dict()) for each in (first, second)] == [
        (1, "assistant", CALL),
        (2, "tool", OUTPUT),
    ]


@pytest.mark.parametrize("role", ["", 7, "a\x00b"])
async def test_a_role_beside_an_item_must_be_a_text(
    repo: SessionRepository, new_session: NewSession, role: Any
) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError, match=r"\Arole "):
        await repo.add_message_to_session(session.id, CALL, role=role)

    assert await repo.get_messages(session.id) == []


async def test_a_document_keeps_its_own_role_and_one_without_any_is_refused(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()

    kept = await repo.add_message_to_session(session.id, {"role": "user", "content": "Hi"}, role="assistant")
    empty = await repo.add_message_to_session(session.id, {"role": None, "type": "reasoning"}, role="assistant")

    assert (kept.role, empty.role, empty.to_dict()) == ("user", "assistant", {"role": None, "type": "reasoning"})
    with pytest.raises(SessionValueError, match=r"message\.role must be a text.*got None; .*give role= beside it"):
        await repo.add_message_to_session(session.id, CALL)
    with pytest.raises(SessionValueError, match=r"message\.role must be a text.*got 7"):
        await repo.add_message_to_session(session.id, {"role": 7}, role="user")
    with pytest.raises(SessionValueError, match=r"message\.content"):
        await repo.add_message_to_session(session.id, {"role": "user", "content": {"parts": []}}, role="user")


@pytest.mark.parametrize(
    ("item", "term"),
    [
        (REASONING, "user wants rain"),
        (CALL, "tromsø"),
        (OUTPUT, "snow all"),
        (PARTS_OUTPUT, "snow all"),
        (SHELL, "ls\n-l"),
        (CUSTOM, "select 1"),
        (EVENT_CALL, "Bodø"),
        (EVENT_RESULT, "grey"),
        (RESPONSE, '"a": 1'),
        (REQUEST, "two"),
        ({"type": "message", "content": [{"type": "output_text", "text": "nul\x00l"}]}, "null"),
    ],
)
async def test_search_finds_what_an_item_says(
    repo: SessionRepository, new_session: NewSession, item: dict[str, Any], term: str
) -> None:
    session = await new_session(user_id="ada")
    await repo.add_message_to_session(session.id, item, role="assistant")

    assert [each.id for each in await repo.search_sessions("ada", term)] == [session.id]
    assert [hit.seq for hit in await repo.search_messages("ada", term)] == [1]
    assert await repo.search_messages("ada", "needle") == []


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_window_separates_no_items_that_belong_together(first: dict[str, Any], second: dict[str, Any]) -> None:
    other = {"content": [{"type": "output_text", "text": "Hi"}]}
    items: list[dict[str, Any]] = [other, first, second, other]

    assert [window(items, budget) for budget in range(5)] == [[], [4], [4], [2, 3, 4], [1, 2, 3, 4]]
    assert [window(items, budget, backward=False) for budget in range(5)] == [[], [1], [1], [1, 2, 3], [1, 2, 3, 4]]
    assert [window(items, 100, limit=limit) for limit in (1, 2, 3)] == [[4], [4], [2, 3, 4]]


def test_reasoning_stays_with_its_call_and_the_call_with_its_output() -> None:
    items: list[dict[str, Any]] = [{"content": "Rain?"}, REASONING, CALL, OUTPUT, {"content": "Snow"}]

    assert [window(items, budget) for budget in range(1, 6)] == [[5], [5], [5], [2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert window([*items, REASONING], 1) == [6]


def test_a_retry_that_names_no_tool_answers_no_call() -> None:
    retry = {"kind": "request", "parts": [{"part_kind": "retry-prompt", "tool_call_id": "p1", "content": "again"}]}

    assert window([RESPONSE, retry], 1) == [2]


@pytest.mark.parametrize(
    ("item", "estimate"),
    [
        ({"type": "reasoning", "id": "r" * 400, "summary": ["x" * 36]}, 10),
        ({"type": "function_call_output", "output": "x" * 40}, 10),
        ({"author": "root", "content": {"parts": ["x" * 26]}, "actions": {"state_delta": "x" * 400}}, 10),
    ],
)
def test_an_item_is_estimated_by_what_a_model_is_sent(item: dict[str, Any], estimate: int) -> None:
    assert tokens(SessionMessage.stored(seq=1, role="user", data=item, token_count=None)) == estimate


async def test_items_survive_forks_the_feed_and_a_move_to_another_database(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db, "one")
        parent = await repo.create(Session(user_id="ada"))
        await repo.add_messages_to_session(parent.id, ITEMS, role="assistant")
        fork = await repo.fork(parent.id, len(ITEMS))
        await repo.delete(parent.id, hard=True)

    async with database.session() as db:
        repo = SessionRepository(db, "one")
        lines = [line async for line in repo.export_user("ada")]
        followed: list[dict[str, Any]] = []
        async with aclosing(repo.subscribe(fork.id)) as messages:
            async for message in messages:
                followed.append(message.to_dict())
                if len(followed) == len(ITEMS):
                    break
    async with database.session() as db:
        await SessionRepository(db, "two").import_user(lines)
        imported = await SessionRepository(db, "two").get_messages(fork.id)
        hits = await SessionRepository(db, "two").search_messages("ada", "grey")

    assert followed == ITEMS
    assert [each.to_dict() for each in imported] == ITEMS
    assert {each.role for each in imported} == {"assistant"}
    assert [hit.seq for hit in hits] == [7]
