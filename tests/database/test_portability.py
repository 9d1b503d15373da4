"""A user's sessions leave as JSON lines and arrive elsewhere as they were, once. On both engines."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionConflictError, SessionValueError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.repositories.results import ImportResult
from tests.database.conftest import NewSession
from tests.database.test_context import CONTEXTS
from tests.database.test_messages import MESSAGES, exactly
from tests.support.depth import examples


async def lines_of(repo: SessionRepository, user: str = "ada") -> list[str]:
    return [line async for line in repo.export_user(user)]


@settings(max_examples=examples(8, 20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(MESSAGES, max_size=4), context=CONTEXTS)
async def test_anything_arrives_as_it_left(
    database: DatabaseManager,
    sqlite_template: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[Any],
    context: dict[str, Any],
) -> None:
    other = tmp_path_factory.mktemp("else") / "other.db"
    other.write_bytes(sqlite_template)
    elsewhere = DatabaseManager(f"sqlite+aiosqlite:///{other}")
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.erase_user("ada")
        session = await repo.create(Session(user_id="ada", context=context, metadata=context, title="T"))
        for number, message in enumerate(messages):
            await repo.add_message_to_session(session.id, message, client_id=f"m{number}")
        lines = await lines_of(repo)

    async with elsewhere.session() as db:
        repo = SessionRepository(db, "moved")
        assert await repo.import_user(lines) == ImportResult(1, len(messages), 0)
        assert await repo.import_user(lines) == ImportResult(0, 0, 1)
        assert await lines_of(repo) == lines
        arrived = await repo.get_session_with_messages(session.id)
        assert await repo.recount() == []
    await elsewhere.close()

    assert arrived is not None
    assert exactly([each.to_dict() for each in arrived.messages]) == exactly(messages)
    assert (arrived.context, arrived.created_at, arrived.tenant_id) == (context, session.created_at, "moved")


async def test_hidden_sessions_popped_messages_and_forks_travel(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", external_id="thread-1", status="failed")
    for content in ("one", "two", "three"):
        await repo.add_message_to_session(session.id, {"role": "user", "content": content, "token_count": 2})
    fork = await repo.fork(session.id, 2)
    await repo.add_message_to_session(fork.id, {"role": "user", "content": "other"})
    await repo.pop_message(session.id)
    await repo.delete(session.id)
    lines = await lines_of(repo)
    assert await repo.erase_user("ada") == 2

    result = await repo.import_user("\n".join(lines).encode().splitlines())

    assert result == ImportResult(2, 5, 0)
    assert await repo.get(session.id) is None
    assert await repo.restore(session.id)
    restored, forked = await repo.get_by_external_id("thread-1"), await repo.get_session_with_messages(fork.id)
    assert restored is not None
    assert forked is not None
    assert (restored.last_seq, restored.total_messages, restored.total_tokens) == (3, 2, 4)
    assert restored.status == "failed"
    assert restored.completed_at is not None
    assert [each.content for each in forked.messages] == ["one", "two", "other"]
    assert forked.parent_session_id is None
    assert [each.session.id for each in await repo.search_messages("ada", "other")] == [fork.id]
    assert (await repo.add_message_to_session(session.id, {"role": "user"})).seq == 4


async def test_long_histories_are_streamed_both_ways(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada")
    for number in range(450):
        await repo.add_message_to_session(session.id, {"role": "user", "content": str(number)})
    for _ in range(55):
        await new_session(user_id="ada")
    other = SessionRepository(db, "other")
    lines = await lines_of(repo)
    await repo.erase_user("ada")

    async def stream() -> AsyncIterator[str]:
        for line in lines:
            yield line + "\n"
            yield "\n"

    assert await other.import_user(stream()) == ImportResult(56, 450, 0)
    assert await lines_of(other) == lines


async def test_a_session_that_is_there_is_left_alone(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(user_id="ada")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "before"})
    lines = await lines_of(repo)
    await repo.add_message_to_session(session.id, {"role": "user", "content": "since"})

    assert await repo.import_user(lines) == ImportResult(0, 0, 1)

    assert [each.content for each in await repo.get_messages(session.id)] == ["before", "since"]


async def test_another_tenants_ids_are_no_conflict(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada")
    await repo.add_message_to_session(session.id, {"role": "user"}, client_id="c")
    lines = await lines_of(repo)
    other = SessionRepository(db, "other")

    added = await other.import_user(lines)
    await other.add_message_to_session(session.id, {"role": "user"})

    assert (added.sessions, added.messages, added.skipped) == (1, 1, 0)
    assert len(await lines_of(other)) == 3
    assert await lines_of(repo) == lines


async def test_an_external_id_of_another_session_is_a_conflict(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    await new_session(user_id="ada", external_id="one")
    lines = await lines_of(repo)
    other = SessionRepository(db, "other")
    await other.create(Session(user_id="eve", external_id="one"))

    with pytest.raises(SessionConflictError, match=r"'one' .* belongs to another session"):
        await other.import_user(lines)

    assert await lines_of(other) == []


async def test_a_line_gives_no_session_a_parent_or_another_tenant(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "secret"})
    (line, _) = await lines_of(repo)
    other = SessionRepository(db, "other")
    given: dict[str, Any] = {
        "id": str(uuid7()),
        "tenant_id": "",
        "parent_session_id": str(session.id),
        "fork_seq": 1,
        "last_seq": 1,
    }

    await other.import_user([changed(line, **given)])

    imported = await other.get(given["id"])
    assert imported is not None
    assert (imported.tenant_id, imported.parent_session_id, imported.fork_seq) == ("other", None, None)
    assert await other.get_messages(imported.id) == []
    assert await repo.get(given["id"]) is None


@pytest.fixture
async def two_lines(repo: SessionRepository, new_session: NewSession) -> list[str]:
    session = await new_session(user_id="ada")
    await repo.add_message_to_session(session.id, {"role": "user", "content": "one"})
    lines = await lines_of(repo)
    await repo.erase_user("ada")
    return lines


def changed(line: str, **values: Any) -> str:
    return json.dumps({**json.loads(line), **values})


@pytest.mark.parametrize(
    ("line", "values", "complaint"),
    [
        (0, {"format": 2}, "line 1: format is 2"),
        (0, {"type": "user"}, "line 1: is neither"),
        (0, {"id": "x"}, "line 1: id must"),
        (0, {"user_id": None}, "line 1: user_id"),
        (0, {"status": "sleeping"}, "line 1: status"),
        (0, {"last_seq": -1}, "line 1: last_seq"),
        (0, {"last_seq": 0}, "line 2: seq"),
        (0, {"version": 0}, "line 1: version"),
        (0, {"created_at": "yesterday"}, "line 1: created_at"),
        (0, {"created_at": "2026-01-01T00:00:00"}, "line 1: created_at"),
        (0, {"expires_at": None}, "line 1: expires_at"),
        (0, {"title": 7}, "line 1: title"),
        (1, {"session_id": "x"}, "line 2: session_id"),
        (1, {"seq": 0}, "line 2: seq"),
        (1, {"seq": True}, "line 2: seq"),
        (1, {"data": {"content": "no role"}}, "line 2: message.role"),
        (1, {"data": None}, "line 2: message"),
        (1, {"client_id": 7}, "line 2: client_id"),
        (1, {"created_at": 7}, "line 2: created_at"),
        (0, {"context": []}, "context"),
        (0, {"context": {"a": "\x00"}}, "context.a"),
    ],
)
async def test_a_line_that_cannot_be_is_named(
    repo: SessionRepository, two_lines: list[str], line: int, values: dict[str, Any], complaint: str
) -> None:
    two_lines[line] = changed(two_lines[line], **values)

    with pytest.raises(SessionValueError, match=complaint):
        await repo.import_user(two_lines)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["{"], "line 1: is no JSON"),
        ([b"\xff"], "line 1: "),
        (["", "[]"], "line 2: is neither"),
        ([7], "line 1: must be text"),
        ("{}", "lines must be"),
        (None, "lines must be"),
        (['{"type": "message"}'], "line 1: is a message, but no session"),
        (["[" * 100_000], "line 1: is no JSON"),
    ],
)
async def test_what_is_no_export_is_refused(repo: SessionRepository, lines: Any, complaint: str) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        await repo.import_user(lines)


async def test_messages_out_of_order_are_refused(repo: SessionRepository, two_lines: list[str]) -> None:
    with pytest.raises(SessionValueError, match="line 3: seq 1 follows 1"):
        await repo.import_user([*two_lines, two_lines[1]])


async def test_nothing_comes_of_nobody_and_of_nothing(repo: SessionRepository) -> None:
    assert await lines_of(repo, "nobody") == []
    assert await repo.import_user([]) == ImportResult(0, 0, 0)


async def test_what_another_import_is_bringing_in_is_left_to_it(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await repo.add_message_to_session(session.id, {"role": "user"})
        lines = await lines_of(repo)

    async def bring_in() -> ImportResult:
        async with database.session() as db:
            return await SessionRepository(db, "other").import_user(lines)

    async def waits() -> bool:
        async with database.session() as db:
            return bool((await db.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted"))).all())

    async with database.session() as db:
        first = await SessionRepository(db, "other").import_user(lines)
        again = asyncio.create_task(bring_in())
        while not database.embedded and not again.done() and not await waits():
            await asyncio.sleep(0.01)

    assert first == ImportResult(1, 1, 0)
    assert await again == ImportResult(0, 0, 1)
