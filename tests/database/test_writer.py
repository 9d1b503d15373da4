"""SessionWriter: many appends in one commit, each caller answered for itself. On both engines."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    SessionError,
    SessionNotFoundError,
    SessionValueError,
)
from agent_service.infrastructure.database import SessionWriter, close_database, get_session
from agent_service.infrastructure.database.append import delivery
from agent_service.infrastructure.database.append.delivery import Delivery
from agent_service.infrastructure.database.append.tenant_writer import TenantWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.limits import limits_from_settings
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.repositories import SessionLimits, SessionRepository
from tests.database.held import somebody_waits
from tests.support.waiting import ticking

NewSessions = Callable[[int], Awaitable[list[UUID]]]


@pytest.fixture(params=["", "acme"], ids=["no-tenant", "acme"])
def tenant(request: pytest.FixtureRequest) -> str:
    """Whose sessions they are."""
    return str(request.param)


@pytest.fixture
def new_sessions(database: DatabaseManager, tenant: str) -> NewSessions:
    async def create(count: int) -> list[UUID]:
        async with database.session() as db:
            return [(await SessionRepository(db, tenant).create(Session(user_id="ada"))).id for _ in range(count)]

    return create


@pytest.fixture
async def session_id(new_sessions: NewSessions) -> UUID:
    return (await new_sessions(1))[0]


@pytest.fixture
async def writer(database: DatabaseManager, tenant: str) -> AsyncIterator[TenantWriter]:
    async with SessionWriter(database.engine) as opened:
        yield opened.for_tenant(tenant)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each commit had."""
    sizes: list[int] = []
    commit = Delivery._commit

    async def counting(self: Delivery, tenant_id: str, requests: Any) -> Any:
        sizes.append(len(delivery._unique(requests)))
        return await commit(self, tenant_id, requests)

    monkeypatch.setattr(Delivery, "_commit", counting)
    return sizes


