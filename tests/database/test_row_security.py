"""PostgreSQL itself keeps tenants apart: what another tenant's transaction cannot do, whatever it asks."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import DatabaseError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.outbox import add_rows, remove_rows, take_rows
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.transactions.tenants import tenant_engine
from tests.database.test_tenancy import FINDS_NOTHING, SEES_NOTHING
from tests.servers.postgres import PostgresServer

COUNT = "SELECT (SELECT count(*) FROM agent_service_sessions), (SELECT count(*) FROM agent_service_session_messages)"


@pytest.fixture
async def owner(postgres_url: str, postgres_server: PostgresServer) -> AsyncIterator[DatabaseManager]:
    """The tables' owner, with a role beside it that owns nothing."""
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        await db.execute(text("CREATE ROLE service LOGIN"))
        schema = (await (await db.connection()).run_sync(names_of)).schema
        await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO service'))
        await db.execute(text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO service'))
    yield database
    async with database.session() as db:
        await db.execute(text("DROP OWNED BY service"))
        await db.execute(text("DROP ROLE service"))
    await database.close()


@pytest.fixture
async def service(owner: DatabaseManager, postgres_url: str) -> AsyncIterator[DatabaseManager]:
    """The database as the service uses it, with policies in force and two tenants in it."""
    await owner.switch_row_security(on=True)
    database = DatabaseManager(postgres_url.replace("postgres@", "service@", 1), row_security=True)
    for tenant in ("", "acme"):
        async with database.session() as db:
            repo = SessionRepository(db, tenant)
            session = await repo.create(Session(user_id="ada", title=f"of {tenant!r}", external_id="one"))
            await repo.add_message_to_session(session.id, {"role": "user", "content": "Hi"})
    yield database
    await database.close()


async def counts(db: AsyncSession) -> tuple[int, ...]:
    return tuple((await db.execute(text(COUNT))).one())


@pytest.mark.parametrize(("tenant", "expected"), [("", (1, 1)), ("acme", (1, 1)), ("*", (0, 0)), ("other", (0, 0))])
async def test_a_statement_that_names_no_tenant_sees_its_transactions_only(
    service: DatabaseManager, tenant: str, expected: tuple[int, ...]
) -> None:
    async with service.session() as db:
        SessionRepository(db, tenant)
        seen = await counts(db)
        await db.commit()

        assert (seen, await counts(db)) == (expected, expected)


async def test_a_transaction_that_says_nothing_sees_nothing(service: DatabaseManager) -> None:
    async with service.session() as db:
        assert await counts(db) == (0, 0)


async def test_the_outbox_belongs_to_no_tenant(service: DatabaseManager) -> None:
    async with service.session() as db:
        SessionRepository(db, "acme")
        add_rows(db, ["{}"], after_commit=lambda: None)
    async with service.session() as db:
        ((id_, body),) = await take_rows(db, 10)
        removed = await remove_rows(db, [id_])

    assert (body, removed) == ("{}", 1)


async def test_what_one_transaction_said_does_not_stay_with_the_connection(
    owner: DatabaseManager, service: DatabaseManager, postgres_url: str
) -> None:
    small = DatabaseManager(
        postgres_url.replace("postgres@", "service@", 1), row_security=True, pool_size=1, max_overflow=0
    )
    async with small.session() as db:
        assert len(await SessionRepository(db, "acme").get_user_sessions("ada")) == 1
    async with small.session() as db:
        seen = await counts(db)
    await small.close()

    assert seen == (0, 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE agent_service_sessions SET title = 'taken'",
        "DELETE FROM agent_service_session_messages",
        "DELETE FROM agent_service_sessions",
        "UPDATE agent_service_sessions SET tenant_id = 'evil' WHERE tenant_id = 'acme'",
    ],
)
async def test_another_tenants_rows_cannot_be_changed(
    owner: DatabaseManager, service: DatabaseManager, statement: str
) -> None:
    everything = (
        "SELECT s.*, m.* FROM agent_service_sessions s "
        "JOIN agent_service_session_messages m ON m.session_id = s.id ORDER BY s.id"
    )
    async with owner.session() as db:
        before = (await db.execute(text(everything))).all()
    async with service.session() as db:
        SessionRepository(db, "evil")
        await db.execute(text(statement))
    async with owner.session() as db:
        after = (await db.execute(text(everything))).all()

    assert len(before) == 2
    assert after == before


async def test_a_row_cannot_be_given_to_another_tenant(service: DatabaseManager) -> None:
    async with service.session() as db:
        repo = SessionRepository(db, "acme")
        await repo.get_user_sessions("ada")
        with pytest.raises(Exception, match="row-level security"):
            await db.execute(text("UPDATE agent_service_sessions SET tenant_id = 'evil'"))
        await db.rollback()


