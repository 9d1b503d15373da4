"""The very moment, the order among equals, and how much is done at once. On both engines."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text, update

from agent_service.core.errors import SessionConflictError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.limits import SessionLimits
from agent_service.infrastructure.database.maintenance import purge, sweep
from agent_service.infrastructure.database.models import Session, SessionStatus
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.testing.clock import FakeClock

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
MOMENT, HOUR = timedelta(microseconds=1), timedelta(hours=1)


def of(database_session: Any, now: datetime = NOW) -> SessionRepository:
    return SessionRepository(database_session, clock=FakeClock(now))


async def create(database: DatabaseManager, number: int, now: datetime = NOW, **values: Any) -> UUID:
    async with database.session() as db:
        return (await of(db, now).create(Session(id=UUID(int=number), user_id="ada", **values))).id


async def analyze(database: DatabaseManager) -> None:
    """Have PostgreSQL know how few rows there are: it reads them as they stand then, in no index's order."""
    if not database.embedded:
        async with database.session() as db:
            await db.execute(text("ANALYZE agent_service_sessions"))


async def test_a_session_expires_at_its_very_moment(database: DatabaseManager) -> None:
    await create(database, 1, expires_at=NOW)
    await create(database, 2, expires_at=NOW + MOMENT)
    async with database.session() as db:
        repo = of(db)
        assert [each.id.int for each in await repo.get_user_sessions("ada")] == [2]
        assert await repo.count_active_sessions() == 1
        assert (await repo.get_session_stats()).active_sessions == 1
        assert await repo.cleanup_expired_sessions() == 1
        found = await repo.get(UUID(int=1))
        assert found is not None
        assert (found.status, found.completed_at, found.version) == (SessionStatus.COMPLETED, NOW, 2)


async def test_a_sweep_completes_what_expires_at_this_very_moment(database: DatabaseManager) -> None:
    await create(database, 1, expires_at=NOW)
    await create(database, 2, expires_at=NOW + MOMENT)

    assert await sweep(database, clock=FakeClock(NOW)) == 1

    async with database.session() as db:
        repo = of(db)
        ended, going_on = await repo.get(UUID(int=1)), await repo.get(UUID(int=2))
    assert ended is not None
    assert going_on is not None
    assert (ended.status, ended.completed_at, ended.updated_at, ended.version) == (SessionStatus.COMPLETED, NOW, NOW, 2)
    assert ended.last_activity_at == NOW
    assert (going_on.status, going_on.version) == (SessionStatus.ACTIVE, 1)


class Stop(Exception):
    """Raised in place of a second transaction."""


