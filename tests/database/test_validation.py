"""Bad input gets an error of ours that names the argument, before anything is sent."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.append.message import accept_message
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.values.documents import MAX_DEPTH, encode_document
from tests.database.conftest import NewSession


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def holding_itself() -> dict[str, Any]:
    document: dict[str, Any] = {"role": "user"}
    document["self"] = document
    return document


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (None, "message must be a dict"),
        ("hello", "message must be a dict"),
        ([("role", "user")], "message must be a dict"),
        ({}, "message.role"),
        ({"content": "hello"}, "message.role"),
        ({"role": ""}, "message.role"),
        ({"role": None}, "message.role"),
        ({"role": 7}, "message.role"),
        ({"role": "us\x00er"}, r"message.role holds U\+0000"),
        ({"role": "user", "content": 7}, "message.content"),
        ({"role": "user", "content": {"text": "x"}}, "message.content"),
        ({"role": "user", "content": "\ud83d"}, r"message.content holds a lone surrogate \(U\+D83D\) at 0"),
        ({"role": "user", "score": float("nan")}, "message.score is nan"),
        ({"role": "user", "a": [{"b": float("-inf")}]}, r"message.a\[0\].b is -inf"),
        ({"role": "user", "a": (1,)}, "message.a is a tuple"),
        ({"role": "user", "a": {1}}, "message.a is a set"),
        ({"role": "user", "a": b"x"}, "message.a is a bytes"),
        ({"role": "user", "a": UUID(int=1)}, "message.a is a UUID"),
        ({"role": "user", "a": {None: 1}}, "message.a has a key that is no string: None"),
        ({"role": "user", 5: 1}, "message has a key that is no string: 5"),
        ({"role": "user", "\udfff": 1}, "a key of message holds a lone surrogate"),
        ({"role": "user", "deep": nested(MAX_DEPTH + 1)}, "levels deep"),
        ({"role": "user", "deep": nested(100_000)}, "levels deep"),
        (holding_itself(), "levels deep"),
        ({"role": "user", "n": 10**5000}, "message has no JSON form"),
        ({"role": "user", "token_count": -1}, "message.token_count"),
        ({"role": "user", "token_count": 1.5}, "message.token_count"),
        ({"role": "user", "token_count": 2**31}, "message.token_count"),
        ({"role": "user", "token_count": True}, "message.token_count"),
    ],
    ids=lambda value: str(type(value)),
)
def test_a_message_that_cannot_be_kept_is_refused_by_path(message: Any, complaint: str) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        accept_message(uuid4(), message)


def test_what_is_deep_but_not_too_deep_is_kept() -> None:
    document = {"deep": nested(MAX_DEPTH - 1), "wide": [{}] * 1000}

    _, copy = encode_document(document, "document", nul=True)

    assert copy == document


def test_an_escaped_backslash_is_no_nul() -> None:
    _, copy = encode_document({"a": "\\u0000"}, "context", nul=False)

    assert copy == {"a": "\\u0000"}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 256}, "user_id"),
        ({"user_id": "a\x00"}, "user_id"),
        ({"user_id": "a", "id": "not-a-uuid"}, "external_id"),
        ({"user_id": "a", "id": 5}, "id must be a UUID"),
        ({"user_id": "a", "title": "a\x00b"}, r"title holds U\+0000"),
        ({"user_id": "a", "title": "\ud800"}, "title holds a lone surrogate"),
        ({"user_id": "a", "title": 7}, "title"),
        ({"user_id": "a", "agent_id": ""}, "agent_id"),
        ({"user_id": "a", "external_id": "x" * 256}, "external_id"),
        ({"user_id": "a", "status": "sleeping"}, "'active', 'completed', 'failed', 'cancelled'"),
        ({"user_id": "a", "status": None}, "status"),
        ({"user_id": "a", "expires_at": "tomorrow"}, "expires_at"),
        ({"user_id": "a", "expires_at": datetime(2030, 1, 1)}, "timezone-aware"),  # noqa: DTZ001
        ({"user_id": "a", "context": []}, "context must be a dict"),
        ({"user_id": "a", "context": None}, "context must be a dict"),
        ({"user_id": "a", "metadata": {"a": float("nan")}}, "metadata.a"),
        ({"user_id": "a", "metadata": {"a": object()}}, "metadata.a"),
    ],
)
async def test_a_session_that_cannot_be_is_refused(
    repo: SessionRepository, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        await repo.create(Session(**values))


@pytest.mark.parametrize("session_id", ["not-a-uuid", "", 7, None, b"x", "thread_abc"])
async def test_a_session_id_that_is_no_uuid_is_explained(repo: SessionRepository, session_id: Any) -> None:
    for call in (
        repo.get(session_id),
        repo.delete(session_id),
        repo.get_session_with_messages(session_id),
        repo.add_message_to_session(session_id, {"role": "user"}),
        repo.get_messages(session_id),
        repo.pop_message(session_id),
        repo.update_session_context(session_id, {}),
    ):
        with pytest.raises(SessionValueError, match="session_id must be a UUID"):
            await call


async def test_refused_input_leaves_the_session_usable(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError):
        await repo.add_message_to_session(session.id, {"role": "user", "content": "\ud800"})
    with pytest.raises(SessionValueError):
        session.title = "\x00"

    assert (await repo.add_message_to_session(session.id, {"role": "user"})).seq == 1
    assert session.title is None


def test_statuses_are_strings_and_strings_are_statuses() -> None:
    session = Session(user_id="ada", status="failed")

    assert session.status is SessionStatus.FAILED
    assert str(session.status) == "failed"
    assert f"{SessionStatus.ACTIVE}" == "active"