def said(content: object, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": str(content), **more}


async def repository(db: AsyncSession, session_id: UUID) -> SessionRepository:
    """Return the repository of the session's tenant."""
    return SessionRepository(db, await db.scalar(select(Session.tenant_id).where(Session.id == session_id)) or "")


async def history(database: DatabaseManager, session_id: UUID) -> list[tuple[int, Any]]:
    async with database.session() as db:
        messages = await (await repository(db, session_id)).get_messages(session_id, limit=10_000)
    return [(each.seq, each.content) for each in messages]


async def counters(database: DatabaseManager, session_id: UUID) -> tuple[int, int, int]:
    async with database.session() as db:
        row = await (await repository(db, session_id)).get(session_id)
    assert row is not None
    return row.last_seq, row.total_messages, row.total_tokens


async def test_an_appended_message_is_stored_as_the_repository_would_store_it(
    database: DatabaseManager, writer: TenantWriter, session_id: UUID, tenant: str
) -> None:
    message = {"role": "user", "b": 1.0, "a": None, "content": "żółw\x00", "token_count": 7}

    given = await writer.append(str(session_id), message, client_id="m1")
    async with database.session() as db:
        (stored,) = await SessionRepository(db, tenant).get_messages(session_id)
        session = await SessionRepository(db, tenant).get(session_id)

    for name in ("session_id", "seq", "client_id", "role", "search_text", "data", "token_count", "created_at"):
        assert getattr(given, name) == getattr(stored, name), name
    assert list(stored.to_dict().items()) == list(message.items())
    assert session is not None
    assert (session.last_seq, session.total_messages, session.total_tokens) == (1, 1, 7)
    assert session.last_activity_at == session.updated_at == stored.created_at
    assert session.expires_at == stored.created_at + limits_from_settings().expiry


async def test_appends_at_the_same_time_share_a_commit(
    database: DatabaseManager, writer: TenantWriter, new_sessions: NewSessions, commits: list[int]
) -> None:
    ids = await new_sessions(10)

    added = await asyncio.gather(*(writer.append(ids[n % 10], said(n, token_count=1)) for n in range(200)))

    assert len(commits) <= 3
    assert [each.content for each in added] == [str(n) for n in range(200)]
    for position, session_id in enumerate(ids):
        assert await history(database, session_id) == [(n + 1, str(position + 10 * n)) for n in range(20)]
        assert await counters(database, session_id) == (20, 20, 20)


async def test_an_append_alone_is_a_batch_of_one(writer: TenantWriter, session_id: UUID, commits: list[int]) -> None:
    for number in range(3):
        assert (await writer.append(session_id, said(number))).seq == number + 1

    assert commits == [1, 1, 1]


async def test_two_appends_at_the_same_time_are_one_commit(
    writer: TenantWriter, session_id: UUID, commits: list[int]
) -> None:
    await asyncio.gather(writer.append(session_id, said(1)), writer.append(session_id, said(2)))

    assert commits == [2]


async def test_tasks_that_go_on_at_once_meet_in_the_next_commit(
    writer: TenantWriter, new_sessions: NewSessions, commits: list[int]
) -> None:
    async def talk(session_id: UUID) -> None:
        for number in range(5):
            await writer.append(session_id, said(number))

    await asyncio.gather(*map(talk, await new_sessions(20)))

    assert commits == [20] * 5


async def test_a_session_that_is_not_there_fails_alone(
    database: DatabaseManager, writer: TenantWriter, new_sessions: NewSessions, commits: list[int], tenant: str
) -> None:
    here, deleted = await new_sessions(2)
    async with database.session() as db:
        elsewhere = await SessionRepository(db, "other").create(Session(user_id="ada"))
        await SessionRepository(db, tenant).delete(deleted)

    results = await asyncio.gather(
        writer.append(here, said(1)),
        writer.append(uuid4(), said(2)),
        writer.append(deleted, said(3), client_id="m"),
        writer.append(elsewhere.id, said(4)),
        writer.append(here, said(5)),
        return_exceptions=True,
    )

    assert [type(each).__name__ for each in results] == [
        "SessionMessage", "SessionNotFoundError", "SessionNotFoundError", "SessionNotFoundError", "SessionMessage",
    ]  # fmt: skip
    assert commits == [5]
    assert await history(database, here) == [(1, "1"), (2, "5")]
    async with database.session() as db:
        assert await SessionRepository(db, "other").get_messages(elsewhere.id) == []


async def test_a_writer_of_another_tenant_appends_there(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db, "other").create(Session(user_id="ada"))

    async with SessionWriter(database, tenant_id="other") as writer:
        added = await writer.append(session.id, said("here"))

    assert added.seq == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"session_id": "no id"}, "session_id must be a UUID"),
        ({"message": {"content": "no role"}}, "message.role"),
        ({"message": {"role": "user", "content": {1, 2}}}, "set"),
        ({"client_id": ""}, "client_id"),
    ],
)
async def test_a_message_that_cannot_be_kept_is_refused_before_it_is_sent(
    writer: TenantWriter, session_id: UUID, commits: list[int], arguments: dict[str, Any], complaint: str
) -> None:
    given = {"session_id": session_id, "message": said("x"), "client_id": None, **arguments}

    with pytest.raises(SessionValueError, match=complaint):
        await writer.append(given["session_id"], given["message"], client_id=given["client_id"])

    assert commits == []


async def test_a_message_that_the_database_refuses_fails_alone(
    database: DatabaseManager, writer: TenantWriter, new_sessions: NewSessions
) -> None:
    await refuse_poison(database)
    ids = await new_sessions(3)

    results = await asyncio.gather(
        *(writer.append(ids[n % 3], said("poison" if n in {4, 11} else n)) for n in range(20)), return_exceptions=True
    )

    assert [n for n, each in enumerate(results) if isinstance(each, DatabaseError)] == [4, 11]
    assert results[4] is not results[11]
    for position, session_id in enumerate(ids):
        kept = [str(n) for n in range(position, 20, 3) if n not in {4, 11}]
        assert await history(database, session_id) == list(enumerate(kept, 1))