async def after_one_batch(database: DatabaseManager, work: Callable[[], Awaitable[int]]) -> None:
    """Do a piece of work in batches, of which there is no second."""
    begun = 0

    def begin(_connection: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            raise Stop

    event.listen(database.engine.sync_engine, "begin", begin)
    try:
        with pytest.raises(Stop):
            await work()
    finally:
        event.remove(database.engine.sync_engine, "begin", begin)


async def test_the_longest_expired_are_completed_first_and_no_more_than_a_batch(database: DatabaseManager) -> None:
    for number in (2, 4, 1, 3):
        await create(database, number, expires_at=NOW - number * HOUR)
    await analyze(database)

    await after_one_batch(database, lambda: sweep(database, batch_size=2, clock=FakeClock(NOW)))

    async with database.session() as db:
        found = await of(db).get_user_sessions("ada", active_only=False)
    assert {each.id.int for each in found if each.status is SessionStatus.COMPLETED} == {3, 4}


async def hide(database: DatabaseManager, number: int, when: datetime) -> None:
    await create(database, number, now=when)
    async with database.session() as db:
        assert await of(db, when).delete(UUID(int=number))


async def left(database: DatabaseManager) -> set[int]:
    async with database.session() as db:
        return {number for number in range(1, 9) if await of(db).restore(UUID(int=number))}


async def test_the_longest_hidden_are_purged_first_and_no_more_than_a_batch(database: DatabaseManager) -> None:
    for number in (2, 4, 1, 3):
        await hide(database, number, NOW - number * HOUR)
    await analyze(database)

    await after_one_batch(database, lambda: purge(database, NOW, batch_size=2))

    assert await left(database) == {1, 2}


@pytest.mark.parametrize("by", ["repository", "schedule"])
async def test_what_was_hidden_at_the_very_moment_is_not_purged_yet(database: DatabaseManager, by: str) -> None:
    await hide(database, 1, NOW)
    await hide(database, 2, NOW - MOMENT)
    await create(database, 3, now=NOW - HOUR)

    if by == "schedule":
        assert await purge(database, NOW) == 1
    else:
        async with database.session() as db:
            assert await of(db).purge_deleted(NOW) == 1

    assert await left(database) == {1}
    async with database.session() as db:
        assert await of(db).get(UUID(int=3)) is not None


async def test_recent_sessions_and_sums_take_their_first_moment_and_not_their_last(database: DatabaseManager) -> None:
    for number, when in enumerate((NOW - HOUR - MOMENT, NOW - HOUR, NOW - MOMENT, NOW), 1):
        await create(database, number, now=when)

    async with database.session() as db:
        repo = of(db)
        recent = await repo.get_recent_sessions("ada", hours=1)
        since = await repo.get_session_stats(since=NOW - HOUR)
        before = await repo.get_session_stats(until=NOW)

    assert [each.id.int for each in recent] == [4, 3, 2]
    assert (since.total_sessions, before.total_sessions) == (3, 3)


async def test_every_list_has_one_order_among_sessions_of_the_same_moment(database: DatabaseManager) -> None:
    for number in (3, 1, 5, 2, 4):
        await create(database, number, agent_id="bird", title="One", context={})
        async with database.session() as db:
            await of(db).add_message_to_session(UUID(int=number), {"role": "user", "content": "the same word"})
    expected = [5, 4, 3, 2, 1]
    await analyze(database)

    async with database.session() as db:
        repo = of(db)
        lists = [
            await repo.get_user_sessions("ada"),
            [each for offset in range(5) for each in await repo.get_user_sessions("ada", limit=1, offset=offset)],
            await repo.get_recent_sessions("ada"),
            await repo.get_sessions_by_agent("bird"),
            [each for page in (1, 2, 3) for each in (await repo.get_paginated_user_sessions("ada", page, 2)).items],
            await repo.search_sessions("ada", "same word"),
            [hit.session for hit in await repo.search_messages("ada", "same word")],
        ]
        by_title = await repo.get_session_by_title("ada", "One")
        walked: list[Session] = []
        cursor: str | None = None
        while True:
            page = await repo.get_user_sessions_page("ada", limit=2, cursor=cursor)
            walked += page.items
            cursor = page.next_cursor
            if cursor is None:
                break

    assert [[each.id.int for each in found] for found in [*lists, walked]] == [expected] * (len(lists) + 1)
    assert by_title is not None
    assert by_title.id.int == 5


async def test_a_cursor_goes_on_where_it_was_whatever_is_new(database: DatabaseManager) -> None:
    for number in range(1, 7):
        await create(database, number, now=NOW + number * MOMENT)
    async with database.session() as db:
        first = await of(db).get_user_sessions_page("ada", limit=2)
    await create(database, 7, now=NOW + HOUR)
    async with database.session() as db:
        await of(db, NOW + HOUR).add_message_to_session(UUID(int=1), {"role": "user", "content": "x"})
        await of(db).delete(UUID(int=5), hard=True)
        rest = await of(db).get_user_sessions_page("ada", limit=10, cursor=first.next_cursor)

    assert [each.id.int for each in first.items] == [6, 5]
    assert [each.id.int for each in rest.items] == [4, 3, 2]
    assert rest.next_cursor is None


async def test_a_page_that_is_just_full_is_the_last_one(database: DatabaseManager) -> None:
    for number in (1, 2):
        await create(database, number)
    async with database.session() as db:
        assert (await of(db).get_user_sessions_page("ada", limit=2)).next_cursor is None


async def test_an_export_gives_each_session_once_in_the_order_of_ids(database: DatabaseManager) -> None:
    numbers = [(number * 37) % 60 + 1 for number in range(60)]
    async with database.session() as db:
        for number in numbers:
            await of(db).create(Session(id=UUID(int=number), user_id="ada"))
    await analyze(database)
    async with database.session() as db:
        lines = [line async for line in of(db).export_user("ada")]

    assert [line.split('"id":')[1].split(",")[0].strip().strip('"') for line in lines] == [
        str(UUID(int=number)) for number in range(1, 61)
    ]


async def test_what_was_assigned_before_an_append_is_not_lost(database: DatabaseManager) -> None:
    """It is written before the append's own statement, which would take it for stored otherwise."""
    far = NOW + timedelta(days=1000)
    for many, number in ((False, 1), (True, 2)):
        await create(database, number)
        async with database.session() as db:
            repo = of(db)
            loaded = await repo.get(UUID(int=number))
            assert loaded is not None
            loaded.expires_at = far
            if many:
                await repo.add_messages_to_session(loaded.id, [{"role": "user"}] * 2)
            else:
                await repo.add_message_to_session(loaded.id, {"role": "user"})
            assert loaded.expires_at == far
        async with database.session() as db:
            again = await of(db).get(UUID(int=number))
            assert again is not None
            assert again.expires_at == far


async def test_a_session_shows_what_was_appended_through_its_own_repository(database: DatabaseManager) -> None:
    await create(database, 1)
    async with database.session() as db:
        repo = of(db, NOW + HOUR)
        loaded = await repo.get(UUID(int=1))
        assert loaded is not None
        for count in (1, 3):
            if count == 1:
                await repo.add_message_to_session(loaded.id, {"role": "user", "token_count": 5})
            else:
                await repo.add_messages_to_session(loaded.id, [{"role": "user", "token_count": 5}] * 2)
            assert (loaded.last_seq, loaded.total_messages, loaded.total_tokens) == (count, count, 5 * count)
            assert (loaded.last_activity_at, loaded.updated_at) == (NOW + HOUR, NOW + HOUR)
        await repo.pop_message(loaded.id)
        assert (loaded.last_seq, loaded.total_messages, loaded.total_tokens) == (3, 2, 10)


async def test_a_batch_past_the_limit_is_warned_about(
    database: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.session() as db:
        repo = SessionRepository(db, limits=SessionLimits(max_messages=2, expiry=HOUR))
        session = await repo.create(Session(user_id="ada"))  # with an id that this process has not warned about
        await repo.add_messages_to_session(session.id, [{"role": "user"}] * 2)
        assert "SESSION_MAX_MESSAGES" not in caplog.text
        await repo.add_messages_to_session(session.id, [{"role": "user"}])
    assert f"session {session.id} holds 3 messages" in caplog.text


async def test_the_end_of_a_session_is_when_it_first_ended(database: DatabaseManager) -> None:
    await create(database, 1)
    for after, status, ended in (
        (1, "completed", 1),
        (2, "failed", 1),
        (3, "active", None),
        (4, "cancelled", 4),
        (5, "cancelled", 4),
    ):
        async with database.session() as db:
            repo = of(db, NOW + after * HOUR)
            loaded = await repo.get(UUID(int=1))
            assert loaded is not None
            assert await repo.bulk_update_session_status([UUID(int=1)], status) == 1
            assert loaded.completed_at == (None if ended is None else NOW + ended * HOUR)
            assert (loaded.updated_at, loaded.version) == (NOW + after * HOUR, after + 1)


async def test_a_change_that_is_refused_counts_nothing(database: DatabaseManager) -> None:
    """Though the version was counted up already, to hold the row."""
    await create(database, 1, context={"list": [1], "text": "x"})
    async with database.session() as db:
        repo = of(db)
        id_ = UUID(int=1)
        with pytest.raises(SessionValueError, match="path"):
            await repo.set_session_context_path(id_, "list.x", 1)
        with pytest.raises(SessionValueError, match="no number"):
            await repo.increment_session_context(id_, "text")
        with pytest.raises(SessionConflictError):
            await repo.set_session_context(id_, {}, expected_version=7)
        await repo.set_session_metadata(id_, {"a": 1}, expected_version=1)
    async with database.session() as db:
        found = await of(db).get(UUID(int=1))
        assert found is not None
        assert (found.version, found.context) == (2, {"list": [1], "text": "x"})


async def test_numbers_have_no_gap_where_a_savepoint_was_rolled_back(database: DatabaseManager) -> None:
    await create(database, 1)
    id_ = UUID(int=1)
    async with database.session() as db:
        repo = of(db)
        await repo.add_message_to_session(id_, {"role": "user"})
        savepoint = await db.begin_nested()
        await repo.add_message_to_session(id_, {"role": "user"}, client_id="c")
        await repo.add_messages_to_session(id_, [{"role": "user"}] * 3)
        await savepoint.rollback()
        added = await repo.add_messages_to_session(id_, [{"role": "user"}] * 2, client_ids=["c", None])
    assert [each.seq for each in added] == [2, 3]
    async with database.session() as db:
        assert await of(db).recount() == []


async def test_a_client_id_is_known_however_it_came_and_free_again_once_it_was_popped(
    database: DatabaseManager,
) -> None:
    await create(database, 1)
    id_, hello = UUID(int=1), {"role": "user", "content": "Hi"}
    async with database.session() as db:
        repo = of(db)
        await repo.add_messages_to_session(id_, [hello] * 2, client_ids=["a", "b"])
        assert (await repo.add_message_to_session(id_, {"role": "user", "content": "again"}, client_id="a")).seq == 1
        assert (await repo.add_message_to_session(id_, hello, client_id="c")).seq == 3
        assert [
            each.seq for each in await repo.add_messages_to_session(id_, [hello] * 3, client_ids=["c", "d", "d"])
        ] == [3, 4, 4]
        popped = await repo.pop_message(id_)
        assert popped is not None
        assert (popped.seq, popped.client_id) == (4, "d")
        assert (await repo.add_message_to_session(id_, hello, client_id="d")).seq == 5
    async with database.session() as db:
        assert await of(db).recount() == []


async def test_a_restored_session_keeps_its_version_and_a_deleted_one_its_activity(database: DatabaseManager) -> None:
    await create(database, 1)
    async with database.session() as db:
        assert await of(db, NOW + HOUR).delete(UUID(int=1))
        assert await of(db, NOW + HOUR).delete(UUID(int=1)) is False
        assert await of(db, NOW + 2 * HOUR).restore(UUID(int=1))
        found = await of(db).get(UUID(int=1))
    assert found is not None
    assert (found.version, found.last_activity_at, found.updated_at) == (1, NOW, NOW + 2 * HOUR)


async def test_iterating_stops_at_what_was_last_when_it_began(database: DatabaseManager) -> None:
    await create(database, 1)
    id_ = UUID(int=1)
    async with database.session() as db:
        repo = of(db)
        await repo.add_messages_to_session(id_, [{"role": "user"}] * 250)
        seqs = []
        async for each in repo.iter_messages(id_):
            seqs.append(each.seq)
            if len(seqs) == 1:
                await repo.add_messages_to_session(id_, [{"role": "user"}] * 3)
    assert seqs == list(range(1, 251))


async def test_a_counter_that_was_lost_is_found_by_a_recount_of_all_but_not_of_another_tenant(
    database: DatabaseManager,
) -> None:
    await create(database, 1)
    async with database.session() as db:
        await of(db).add_messages_to_session(UUID(int=1), [{"role": "user", "token_count": 2}] * 2)
        await db.execute(update(Session.__table__).values(total_tokens=0))  # type: ignore[arg-type]
    async with database.session() as db:
        assert await SessionRepository(db, "other").recount() == []
    async with database.session() as db:
        (drift,) = await of(db).recount()
    assert (drift.total_tokens, drift.total_messages, drift.last_seq) == ((0, 4), (2, 2), (2, 2))


async def test_an_import_that_ends_in_an_error_leaves_nothing(database: DatabaseManager) -> None:
    for number in range(1, 4):
        await create(database, number)
        async with database.session() as db:
            await of(db).add_messages_to_session(UUID(int=number), [{"role": "user"}] * 3)
    async with database.session() as db:
        lines = [line async for line in of(db).export_user("ada")]
        await of(db).erase_user("ada")

    with pytest.raises(SessionValueError, match=f"line {len(lines)}"):
        async with database.session() as db:
            await of(db).import_user([*lines[:-1], lines[-1].replace('"role"', '"roll"')])
    async with database.session() as db:
        assert await of(db).get_user_sessions("ada", active_only=False) == []
        assert (await of(db).import_user(lines)).messages == 9


async def test_a_repetition_is_no_conflict_with_what_came_since(database: DatabaseManager) -> None:
    await create(database, 1)
    id_, hello = UUID(int=1), {"role": "user", "content": "Hi"}
    async with database.session() as db:
        repo = of(db)
        for _ in range(2):
            added = await repo.add_message_to_session(id_, hello, client_id="a", expected_seq=0, expected_version=1)
            assert added.seq == 1
            await repo.add_message_to_session(id_, hello)
        with pytest.raises(SessionConflictError, match="last_seq 3"):
            await repo.add_message_to_session(id_, hello, client_id="b", expected_seq=0)
        with pytest.raises(SessionConflictError, match="version 1"):
            await repo.add_message_to_session(id_, hello, expected_version=2)
        assert (await repo.add_message_to_session(id_, hello, expected_seq=3, expected_version=1)).seq == 4
