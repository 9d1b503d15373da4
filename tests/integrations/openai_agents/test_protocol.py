"""What the SDK's Session protocol promises, stated again, on both engines."""

import asyncio
from typing import Any

import pytest
from agents import Session, SessionSettings
from agents.memory import is_openai_responses_compaction_aware_session

from agent_service.core.errors import AgentServiceError, SessionConflictError, SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.openai_agents import DatabaseSession, list_sessions, reading
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import EVERY_KIND, call, output, reply, said


def test_it_is_a_session_of_the_sdk() -> None:
    session = DatabaseSession("chat", user_id="ada")

    assert isinstance(session, Session)
    assert session.session_id == "chat"
    assert session.session_settings == SessionSettings()
    # The Runner would ask it to compact after every turn.
    assert not is_openai_responses_compaction_aware_session(session)


async def test_items_come_back_exactly_and_in_their_order(new: NewSession, writer: SessionWriter | None) -> None:
    session = new(writer=writer)
    assert await session.get_items() == []

    await session.add_items(EVERY_KIND[:9])
    await session.add_items(EVERY_KIND[9:])

    found: list[Any] = await new().get_items()
    assert found == EVERY_KIND
    assert [list(item) for item in found] == [list(item) for item in EVERY_KIND]
    assert [type(item) for item in found] == [dict] * len(found)
    found[0]["content"] = "changed"
    assert await session.get_items(1) == EVERY_KIND[-1:]


@pytest.mark.parametrize(
    ("limit", "setting", "expected"),
    [
        (None, None, "abcde"), (3, None, "cde"), (5, None, "abcde"), (99, None, "abcde"), (1, None, "e"),
        (0, None, ""), (-1, None, ""), (None, 2, "de"), (4, 2, "bcde"), (0, 2, ""), (None, 0, ""),
    ],
)  # fmt: skip
async def test_a_limit_gives_the_latest_in_their_order(
    new: NewSession, limit: int | None, setting: int | None, expected: str
) -> None:
    session = new(session_settings=None if setting is None else {"limit": setting})
    await session.add_items([said(each) for each in "abcde"])

    assert await session.get_items(limit) == [said(each) for each in expected]
    session.session_settings = SessionSettings(limit=2)
    assert await session.get_items() == [said("d"), said("e")]


