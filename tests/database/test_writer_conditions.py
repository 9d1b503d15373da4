"""Appends of the writer that expect a number, or change the session's context in the same commit. On both engines."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.append.lines import Line
from agent_service.infrastructure.database.append.message import accept_message
from agent_service.infrastructure.database.append.request import Request
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.depth import examples

SAID = {"role": "user", "content": "Hi"}


@pytest.fixture
async def writer(database: DatabaseManager) -> AsyncIterator[SessionWriter]:
    async with SessionWriter(database, tenant_id="acme") as opened:
        yield opened


async def create(database: DatabaseManager) -> UUID:
    async with database.session() as db:
        return (
            await SessionRepository(db, "acme").create(Session(user_id="ada", context={"step": 1, "kept": True}))
        ).id


async def stored(database: DatabaseManager, session_id: UUID) -> Session:
    async with database.session() as db:
        found = await SessionRepository(db, "acme").get(session_id)
        assert found is not None
        return found


async def test_a_message_is_appended_after_the_number_it_expects(database: DatabaseManager, writer: SessionWriter):
    session_id = await create(database)

    assert (await writer.append(session_id, SAID, expected_seq=0)).seq == 1
    assert (await writer.append(session_id, SAID, expected_seq=1)).seq == 2


async def test_a_message_that_expects_another_number_changes_nothing(database: DatabaseManager, writer: SessionWriter):
    session_id = await create(database)
    await writer.append(session_id, SAID)

    with pytest.raises(SessionConflictError, match="last_seq 0"):
        await writer.append(session_id, SAID, expected_seq=0, context={"step": 2}, client_id="late")
    found = await stored(database, session_id)
    assert (found.last_seq, found.total_messages, found.version, dict(found.context)) == (
        1,
        1,
        1,
        {"step": 1, "kept": True},
    )


async def test_an_unknown_session_is_no_conflict(writer: SessionWriter):
    with pytest.raises(SessionNotFoundError):
        await writer.append(uuid4(), SAID, expected_seq=0)


async def test_of_many_that_expect_the_same_number_one_is_appended(database: DatabaseManager, writer: SessionWriter):
    session_id = await create(database)

    outcomes = await asyncio.gather(
        *(writer.append(session_id, SAID, expected_seq=0, context={"by": task}) for task in range(20)),
        return_exceptions=True,
    )

    (won,) = [place for place, each in enumerate(outcomes) if not isinstance(each, BaseException)]
    assert sum(isinstance(each, SessionConflictError) for each in outcomes) == 19
    found = await stored(database, session_id)
    assert (found.last_seq, found.version, found.context["by"]) == (1, 2, won)


async def test_messages_with_and_without_conditions_keep_their_order(database: DatabaseManager, writer: SessionWriter):
    ids = [await create(database) for _ in range(3)]

    outcomes = await asyncio.gather(
        *(
            writer.append(session_id, SAID, expected_seq=seq if seq % 2 else None, context={"step": seq})
            for seq in range(6)
            for session_id in ids
        )
    )

    assert sorted(each.seq for each in outcomes) == sorted(list(range(1, 7)) * 3)
    for session_id in ids:
        found = await stored(database, session_id)
        assert (found.last_seq, found.version, dict(found.context)) == (6, 7, {"step": 5, "kept": True})


async def test_a_batch_of_many_sessions_changes_each_context(database: DatabaseManager, writer: SessionWriter):
    ids = [await create(database) for _ in range(5)]
    await asyncio.gather(
        *(writer.append(each, SAID, context={"step": place, "odd": "\N{BELL}"}) for place, each in enumerate(ids)),
        *(writer.append(each, SAID) for each in ids),
    )

    for place, each in enumerate(ids):
        found = await stored(database, each)
        assert (found.last_seq, found.context["step"], found.context["odd"]) == (2, place, "\N{BELL}")


async def test_a_repeated_message_changes_the_context_once(database: DatabaseManager, writer: SessionWriter):
    session_id = await create(database)
    first = await writer.append(session_id, SAID, client_id="a", expected_seq=0, context={"step": 2})
    await writer.append(session_id, SAID, context={"step": 3})

    again = await writer.append(session_id, SAID, client_id="a", expected_seq=0, context={"step": 2})

    assert again.seq == first.seq
    assert (await stored(database, session_id)).context["step"] == 3


async def test_what_cannot_be_kept_is_refused_before_anything_is_sent(database: DatabaseManager, writer: SessionWriter):
    session_id = await create(database)

    with pytest.raises(SessionValueError, match=r"context\.step holds U"):
        await writer.append(session_id, SAID, context={"step": "\x00"})
    with pytest.raises(SessionValueError, match="expected_seq must be"):
        await writer.append(session_id, SAID, expected_seq=-1)
    with pytest.raises(SessionValueError, match="context must be a dict"):
        await writer.append(session_id, SAID, context=["step"])  # type: ignore[arg-type]
    assert (await stored(database, session_id)).last_seq == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
@settings(max_examples=examples(50, 500))
def test_a_batch_holds_a_message_with_conditions_as_the_only_one_of_its_session(given_: list[tuple[int, bool]]):
    """However requests come, every one is in one batch, in order."""
    ids = [UUID(int=place) for place in range(4)]
    line, requests = Line("", 1000), []
    for session, conditional in given_:
        message = accept_message(ids[session], SAID)
        message.expected_seq = 0 if conditional else None
        requests.append(Request((message,), None))  # type: ignore[arg-type] # nobody waits here
        line.put(requests[-1])

    batches = []
    while line:
        batches.append(line.take())

    assert [each for batch in batches for each in batch] == requests
    for batch in batches:
        of_one = [[each for each in batch if each.place == session] for session in ids]
        assert all(len(messages) == 1 or not any(each.alone for each in messages) for messages in of_one)