REFUSE_ON_SQLITE = """
CREATE TRIGGER refuse BEFORE INSERT ON agent_service_session_messages WHEN new.content = 'poison'
BEGIN SELECT RAISE(ABORT, 'poison'); END
"""
REFUSE_ON_POSTGRES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF new.content = 'poison' THEN RAISE EXCEPTION 'poison'; END IF; RETURN new; END $$
"""
REFUSING_ON_POSTGRES = """
CREATE TRIGGER refuse BEFORE INSERT ON agent_service_session_messages FOR EACH ROW EXECUTE FUNCTION refuse()
"""


async def refuse_poison(database: DatabaseManager) -> None:
    async with database.session() as db:
        for statement in [REFUSE_ON_SQLITE] if database.embedded else [REFUSE_ON_POSTGRES, REFUSING_ON_POSTGRES]:
            await (await db.connection()).exec_driver_sql(statement)


async def test_the_same_client_id_adds_one_message(
    database: DatabaseManager, writer: TenantWriter, new_sessions: NewSessions, commits: list[int]
) -> None:
    one, other = await new_sessions(2)

    at_once = await asyncio.gather(*(writer.append(one, said(n), client_id="m1") for n in range(5)))
    elsewhere = await writer.append(other, said("other"), client_id="m1")
    later = await asyncio.gather(
        writer.append(one, said("new")), writer.append(one, said("again"), client_id="m1"), writer.append(one, said(9))
    )
    alone = await writer.append(one, said("once more"), client_id="m1")

    assert [(each.seq, each.content) for each in at_once] == [(1, "0")] * 5
    assert (elsewhere.seq, elsewhere.content) == (1, "other")
    assert [(each.seq, each.content) for each in later] == [(2, "new"), (1, "0"), (3, "9")]
    assert (alone.seq, alone.content, alone.created_at) == (1, "0", at_once[0].created_at)
    assert commits == [1, 1, 3, 1]
    assert await counters(database, one) == (3, 3, 0)


async def test_writers_that_race_with_the_same_client_ids_add_each_once(
    database: DatabaseManager, new_sessions: NewSessions, tenant: str
) -> None:
    ids = await new_sessions(3)

    async def write(number: int) -> list[Any]:
        async with SessionWriter(database, tenant_id=tenant) as writer:
            order = range(60) if number % 2 else reversed(range(60))
            added = await asyncio.gather(*(writer.append(ids[n % 3], said(n), client_id=f"m{n}") for n in order))
        return sorted((each.session_id, each.seq, each.content) for each in added)

    results = await asyncio.gather(*map(write, range(4)))

    assert results[0] == results[1] == results[2] == results[3]
    for session_id in ids:
        assert [seq for seq, _ in await history(database, session_id)] == list(range(1, 21))


async def test_a_writer_and_a_repository_race_with_the_same_client_ids(
    database: DatabaseManager, writer: TenantWriter, session_id: UUID, tenant: str
) -> None:
    async def by_repository(number: int) -> int:
        async with database.session() as db:
            added = await SessionRepository(db, tenant).add_message_to_session(
                session_id, said(number), client_id=f"m{number}"
            )
        return added.seq

    async def by_writer(number: int) -> int:
        return (await writer.append(session_id, said(number), client_id=f"m{number}")).seq

    numbers = [n for n in range(15) for _ in range(2)]
    results = await asyncio.gather(*(each(n) for n in numbers for each in (by_repository, by_writer)))

    assert all(len(set(results[4 * n : 4 * n + 4])) == 1 for n in range(15))
    assert await counters(database, session_id) == (15, 15, 0)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_message_that_another_appends_meanwhile_is_found_and_costs_no_patience(
    database: DatabaseManager, writer: TenantWriter, session_id: UUID, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PATIENCE", 0)
    async with database.session() as db:
        await SessionRepository(db, tenant).add_message_to_session(session_id, said("first"), client_id="m0")
        appending = [asyncio.create_task(writer.append(session_id, said(n), client_id=f"m{n}")) for n in range(3)]
        await somebody_waits(database)

    stored = [await each for each in appending]

    assert [(each.seq, each.content) for each in stored] == [(1, "first"), (2, "1"), (3, "2")]
    assert await counters(database, session_id) == (3, 3, 0)


async def test_a_caller_that_leaves_before_its_message_is_sent_leaves_nothing(
    database: DatabaseManager, writer: TenantWriter, session_id: UUID
) -> None:
    leaving = asyncio.create_task(writer.append(session_id, said("left")))
    staying = asyncio.create_task(writer.append(session_id, said("stayed")))
    await asyncio.sleep(0)
    leaving.cancel()

    await staying
    with pytest.raises(asyncio.CancelledError):
        await leaving

    assert await history(database, session_id) == [(1, "stayed")]


async def test_callers_that_leave_at_any_moment_hurt_nobody(
    database: DatabaseManager, writer: TenantWriter, session_id: UUID
) -> None:
    tasks = []
    for number in range(60):
        tasks.append(asyncio.create_task(writer.append(session_id, said(number))))
        for _ in range(number // 2):
            await asyncio.sleep(0)
        if number % 3:
            tasks[-1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    stored = await history(database, session_id)
    answered = [each for each in results if not isinstance(each, BaseException)]
    assert len(answered) >= 20
    assert {(each.seq, each.content) for each in answered} <= set(stored)
    assert [seq for seq, _ in stored] == list(range(1, len(stored) + 1))
    assert await counters(database, session_id) == (len(stored), len(stored), 0)


async def test_more_than_max_pending_wait_for_room(
    database: DatabaseManager, session_id: UUID, commits: list[int], tenant: str
) -> None:
    async with SessionWriter(database, tenant_id=tenant, max_pending=3) as writer:
        await asyncio.gather(*(writer.append(session_id, said(n)) for n in range(40)))

    assert max(commits) <= 4
    assert await history(database, session_id) == [(n + 1, str(n)) for n in range(40)]


async def test_leaving_the_block_waits_for_what_was_begun(
    database: DatabaseManager, session_id: UUID, tenant: str
) -> None:
    async with SessionWriter(database, tenant_id=tenant, max_pending=5) as writer:
        begun = [asyncio.create_task(writer.append(session_id, said(n))) for n in range(50)]
        await asyncio.sleep(0)

    assert all(each.done() for each in begun)
    assert len(await history(database, session_id)) == 50


async def test_closing_waits_for_those_who_wait_for_room(
    database: DatabaseManager, session_id: UUID, tenant: str
) -> None:
    writer = await SessionWriter(database, tenant_id=tenant, max_pending=1).__aenter__()
    begun = [asyncio.create_task(writer.append(session_id, said(n))) for n in range(10)]
    await asyncio.sleep(0)

    await writer.close()

    assert [each.seq for each in await asyncio.wait_for(asyncio.gather(*begun), 60)] == list(range(1, 11))


async def test_a_writer_that_is_not_open_says_so(database: DatabaseManager, session_id: UUID, tenant: str) -> None:
    writer = SessionWriter(database, tenant_id=tenant)
    with pytest.raises(SessionError, match="async with"):
        await writer.append(session_id, said("too early"))

    async with writer:
        await writer.append(session_id, said("in time"))
    with pytest.raises(SessionError, match="async with"):
        await writer.append(session_id, said("too late"))
    with pytest.raises(SessionError, match="new SessionWriter"):
        await writer.__aenter__()
    await writer.close()


async def test_a_locked_session_ends_in_an_error_of_ours_within_the_timeout(
    database: DatabaseManager, session_id: UUID, tenant: str
) -> None:
    async with SessionWriter(database, tenant_id=tenant, timeout=0.3) as writer, database.session() as db:
        await SessionRepository(db, tenant).add_message_to_session(session_id, said("first"))
        async with ticking() as ticks:
            with pytest.raises(DatabaseUnavailableError, match=r"within 0\.3 s"):
                await writer.append(session_id, said("waits"))
        assert ticks.seconds < 4  # and not the 5 s of SQLite, or the 30 s of PostgreSQL
    async with SessionWriter(database, tenant_id=tenant) as writer:
        added = await writer.append(session_id, said("second"))

    assert added.content == "second"
    stored = await history(database, session_id)
    assert [content for _, content in stored if content != "waits"] == ["first", "second"]


async def test_an_error_says_whether_the_message_may_have_been_stored(
    database: DatabaseManager, session_id: UUID, commits: list[int], tenant: str
) -> None:
    async with (
        SessionWriter(database, tenant_id=tenant, timeout=0.3, max_pending=1) as writer,
        database.session() as db,
    ):
        await SessionRepository(db, tenant).add_message_to_session(session_id, said("holds the lock"))
        sent = asyncio.create_task(writer.append(session_id, said("sent")))
        while not commits:
            await asyncio.sleep(0)
        later = [asyncio.create_task(writer.append(session_id, said(n))) for n in range(2)]
        errors = await asyncio.gather(sent, *later, return_exceptions=True)

    assert "it may be stored" in str(errors[0])
    assert "it was not sent" in str(errors[2])  # it waited for room until its time was over


async def test_closing_that_is_cancelled_tells_those_who_wait(
    database: DatabaseManager, session_id: UUID, tenant: str
) -> None:
    writer = await SessionWriter(database, tenant_id=tenant, max_pending=2).__aenter__()
    async with database.session() as db:
        await SessionRepository(db, tenant).add_message_to_session(session_id, said("holds the lock"))
        waiting = [asyncio.create_task(writer.append(session_id, said(n))) for n in range(5)]
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await writer.close()
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)

    assert {type(each) for each in results} == {DatabaseUnavailableError}


async def test_a_long_session_is_warned_about_once_and_grows(
    database: DatabaseManager, session_id: UUID, caplog: pytest.LogCaptureFixture, tenant: str
) -> None:
    limits = SessionLimits(2, limits_from_settings().expiry)
    with caplog.at_level(logging.WARNING, "agent_service"):
        async with SessionWriter(database, tenant_id=tenant, limits=limits) as writer:
            await asyncio.gather(*(writer.append(session_id, said(n)) for n in range(2)))
            assert caplog.messages == []
            await asyncio.gather(*(writer.append(session_id, said(n)) for n in range(2)))
            await writer.append(session_id, said(5))
        async with database.session() as db:
            await SessionRepository(db, tenant, limits=limits).add_message_to_session(session_id, said(6))

    assert len(caplog.messages) == 1
    assert "4 messages" in caplog.text


async def test_the_database_of_the_settings_is_the_default() -> None:
    async with SessionWriter() as writer:
        async with get_session() as db:
            session = await SessionRepository(db).create(Session(user_id="ada"))
        added = await writer.append(session.id, said("hello"))
    await close_database()

    assert added.seq == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"max_pending": 0}, "max_pending"), ({"timeout": 0}, "timeout"), ({"tenant_id": None}, "tenant_id")],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SessionValueError, match=complaint):
        SessionWriter(**arguments)


async def test_a_database_that_is_not_there_ends_in_an_error_of_ours() -> None:
    database = DatabaseManager("postgresql+asyncpg://u:hunter2@127.0.0.1:1/db")

    async with SessionWriter(database) as writer:
        with pytest.raises(DatabaseUnavailableError, match="cannot connect") as caught:
            await writer.append(uuid4(), said("x"))
    await database.close()

    assert "hunter2" not in str(caught.value)


class TestOnPostgres:
    """What only a server with many connections can get wrong."""

    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    async def test_callers_that_hold_the_whole_pool_can_wait_for_an_append(
        self, database_url: str, session_id: UUID, tenant: str
    ) -> None:
        small = DatabaseManager(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
        async with SessionWriter(small, tenant_id=tenant) as writer, small.session() as db:
            await db.execute(text("SELECT 1"))
            added = await writer.append(session_id, said("beside"))
        await small.close()

        assert added.seq == 1

    async def test_a_deadlock_is_tried_again(
        self, database: DatabaseManager, writer: TenantWriter, new_sessions: NewSessions, tenant: str
    ) -> None:
        first, second = sorted(await new_sessions(2))
        async with database.session() as db:
            await db.execute(text("SET LOCAL deadlock_timeout = '1h'"))  # so that it is ours that is ended
            await SessionRepository(db, tenant).add_message_to_session(second, said("theirs"))
            both = [asyncio.create_task(writer.append(each, said("ours"))) for each in (first, second)]
            await somebody_waits(database)
            await SessionRepository(db, tenant).add_message_to_session(first, said("theirs"))

        added = await asyncio.gather(*both)

        assert [each.seq for each in added] == [2, 2]

    async def test_a_connection_that_was_lost_while_idle_is_replaced(
        self, database: DatabaseManager, writer: TenantWriter, session_id: UUID
    ) -> None:
        await writer.append(session_id, said(1))
        async with database.session() as db:
            await db.execute(
                text("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                     "WHERE datname = current_database() AND pid <> pg_backend_pid()")
            )  # fmt: skip
        await asyncio.sleep(0.05)

        assert (await writer.append(session_id, said(2))).seq == 2

    async def test_with_row_level_security_the_writer_says_whose_messages_they_are(
        self, database: DatabaseManager, database_url: str, session_id: UUID, tenant: str
    ) -> None:
        role = f"bound_{uuid4().hex}"
        async with database.session() as db:
            await db.execute(text(f"CREATE ROLE {role} LOGIN"))
            schema = (await (await db.connection()).run_sync(names_of)).schema
            await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO {role}'))
            await db.execute(text(f'GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA "{schema}" TO {role}'))
        await database.switch_row_security(on=True)
        bound = DatabaseManager(database_url.replace("//postgres@", f"//{role}@"), row_security=True)

        try:
            async with (
                SessionWriter(bound, tenant_id=tenant) as writer,
                SessionWriter(bound, tenant_id="other") as other,
            ):
                first, second, again = await asyncio.gather(
                    writer.append(session_id, said(1), client_id="m1"),
                    writer.append(session_id, said(2)),
                    writer.append(session_id, said(1), client_id="m1"),
                )
                with pytest.raises(SessionNotFoundError):
                    await other.append(session_id, said(3))
        finally:
            await bound.close()
            async with database.session() as db:
                await db.execute(text(f"DROP OWNED BY {role}"))
                await db.execute(text(f"DROP ROLE {role}"))

        assert [first.seq, second.seq, again.seq] == [1, 2, 1]
