"""Lines that were changed on their way are refused by name, or make a session that works. On both engines."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text, update

from agent_service.cli import main
from agent_service.core.errors import AgentServiceError, SessionConflictError, SessionError, SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.depth import examples

KEY = UUID("01900000-0000-7000-8000-000000000001")
MOMENT = "2026-01-02T03:04:05.678901+00:00"
MOMENTS = ("created_at", "updated_at", "last_activity_at", "expires_at", "completed_at", "deleted_at")


def export(**changes: Any) -> list[dict[str, Any]]:
    session = {
        "type": "session", "format": 1, "id": str(KEY), "user_id": "ada", "external_id": "thread", "agent_id": "agent",
        "title": "A title", "status": "active", "context": {"a": 1}, "metadata": {"b": [None, 1.5]},
        "last_seq": 3, "version": 2, **dict.fromkeys(MOMENTS[:4], MOMENT), "completed_at": None, "deleted_at": None,
    }  # fmt: skip
    messages = [
        {
            "type": "message", "session_id": str(KEY), "seq": seq, "client_id": f"m{seq}", "created_at": MOMENT,
            "data": {"role": "user", "content": f"words {seq}", "token_count": 7},
        }
        for seq in (1, 2, 3)
    ]  # fmt: skip
    return [{**session, **changes}, *messages]


async def works(database: DatabaseManager, other: Path) -> None:
    """Do with the session what is done with any; ``other`` is the file of an empty database."""
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.restore(KEY)
        session = await repo.get(KEY)
        assert session is not None
        first = await repo.add_message_to_session(KEY, {"role": "user", "content": "x", "token_count": 1})
        many = await repo.add_messages_to_session(KEY, [{"role": "user"}] * 2)
        assert [each.seq for each in (first, *many)] == [session.last_seq - 2, session.last_seq - 1, session.last_seq]
        assert session.expires_at.tzinfo is not None
        session.title = "changed"
        await repo.update(session)
        await repo.update_session_context(KEY, {"more": 1})
        assert await repo.get_session_with_messages(KEY)
        user = session.user_id
        page = await repo.get_user_sessions_page(user, limit=1)
        assert [each.id for each in page.items] == [KEY]
        await repo.get_recent_sessions(user)
        await repo.get_session_stats(user, group_by="day")
        await repo.search_messages(user, "words")
        fork = await repo.fork(KEY, first.seq)
        assert await repo.recount() == []
    async with SessionWriter(database) as writer:
        await writer.append(KEY, {"role": "user"}, client_id="after")
    async with database.session() as db:
        repo = SessionRepository(db)
        assert await repo.delete(fork.id, hard=True)
        lines = [line async for line in repo.export_user(user)]
        await repo.cleanup_expired_sessions()
    elsewhere = DatabaseManager(f"sqlite+aiosqlite:///{other}")
    async with elsewhere.session() as db:
        assert (await SessionRepository(db).import_user(lines)).sessions == 1
        assert [line async for line in SessionRepository(db).export_user(user)] == lines
    await elsewhere.close()


def empty_file(folder: Path, template: bytes) -> Path:
    path = folder / f"{uuid4()}.db"
    path.write_bytes(template)
    return path


async def clean(database: DatabaseManager) -> None:
    async with database.session() as db:
        await db.execute(text("DELETE FROM agent_service_session_messages"))
        await db.execute(text("DELETE FROM agent_service_sessions"))


async def rows(database: DatabaseManager) -> int:
    async with database.session() as db:
        messages = "SELECT count(*) FROM agent_service_session_messages"
        return int(await db.scalar(text(f"SELECT count(*) + ({messages}) FROM agent_service_sessions")) or 0)


JUNK = st.one_of(
    st.sampled_from(
        [
            None, True, False, 0, -1, 1, 2, 3, 4, 2**31 - 1, 2**31, 2**53, 2**62, 2**62 + 1, 2**63 - 1, 2**63, -(2**63),
            10**40, 1.5, 1e300, "", "x", "ada", "a\x00b", "\ud800", "z" * 256, "z" * 255, [], {}, [1], {"a": 1},
            {"a\x00": "\x00"}, {"\ud800": 1}, "active", "failed", "ACTIVE", "session", "message", str(KEY),
            str(KEY).upper(), f"{{{KEY}}}", "not-a-uuid", MOMENT, "2026-01-01", "2026-01-01T00:00:00",
            "0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00",
            "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00-14:00", "9999-12-31T23:59:59.999999+23:59", "-infinity",
            "20260101T000000Z", "2026-01-01T24:00:00Z", {"role": ""}, {"role": "user", "token_count": 2**31},
            {"role": "user", "token_count": -1}, {"role": "user", "content": {"a": 1}},
            {"role": "u", "content": "\x00"}, {"role": "user", "content": ["\ud800"]},
            {"role": "user", "deep": [[[[[[[[[[[[1]]]]]]]]]]]]},
        ]
    ),
    st.integers(),
    st.text(max_size=5),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), JUNK), min_size=1, max_size=3)


@settings(max_examples=examples(20, 60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, order=st.permutations(range(4)), keep_order=st.integers(0, 3), catch=st.booleans())
async def test_changed_lines_are_refused_or_work(
    database: DatabaseManager,
    sqlite_template: bytes,
    tmp_path: Path,
    changes: Any,
    order: list[int],
    keep_order: int,
    catch: bool,
) -> None:
    await clean(database)
    lines = export()
    for index, place, value in changes:
        names = sorted(lines[index])
        lines[index][names[place % len(names)]] = value
    if not keep_order:
        lines = [lines[index] for index in order]

    refused: AgentServiceError | None = None
    try:
        async with database.session() as db:
            repo = SessionRepository(db)
            try:
                await repo.import_user(json.dumps(line) for line in lines)
            except AgentServiceError as exc:
                refused = exc
                if not catch:
                    raise
    except AgentServiceError as exc:
        assert exc is refused  # noqa: PT017 - the same one, and none of the commit

    if refused is not None:
        assert isinstance(refused, SessionError)
        assert await rows(database) == 0
        return
    async with database.session() as db:
        known = list(await db.scalars(text("SELECT id FROM agent_service_sessions")))
    if [UUID(str(each)) for each in known] == [KEY]:
        await works(database, empty_file(tmp_path, sqlite_template))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"last_seq": 2**63 - 1}, "line 1: last_seq"),
        ({"last_seq": -1}, "line 1: last_seq"),
        ({"version": 2**31 - 1}, "line 1: version"),
        ({"version": 0}, "line 1: version"),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "line 1: created_at is outside of the calendar"),
        ({"expires_at": "9999-12-31T23:59:59-01:00"}, "line 1: expires_at is outside of the calendar"),
        ({"context": {"a": "\x00"}}, "line 1: context"),
        ({"context": [1]}, "line 1: context must be a dict"),
        ({"metadata": {"a": "\ud800"}}, "line 1: metadata"),
        ({"status": ["active"]}, "line 1: status"),
        ({"id": "x"}, "line 1: id"),
    ],
)
async def test_a_field_that_cannot_be_is_named_with_its_line(
    database: DatabaseManager, changes: dict[str, Any], problem: str
) -> None:
    async with database.session() as db:
        with pytest.raises(SessionValueError) as caught:
            await SessionRepository(db).import_user(map(json.dumps, export(**changes)))

    assert str(caught.value).startswith(problem)
    assert await rows(database) == 0


@pytest.mark.parametrize("name", MOMENTS)
@pytest.mark.parametrize("moment", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
async def test_the_edges_of_the_calendar_arrive(
    database: DatabaseManager, sqlite_template: bytes, tmp_path: Path, name: str, moment: datetime
) -> None:
    lines = export(**{name: moment.isoformat()})
    async with database.session() as db:
        await SessionRepository(db).import_user(map(json.dumps, lines))

    await works(database, empty_file(tmp_path, sqlite_template))


async def test_nesting_that_no_parser_follows_is_refused(database: DatabaseManager) -> None:
    depth = "[" * 100_000
    deep = json.dumps(export()[0]).replace('{"a": 1}', f'{{"a": {depth}{depth.replace("[", "]")}}}')

    async with database.session() as db:
        with pytest.raises(SessionValueError, match=r"^line 1"):
            await SessionRepository(db).import_user([deep])


async def test_lines_that_end_in_an_error_of_their_own_leave_nothing(database: DatabaseManager) -> None:
    async def lines() -> AsyncIterator[str]:
        for line in export():
            yield json.dumps(line)
        raise OSError("the disk is gone")

    async with database.session() as db:
        with pytest.raises(OSError, match="the disk is gone"):
            await SessionRepository(db).import_user(lines())

    assert await rows(database) == 0


async def append(database: DatabaseManager, many: int) -> None:
    message = {"role": "user", "token_count": 5}
    async with database.session() as db:
        repo = SessionRepository(db)
        if many:
            await repo.add_messages_to_session(KEY, [message] * many)
        else:
            await repo.add_message_to_session(KEY, message)


async def test_a_session_whose_numbers_are_used_up_says_so_and_stays_readable(database: DatabaseManager) -> None:
    async with database.session() as db:
        await SessionRepository(db).import_user(map(json.dumps, export()))
    for full in ({"last_seq": 2**63 - 1}, {"last_seq": 3, "total_tokens": 2**63 - 1}):
        async with database.session() as db:
            await db.execute(update(Session).values(**full))
        for many in range(3):
            with pytest.raises(SessionError) as caught:
                await append(database, many)
            assert "could not append" in str(caught.value) or isinstance(caught.value, SessionConflictError)
        async with database.session() as db:
            session = await SessionRepository(db).get(KEY)
        assert session is not None
        assert {name: getattr(session, name) for name in full} == full


def test_a_command_that_reads_conversations_refuses_a_broken_line(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": 1}]}\n')

    assert main(["replay", "--sessions", str(tmp_path / "a.jsonl")]) == 2
    assert "a.jsonl" in capsys.readouterr().err