async def test_every_method_of_the_repository_works_for_another_tenant_as_without_policies(
    owner: DatabaseManager, service: DatabaseManager
) -> None:
    async with owner.session() as db:
        (canary,) = await SessionRepository(db, "acme").get_user_sessions("ada")

    async with service.session() as db:
        repo = SessionRepository(db, "other")
        for call, nothing in SEES_NOTHING.values():
            assert await call(repo, canary) == nothing
        for find in FINDS_NOTHING.values():
            with pytest.raises(SessionNotFoundError):
                await find(repo, canary)


async def test_a_conversation_works_as_without_policies(service: DatabaseManager) -> None:
    async with service.session() as db:
        repo = SessionRepository(db, "acme")
        (session,) = await repo.get_user_sessions("ada")
        await repo.add_message_to_session(session.id, {"role": "user", "content": "again"}, client_id="c")
        again = await repo.add_message_to_session(session.id, {"role": "user", "content": "again"}, client_id="c")
        await repo.update_session_context(session.id, {"a": 1})
        fork = await repo.fork(session.id, 1)
        await repo.add_message_to_session(fork.id, {"role": "user", "content": "forked"})
        forked = await repo.get_messages(fork.id)
        popped = await repo.pop_message(session.id)
        found = await repo.search_messages("ada", "forked")
        await repo.delete(session.id)
        erased = await repo.erase_user("ada")

    assert again.seq == 2
    assert [each.content for each in forked] == ["Hi", "forked"]
    assert popped is not None
    assert [each.seq for each in found] == [2]
    assert erased == 2


async def test_one_session_serves_one_tenant(service: DatabaseManager) -> None:
    async with service.session() as db:
        SessionRepository(db, "acme")
        SessionRepository(db, "acme")
        with pytest.raises(SessionValueError, match="open another"):
            SessionRepository(db, "other")


async def test_a_repository_that_comes_too_late_is_refused(service: DatabaseManager) -> None:
    async with service.session() as db:
        await db.execute(text("SELECT 1"))
        with pytest.raises(SessionValueError, match="before the session's first statement"):
            SessionRepository(db, "acme")


async def test_an_engine_can_work_for_a_tenant(service: DatabaseManager) -> None:
    async with tenant_engine(service.engine, "acme").connect() as connection:
        seen = tuple((await connection.execute(text(COUNT))).one())
    async with service.engine.connect() as connection:
        unsaid = tuple((await connection.execute(text(COUNT))).one())

    assert (seen, unsaid) == ((1, 1), (0, 0))


async def test_a_writer_works_for_its_tenant(service: DatabaseManager) -> None:
    async with service.session() as db:
        (session,) = await SessionRepository(db, "acme").get_user_sessions("ada")
    async with SessionWriter(service, tenant_id="acme") as writer:
        message = await writer.append(session.id, {"role": "user", "content": "joined"})
    async with SessionWriter(service, tenant_id="other") as writer:
        with pytest.raises(SessionNotFoundError):
            await writer.append(session.id, {"role": "user", "content": "not mine"})

    assert message.seq == 2


async def test_one_writer_works_for_every_tenant(owner: DatabaseManager, service: DatabaseManager) -> None:
    ids = {}
    for tenant in ("", "acme"):
        async with service.session() as db:
            (session,) = await SessionRepository(db, tenant).get_user_sessions("ada")
            ids[tenant] = session.id
    said = {"role": "user", "content": "joined"}

    async with SessionWriter(service) as writer:
        answers = await asyncio.gather(
            *(writer.append(ids[of], said, client_id="m", tenant_id=to) for to in ids for of in ids for _ in range(2)),
            return_exceptions=True,
        )

    assert [getattr(each, "seq", type(each)) for each in answers] == [
        2, 2, SessionNotFoundError, SessionNotFoundError, SessionNotFoundError, SessionNotFoundError, 2, 2,
    ]  # fmt: skip
    async with owner.session() as db:
        stored = await db.execute(
            text("SELECT tenant_id, session_id FROM agent_service_session_messages WHERE seq = 2")
        )
    assert {each.tenant_id: each.session_id for each in stored} == ids


async def test_cleaning_up_concerns_every_tenant(service: DatabaseManager) -> None:
    async with service.session(every_tenant=True) as db:
        assert await counts(db) == (2, 2)


async def test_subscriptions_see_their_tenant(service: DatabaseManager) -> None:
    async with service.session() as db:
        repo = SessionRepository(db, "acme")
        (session,) = await repo.get_user_sessions("ada")
        feed = repo.subscribe(session.id)
        message = await anext(feed)
        await feed.aclose()
    async with service.session() as db:
        strange = SessionRepository(db, "other").subscribe(session.id)
        with pytest.raises(SessionNotFoundError):
            await anext(strange)

    assert message.content == "Hi"


