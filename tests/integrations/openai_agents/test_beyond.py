"""What a session offers beyond the protocol: forks, lists, search, following and usage. On both engines."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from agents import ModelResponse
from agents.usage import Usage

from agent_service.core.errors import (
    SessionConflictError,
    SessionNotFoundError,
    SessionValueError,
    UndecodableError,
)
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository, Truncation
from agent_service.integrations.openai_agents import StoredItem, UsageSum, list_sessions, search_items, usage
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import call, output, reasoning, reply, said

TURN = [
    said("Weather in Bodø?"),
    reasoning("rs_1"),
    call("c1", "fc_1"),
    output("c1", "heavy snow"),
    reply("It snows", "msg_1"),
]


@pytest.mark.parametrize(
    ("at", "shown"),
    [(None, 5), (0, 0), (1, 1), (3, 3), (5, 5), ("rs_1", 2), ("fc_1", 3), ("c1", 4), ("msg_1", 5)],
)
async def test_a_fork_shows_what_was_up_to_an_item(
    new: NewSession, writer: SessionWriter | None, at: int | str | None, shown: int
) -> None:
    session = new(writer=writer)
    await session.add_items(TURN)

    fork = await session.fork("other", at=at)
    await session.add_items([said("in the first")])
    await fork.add_items([said("in the fork")])

    assert fork.session_id == "other"
    assert await new("other").get_items() == [*TURN[:shown], said("in the fork")]
    assert await session.get_items() == [*TURN, said("in the first")]
    await session.clear_session()
    assert await fork.get_items(2) == [*TURN[:shown], said("in the fork")][-2:]


async def test_a_fork_has_settings_and_place_of_its_session_and_usage_of_its_own(new: NewSession) -> None:
    session = new(session_settings={"limit": 2}, tenant_id="acme", agent_id="meteorologist")
    await session.add_items(TURN)
    await session.record_usage(ran(("r1", 10)))

    fork = await (await session.fork("other")).fork("third", at="fc_1")

    assert await fork.get_items() == TURN[1:3]
    assert (await fork.usage()).total == UsageSum()
    assert (await session.usage()).total.input_tokens == 10
    assert await new("third").get_items() == []


async def test_a_fork_that_cannot_be_is_refused_and_leaves_nothing(new: NewSession, database: DatabaseManager) -> None:
    session = new()
    with pytest.raises(SessionNotFoundError, match="'chat'; add items before"):
        await session.fork("other")
    await session.add_items(TURN)

    for wrong, error, complaint in (
        ({"session_id": "chat"}, SessionConflictError, "belongs to another session"),
        ({"at": 6}, SessionValueError, "at most 5"),
        ({"at": -1}, SessionValueError, "at must be"),
        ({"at": "nothing"}, SessionValueError, "at names no item of the session: 'nothing'"),
        ({"session_id": ""}, SessionValueError, "session_id"),
    ):
        options: dict[str, Any] = {"session_id": "other", **wrong}
        with pytest.raises(error, match=complaint):
            await session.fork(**options)
    assert [each.external_id for each in (await list_sessions("ada", database=database)).items] == ["chat"]


async def test_a_user_lists_and_searches_what_is_theirs(new: NewSession, database: DatabaseManager) -> None:
    for number in range(3):
        await new(f"chat {number}", agent_id="meteorologist").add_items(TURN)
    await new("of bob", user_id="bob").add_items(TURN)
    await new("elsewhere", tenant_id="acme").add_items(TURN)

    page = await list_sessions("ada", limit=2, database=database)
    rest = await list_sessions("ada", limit=2, cursor=page.next_cursor, database=database)
    found: list[Session] = [*page.items, *rest.items]
    assert [each.external_id for each in found] == ["chat 2", "chat 1", "chat 0"]
    assert {(each.agent_id, each.total_messages) for each in found} == {("meteorologist", 5)}
    hits = await search_items("ada", "HEAVY snow", database=database)
    assert {(hit.session.external_id, hit.seq, hit.snippet) for hit in hits} == {
        (f"chat {number}", 4, "**heavy snow**") for number in range(3)
    }
    assert await search_items("ada", "heavy snow", tenant_id="other", database=database) == []
    assert len(await search_items("ada", "heavy snow", tenant_id="acme", limit=1, database=database)) == 1


async def test_items_are_read_with_their_numbers(new: NewSession) -> None:
    session = new()
    assert await session.read_items() == []
    await session.add_items(TURN)
    await session.pop_item()
    await session.add_items([said("next")])

    found = await session.read_items()
    assert [(each.seq, each.item) for each in found] == [*enumerate(TURN[:4], 1), (6, said("next"))]
    assert [each.seq for each in await session.read_items(limit=2)] == [4, 6]
    assert [each.seq for each in await session.read_items(after=1, limit=2)] == [2, 3]
    assert [each.seq for each in await session.read_items(before=4, limit=2)] == [2, 3]


async def test_a_follower_sees_every_item_whoever_adds_it(
    new: NewSession, writer: SessionWriter | None, database_url: str
) -> None:
    elsewhere, over = DatabaseManager(database_url), asyncio.Event()
    feed = new(database=elsewhere).follow(until=over)
    seen: list[Any] = []

    async def follow() -> None:
        async for event in feed:
            seen.append(event)
            if len(seen) == 8:
                over.set()

    following = asyncio.create_task(follow())
    session = new(writer=writer)
    for item in TURN:
        await session.add_items([item])
    while len(seen) < 5:
        await asyncio.sleep(0.005)
    await session.clear_session()
    await session.add_items([said("x"), said("y")])
    await following
    await elsewhere.close()

    assert [each.item for each in seen[:5]] == TURN
    assert isinstance(seen[5], Truncation)
    assert seen[5].from_seq == 1
    assert [(each.seq, each.item) for each in seen[6:] if isinstance(each, StoredItem)] == [
        (6, said("x")),
        (7, said("y")),
    ]


def ran(*responses: tuple[str | None, int]) -> Any:
    """Return what a Runner returned, as far as usage is concerned."""
    return SimpleNamespace(
        raw_responses=[
            ModelResponse(output=[], usage=Usage(requests=1, input_tokens=tokens, output_tokens=1), response_id=id_)
            for id_, tokens in responses
        ]
    )


async def test_usage_of_many_turns_is_summed_and_the_latest_are_kept(
    new: NewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "KEPT", 3)
    session = new()
    assert (await session.usage()).total == UsageSum()
    assert await session.get_items() == []

    for number in range(5):
        await session.record_usage(ran((f"r{number}", 10), (f"s{number}", 1)))
    await session.record_usage(ran((None, 100)), turn="by hand")
    await session.record_usage(ran((None, 200)), turn="by hand")
    noted = await session.usage()

    assert [each.turn for each in noted.turns] == ["r3", "r4", "by hand"]
    assert (noted.total.requests, noted.total.input_tokens, noted.total.output_tokens) == (11, 255, 11)
    await session.clear_session()
    assert (await session.usage()).total == UsageSum()


async def test_turns_recorded_at_once_are_all_counted(new: NewSession, database: DatabaseManager) -> None:
    await new().add_items([said("a")])
    async with database.session() as db:
        repo = SessionRepository(db)
        stored = await repo.get_by_external_id("chat")
        assert stored is not None
        await repo.update_session_metadata(stored.id, {"mine": 1})

    await asyncio.gather(*(new().record_usage(ran((None, 1))) for _ in range(20)))

    noted = await new().usage()
    assert (noted.total.requests, len(noted.turns)) == (20, 20)
    await new().clear_session()
    (left,) = (await list_sessions("ada", database=database)).items
    assert left.session_metadata == {"mine": 1}


@pytest.mark.parametrize("written", [{}, [], {"earlier": {"requests": 1}, "turns": [{}]}, {"earlier": {"a": 1}}])
async def test_what_others_wrote_for_usage_is_an_error_of_ours(
    new: NewSession, database: DatabaseManager, written: Any
) -> None:
    await new().add_items([said("a")])
    async with database.session() as db:
        repo = SessionRepository(db)
        stored = await repo.get_by_external_id("chat")
        assert stored is not None
        await repo.update_session_metadata(stored.id, {"openai_agents_usage": written})

    with pytest.raises(UndecodableError, match="openai_agents_usage"):
        await new().usage()
    with pytest.raises(UndecodableError, match="openai_agents_usage"):
        await new().record_usage(ran(("r", 1)))
    await new().clear_session()
    assert (await new().usage()).total == UsageSum()


async def test_what_has_no_responses_is_refused(new: NewSession) -> None:
    with pytest.raises(SessionValueError, match="result must be what the Runner returned, got str"):
        await new().record_usage("nothing")  # type: ignore[arg-type]
    with pytest.raises(SessionValueError, match="turn must have 1 to 255"):
        await new().record_usage(ran(("r", 1)), turn="x" * 256)
