"""Messages come back as the dict that was added; numbers are gap-free; counters are exact. On both engines."""

import logging
import math
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import SessionConflictError, SessionNotFoundError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionLimits, SessionRepository
from tests.database.conftest import NewSession
from tests.support.depth import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.builds(
    lambda extra, role, content: {**extra, "role": role, "content": content},
    st.dictionaries(TEXT.filter(lambda key: key not in {"token_count", "role", "content"}), JSON, max_size=4),
    TEXT.filter(lambda role: role and "\x00" not in role),
    st.none() | TEXT | st.lists(TEXT | st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}), max_size=3),
)


def exactly(value: Any) -> Any:
    """Tell apart what ``==`` does not: 1, 1.0 and True, -0.0 and 0.0, and the order of keys."""
    if isinstance(value, dict):
        return [(key, exactly(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [exactly(item) for item in value]
    return type(value).__name__, repr(value)


@settings(max_examples=examples(15, 40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, min_size=1, max_size=4))
async def test_any_message_comes_back_exactly(database: DatabaseManager, messages: list[dict[str, Any]]) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        added = [await repo.add_message_to_session(session.id, message) for message in messages]
    async with database.session() as db:
        repo = SessionRepository(db)
        loaded = await repo.get_session_with_messages(session.id)
        listed = await repo.get_messages(session.id)

    assert loaded is not None
    for found in (added, loaded.messages, listed):
        assert exactly([each.to_dict() for each in found]) == exactly(messages)
        assert [each.seq for each in found] == list(range(1, len(messages) + 1))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a\x00b"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "arguments": '{"q": "\\u0000"}'}]},
        {"role": "assistant"},
        {"content": [{"type": "text", "text": "look"}, {"type": "image", "url": "x"}, "end"], "role": "user"},
        {"role": "tool", "content": "x" * 942_040},
        {"role": "user", "content": "😀 żółw", "n": [1e23, -0.0, 5e-324, 10**400, 1.0, 1]},
        {"role": "user", "content": "", "metadata": {"source": "web"}},
    ],
    ids=lambda message: str(message)[:40],
)
async def test_what_real_transcripts_hold_comes_back(
    repo: SessionRepository, new_session: NewSession, message: dict[str, Any]
) -> None:
    session = await new_session()

    added = await repo.add_message_to_session(session_id=session.id, message=message)
    (found,) = await repo.get_messages(session.id)

    assert exactly(added.to_dict()) == exactly(found.to_dict()) == exactly(message)
    assert found.content == message.get("content")
    assert dict(found) == message
    assert (found.role, "role" in found, "missing" in found) == (message["role"], True, False)


async def test_neither_side_shares_the_dict(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    message = {"role": "user", "content": "Hello", "tags": ["a"]}

    added = await repo.add_message_to_session(session.id, message)
    message["tags"].append("b")  # type: ignore[attr-defined]
    added.to_dict()["tags"].append("c")

    assert added["tags"] == ["a"]
    assert message == {"role": "user", "content": "Hello", "tags": ["a", "b"]}


async def test_an_append_counts_and_extends_the_session(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        before = (session.last_activity_at, session.expires_at)
        await repo.add_message_to_session(session.id, {"role": "user", "content": "Hi", "token_count": 7})
        added = await repo.add_message_to_session(session.id, {"role": "user", "content": "Hi", "token_count": 0})
        noted = (session.last_seq, session.total_messages, session.total_tokens, session.last_activity_at)

    async with database.session() as db:
        found = await SessionRepository(db).get(session.id)

    assert found is not None
    assert (found.last_seq, found.total_messages, found.total_tokens, found.last_activity_at) == noted
    assert noted[:3] == (2, 2, 7)
    assert found.last_activity_at == added.created_at > before[0]
    assert found.expires_at == added.created_at + timedelta(hours=24) > before[1]
    assert found.version == 1


async def test_a_later_expiry_stands(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    session.expires_at = later = session.expires_at + timedelta(days=30)
    await repo.update(session)

    await repo.add_message_to_session(session.id, {"role": "user", "content": "Hi"})

    assert session.expires_at == later


async def test_past_the_limit_it_warns_and_adds(
    database: DatabaseManager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("agent_service"), "propagate", True)
    async with database.session() as db:
        repo = SessionRepository(db, limits=SessionLimits(2, timedelta(hours=1)))
        session = await repo.create(Session(user_id="ada"))
        for _ in range(2):
            await repo.add_message_to_session(session.id, {"role": "user"})
        quiet = list(caplog.records)
        third = await repo.add_message_to_session(session.id, {"role": "user"})

    assert quiet == []
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "SESSION_MAX_MESSAGES" in caplog.text
    assert third.seq == session.total_messages == 3


async def test_a_rolled_back_append_takes_its_number_back(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def append_and_fail() -> None:
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
            raise RuntimeError("the handler failed")

    with pytest.raises(RuntimeError, match="the handler failed"):
        await append_and_fail()
    async with database.session() as db:
        added = await SessionRepository(db).add_message_to_session(session.id, {"role": "user"})
        found = await SessionRepository(db).get(session.id)

    assert added.seq == 1
    assert found is not None
    assert found.total_messages == 1


async def test_the_same_client_id_adds_nothing(repo: SessionRepository, new_session: NewSession) -> None:
    session, other = await new_session(), await new_session()
    first = await repo.add_message_to_session(session.id, {"role": "user", "content": "once"}, client_id="m1")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "next"})

    again = await repo.add_message_to_session(session.id, {"role": "user", "content": "twice"}, client_id="m1")
    elsewhere = await repo.add_message_to_session(other.id, {"role": "user"}, client_id="m1")

    assert (again.seq, again.content, again.client_id) == (first.seq, "once", "m1")
    assert elsewhere.seq == 1
    assert (session.total_messages, session.last_seq) == (2, 2)


async def test_an_expectation_is_kept_or_refused(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    message = {"role": "user", "content": "Hi"}

    await repo.add_message_to_session(session.id, message, expected_seq=0, expected_version=1, client_id="m1")
    with pytest.raises(SessionConflictError, match="last_seq 1"):
        await repo.add_message_to_session(session.id, message, expected_seq=0)
    with pytest.raises(SessionConflictError, match="expected version 2"):
        await repo.add_message_to_session(session.id, message, expected_version=2)
    retried = await repo.add_message_to_session(session.id, message, expected_seq=0, client_id="m1")

    assert retried.seq == session.total_messages == 1


async def test_windows_of_the_history(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    for number in range(1, 11):
        await repo.add_message_to_session(session.id, {"role": "user", "content": str(number)})

    async def window(**bounds: Any) -> list[int]:
        return [each.seq for each in await repo.get_messages(session.id, **bounds)]

    assert await window() == list(range(1, 11))
    assert await window(limit=3) == [8, 9, 10]
    assert await window(limit=3, before_seq=8) == [5, 6, 7]
    assert await window(limit=3, after_seq=2) == [3, 4, 5]
    assert await window(limit=10, after_seq=2, before_seq=5) == [3, 4]
    assert await window(after_seq=10) == []
    assert await window(before_seq=1) == []


async def test_pop_removes_the_last_and_never_reuses_its_number(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    await repo.add_message_to_session(session.id, {"role": "user", "content": "first", "token_count": 2})
    await repo.add_message_to_session(session.id, {"role": "user", "content": "second", "token_count": 3})

    popped = await repo.pop_message(session.id)
    after_pop = (session.total_messages, session.total_tokens, session.last_seq)
    added = await repo.add_message_to_session(session.id, {"role": "user", "content": "third"})

    assert popped is not None
    assert popped.to_dict() == {"role": "user", "content": "second", "token_count": 3}
    assert after_pop == (1, 2, 2)
    assert [each.seq for each in await repo.get_messages(session.id)] == [1, 3] == [1, added.seq]
    assert [await repo.search_sessions(session.user_id, term) for term in ("second", "third")] == [[], [session]]
    assert (await repo.pop_message(session.id), await repo.pop_message(session.id)) != (None, None)
    assert await repo.pop_message(session.id) is None
    assert (session.total_messages, session.total_tokens, session.last_seq) == (0, 0, 3)


async def test_an_unknown_session_is_named(repo: SessionRepository) -> None:
    unknown = uuid4()
    for call in (repo.add_message_to_session(unknown, {"role": "user"}), repo.get_messages(unknown)):
        with pytest.raises(SessionNotFoundError, match=str(unknown)):
            await call


def test_the_exact_comparison_of_these_tests_is_sharp() -> None:
    assert exactly(1) != exactly(1.0) != exactly(True)
    assert exactly(-0.0) != exactly(0.0)
    assert exactly({"a": 1, "b": 2}) != exactly({"b": 2, "a": 1})
    assert math.copysign(1, -0.0) == -1