async def test_without_policies_the_setting_changes_nothing(database: DatabaseManager, database_url: str) -> None:
    told = DatabaseManager(database_url, row_security=True)
    async with told.session() as db:
        session = await SessionRepository(db, "acme").create(Session(user_id="ada"))
    async with told.session() as db:
        found = await SessionRepository(db, "acme").get(session.id)
    await told.close()

    assert found is not None


async def test_switching_says_whom_it_binds_and_can_be_undone(owner: DatabaseManager, service: DatabaseManager) -> None:
    on = await owner.switch_row_security(on=True)
    off = await owner.switch_row_security(on=False)
    async with service.session() as db:
        seen = await counts(db)

    assert (on.enabled, on.role, on.role_is_bound) == (True, "postgres", False)
    assert off.enabled is False
    assert seen == (2, 2)


async def test_a_downgrade_takes_the_policies_away(owner: DatabaseManager, service: DatabaseManager) -> None:
    await owner.downgrade("0003")
    async with service.session() as db:
        seen = await counts(db)
    with pytest.raises(DatabaseError, match="db upgrade"):
        await owner.switch_row_security(on=True)
    await owner.upgrade()
    await owner.switch_row_security(on=True)
    async with service.session() as db:
        again = await counts(db)

    assert (seen, again) == ((2, 2), (0, 0))


async def test_a_service_that_sees_no_row_says_so_in_its_health(
    owner: DatabaseManager, service: DatabaseManager, postgres_url: str
) -> None:
    untold = DatabaseManager(postgres_url.replace("postgres@", "service@", 1))
    health = {
        name: await each.health_check() for name, each in (("untold", untold), ("told", service), ("owner", owner))
    }
    await owner.switch_row_security(on=False)
    again = await untold.health_check()
    await untold.close()

    assert {name: each["ok"] for name, each in health.items()} == {"untold": False, "told": True, "owner": True}
    assert "set DB_ROW_SECURITY=true" in health["untold"]["error"]
    assert again["ok"]


async def test_switching_holds_up_nobody_behind_it_while_it_waits(owner: DatabaseManager) -> None:
    reads, hold = [], 4.0
    count = text("SELECT count(*) FROM agent_service_session_messages")

    async with owner.engine.connect() as reader, owner.engine.connect() as other:
        await reader.execute(count)
        switching, until = asyncio.create_task(owner.switch_row_security(on=True)), time.monotonic() + hold
        while time.monotonic() < until:
            started = time.monotonic()
            await asyncio.gather(other.execute(count), asyncio.sleep(0.01))
            await other.rollback()
            reads.append(time.monotonic() - started)
            if reads[-1] > hold / 2:
                break
        assert not switching.done()
        await reader.rollback()
        switched = await switching

    assert switched.enabled
    # Behind somebody who waits until it is free, the first read takes all of the time.
    assert max(reads) < hold / 2


async def test_sqlite_has_none() -> None:
    database = DatabaseManager("sqlite+aiosqlite:///:memory:")
    with pytest.raises(DatabaseError, match="SQLite has none"):
        await database.switch_row_security(on=True)
    await database.close()


async def test_an_owner_who_is_no_superuser_sees_whom_the_policies_would_bind(empty_postgres_url: str) -> None:
    admin = DatabaseManager(empty_postgres_url)
    owner = DatabaseManager(empty_postgres_url.replace("postgres@", "plain_owner@", 1))
    service = DatabaseManager(empty_postgres_url.replace("postgres@", "plain_service@", 1))
    async with admin.engine.begin() as connection:
        for statement in ("CREATE ROLE plain_owner LOGIN", "CREATE ROLE plain_service LOGIN"):
            await connection.execute(text(statement))
        await connection.execute(text(f'GRANT CREATE ON DATABASE "{admin.engine.url.database}" TO plain_owner'))
    try:
        await owner.upgrade()
        async with owner.session() as db:
            await db.execute(text("GRANT USAGE ON SCHEMA agent_service TO plain_service"))
            await db.execute(text("GRANT SELECT ON ALL TABLES IN SCHEMA agent_service TO plain_service"))
        async with service.session() as db:
            await db.execute(text("SELECT 1"))

            found = await owner.bound_by_policies()

        assert [(each.role, each.says_tenant) for each in found] == [("plain_service", False)]
    finally:
        await service.close()
        await owner.close()
        async with admin.engine.begin() as connection:
            for role in ("plain_service", "plain_owner"):
                await connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
                await connection.execute(text(f"DROP ROLE {role}"))
        await admin.close()