async def test_a_history_longer_than_one_read_comes_back_whole(
    new: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_MESSAGES", 3)
    session = new()
    items = [said(str(number)) for number in range(10)]
    await session.add_items(items)

    assert await session.get_items() == items
    for limit in (1, 3, 4, 6, 7, 9, 10, 11, 2**31 - 1):
        assert await session.get_items(limit) == items[-limit:]


async def test_what_is_removed_while_a_long_history_is_read_is_seen_wholly_or_not_at_all(
    new: NewSession, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_MESSAGES", 2)
    session, elsewhere = new(), DatabaseManager(database_url)
    items = [said(str(number)) for number in range(6)]
    await session.add_items(items)
    read = SessionRepository.get_messages
    pages = 0

    async def replacing_meanwhile(self: SessionRepository, *arguments: Any, **options: Any) -> Any:
        nonlocal pages
        page = await read(self, *arguments, **options)
        pages += 1
        if pages == 2:
            assert await new(database=elsewhere)._atomic_replace_items([said("summary")])
        return page

    monkeypatch.setattr(SessionRepository, "get_messages", replacing_meanwhile)
    found = await session.get_items()
    await elsewhere.close()

    assert found == items
    assert pages == 4
    assert await session.get_items() == [said("summary")]


async def test_pop_takes_the_last_one_until_there_is_none(new: NewSession, writer: SessionWriter | None) -> None:
    session = new(writer=writer)
    assert await session.pop_item() is None
    await session.add_items([said("a"), call("c1", "fc_1")])

    assert await session.pop_item() == call("c1", "fc_1")
    await session.add_items([call("c1", "fc_1")])
    assert await session.get_items() == [said("a"), call("c1", "fc_1")]
    assert [await session.pop_item() for _ in range(3)] == [call("c1", "fc_1"), said("a"), None]
    assert await session.get_items() == []


async def test_clearing_removes_the_items_and_keeps_the_session(new: NewSession, database: DatabaseManager) -> None:
    session = new()
    await session.clear_session()
    assert (await list_sessions("ada", database=database)).items == []
    await session.add_items([said("a"), reply("b", "msg_1")])
    (before,) = (await list_sessions("ada", database=database)).items

    await session.clear_session()
    await session.clear_session()

    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items([reply("b", "msg_1")])
    assert await session.get_items() == [reply("b", "msg_1")]
    (after,) = (await list_sessions("ada", database=database)).items
    assert (after.id, after.external_id, after.total_messages) == (before.id, "chat", 1)


async def test_adding_nothing_stores_nothing(new: NewSession, database: DatabaseManager) -> None:
    await new().add_items([])

    assert (await list_sessions("ada", database=database)).items == []


async def test_sessions_of_different_ids_share_nothing(new: NewSession) -> None:
    await new("a").add_items([said("a")])
    await new("b").add_items([said("b")])
    await new("b").clear_session()

    assert await new("a").get_items() == [said("a")]
    assert await new("b").get_items() == []


async def test_an_item_that_was_added_before_is_not_added_again(new: NewSession, writer: SessionWriter | None) -> None:
    session = new(writer=writer)
    turn = [call("c1", "fc_1"), output("c1"), reply("It snows", "msg_1")]
    await session.add_items([said("Weather?"), *turn])

    await asyncio.gather(*(new(writer=writer).add_items(turn) for _ in range(5)))
    await session.add_items([turn[0], turn[1], reply("It thaws", "msg_1")])

    assert await session.get_items() == [said("Weather?"), *turn, reply("It thaws", "msg_1")]


async def test_items_without_an_identity_are_added_each_time(new: NewSession, writer: SessionWriter | None) -> None:
    """A provider without ids may count calls from the beginning in every run."""
    session = new(writer=writer)
    placeholder = "__fake_id__"
    turn = [said("Again"), call("c1", placeholder), output("c1"), reply("ok", placeholder)]

    for _ in range(3):
        await session.add_items(turn)

    assert await session.get_items() == turn * 3


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ("text", "items must be a list of dicts, got str"),
        (said("a"), "items must be a list of dicts, got dict"),
        ([said("kept?"), "text"], r"items\[1\] must be a dict, got str"),
        ([said("kept?"), {"role": "user", "content": {1, 2}}], r"\[1\]\.content"),
        ([said("kept?"), {"role": "user", "content": float("nan")}], r"\[1\]\.content"),
        ([said("kept?"), {"role": "user", "content": 5}], r"\[1\]\.content"),
        ([said("kept?"), {"role": 5, "content": "x"}], r"\[1\]\.role"),
    ],
)
async def test_what_cannot_be_kept_exactly_leaves_nothing_behind(
    new: NewSession, writer: SessionWriter | None, items: Any, complaint: str
) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        await new(writer=writer).add_items(items)

    assert await new().get_items() == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"session_id": ""}, "session_id"),
        ({"session_id": "x" * 256}, "session_id"),
        ({"session_id": 5}, "session_id"),
        ({"user_id": None}, "user_id"),
        ({"tenant_id": None}, "tenant_id"),
        ({"agent_id": ""}, "agent_id"),
        ({"database": "sqlite://"}, "database must be a DatabaseManager, got str"),
        ({"writer": object()}, "writer must be a SessionWriter, got object"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        DatabaseSession(**{"session_id": "chat", "user_id": "ada", **options})


async def test_a_limit_that_is_no_number_is_refused(new: NewSession) -> None:
    for limit in ("5", 1.0, True):
        with pytest.raises(SessionValueError, match="limit must be an integer or None"):
            await new().get_items(limit)  # type: ignore[arg-type]


async def test_a_session_of_another_user_is_refused(new: NewSession, writer: SessionWriter | None) -> None:
    await new().add_items([said("mine")])
    bob = new(user_id="bob", writer=writer)

    for attempt in (bob.get_items(), bob.add_items([said("x")]), bob.pop_item(), bob.clear_session(), bob.usage()):
        with pytest.raises(SessionConflictError, match="another user's"):
            await attempt

    assert await new().get_items() == [said("mine")]


async def test_a_session_that_was_removed_begins_again(
    new: NewSession, database: DatabaseManager, writer: SessionWriter | None
) -> None:
    session = new(writer=writer)
    await session.add_items([said("before")])
    await session.get_items()
    (stored,) = (await list_sessions("ada", database=database)).items
    async with database.session() as db:
        await SessionRepository(db).delete(stored.id)

    assert await session.get_items() == []
    with pytest.raises(SessionConflictError, match="was deleted"):
        await session.add_items([said("x")])
    async with database.session() as db:
        await SessionRepository(db).delete(stored.id, hard=True)
    assert await session.pop_item() is None
    await session.add_items([said("after")])
    assert await session.get_items() == [said("after")]


async def test_an_error_is_ours_and_names_its_cause(new: NewSession) -> None:
    lost = DatabaseManager("postgresql+asyncpg://nobody:secret@127.0.0.1:1/none")
    session = new(database=lost)

    for attempt in (session.get_items(), session.add_items([said("private")]), session.pop_item()):
        with pytest.raises(AgentServiceError) as raised:
            await attempt
        assert raised.value.__cause__ is not None
        assert "private" not in str(raised.value)
        assert "secret" not in str(raised.value)
    await lost.close()
