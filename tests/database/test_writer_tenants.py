"""One SessionWriter for every tenant: nothing of one reaches another, and they take turns. On both engines."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.append import lines
from agent_service.infrastructure.database.append.delivery import Delivery
from agent_service.infrastructure.database.append.request import Request
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.held import somebody_waits
from tests.database.test_writer import refuse_poison

TENANTS = ("", "acme", "Acme", "*")


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The tenant of each commit that was begun, and how many messages it had."""
    begun: list[tuple[str, int]] = []
    commit = Delivery._commit

    async def noting(self: Delivery, tenant_id: str, requests: Sequence[Request]) -> Any:
        begun.append((tenant_id, len(requests)))
        return await commit(self, tenant_id, requests)

    monkeypatch.setattr(Delivery, "_commit", noting)
    return begun


def said(content: object) -> dict[str, Any]:
    return {"role": "user", "content": str(content)}


async def new_session(database: DatabaseManager, tenant: str, id_: UUID | None = None) -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db, tenant).create(Session(user_id="ada", id=id_ or uuid4()))).id


async def history(database: DatabaseManager, tenant: str, id_: UUID) -> list[tuple[int, Any]]:
    async with database.session() as db:
        return [
            (each.seq, each.content) for each in await SessionRepository(db, tenant).get_messages(id_, limit=10_000)
        ]


async def test_sessions_and_client_ids_that_several_tenants_have_are_different_ones(database: DatabaseManager) -> None:
    id_ = uuid4()
    for tenant in TENANTS:
        await new_session(database, tenant, id_)

    async with SessionWriter(database, tenant_id="acme") as writer:
        answers = await asyncio.gather(
            *(
                writer.append(id_, said(f"{tenant} {client_id}"), client_id=client_id, tenant_id=tenant)
                for client_id in ("m1", "m2", "m1")
                for tenant in TENANTS
            )
        )
        own = await writer.append(id_, said("of the writer's tenant"))

    assert [(each.tenant_id, each.seq, each.content) for each in answers] == [
        (tenant, int(client_id[1]), f"{tenant} {client_id}") for client_id in ("m1", "m2", "m1") for tenant in TENANTS
    ]
    assert own.tenant_id == "acme"
    for tenant in TENANTS:
        kept = [(1, f"{tenant} m1"), (2, f"{tenant} m2")]
        assert await history(database, tenant, id_) == kept + [(3, "of the writer's tenant")] * (tenant == "acme")


async def test_what_is_wrong_with_one_tenants_messages_is_no_other_tenants_trouble(
    database: DatabaseManager, commits: list[tuple[str, int]]
) -> None:
    await refuse_poison(database)
    good, bad = await new_session(database, "good"), await new_session(database, "bad")

    async with SessionWriter(database) as writer:
        results = await asyncio.gather(
            *(writer.append(bad, said("poison" if n == 7 else n), tenant_id="bad") for n in range(10)),
            writer.append(uuid4(), said("x"), tenant_id="bad"),
            writer.append(good, said("x"), tenant_id="bad"),
            *(writer.append(good, said(n), tenant_id="good") for n in range(10)),
            return_exceptions=True,
        )

    assert [n for n, each in enumerate(results) if isinstance(each, BaseException)] == [7, 10, 11]
    assert [type(results[n]) for n in (7, 10, 11)] == [DatabaseError, SessionNotFoundError, SessionNotFoundError]
    assert await history(database, "good", good) == [(n + 1, str(n)) for n in range(10)]
    assert [each for each in commits if each[0] == "good"] == [("good", 10)]


async def test_a_tenant_with_many_messages_keeps_no_other_waiting(
    database: DatabaseManager, commits: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH", 10)
    hot = await new_session(database, "hot")
    quiet = {name: await new_session(database, name) for name in ("one", "two", "three")}

    async with SessionWriter(database, max_pending=20) as writer:
        flood = [asyncio.create_task(writer.append(hot, said(n), tenant_id="hot")) for n in range(500)]
        await asyncio.sleep(0)
        await asyncio.gather(*(writer.append(id_, said("x"), tenant_id=name) for name, id_ in quiet.items()))
        await asyncio.gather(*flood)

    turns = [name for name, _ in commits]
    before = max(map(turns.index, quiet))  # commits that began before each of the others had its first
    assert before < 6
    assert sum(count for name, count in commits[:before] if name == "hot") <= 30
    assert await history(database, "hot", hot) == [(n + 1, str(n)) for n in range(500)]


async def test_each_tenant_has_room_of_its_own(database: DatabaseManager, commits: list[tuple[str, int]]) -> None:
    ids = {tenant: await new_session(database, tenant) for tenant in TENANTS}

    async with SessionWriter(database, max_pending=3) as writer:
        await asyncio.gather(
            *(writer.append(ids[tenant], said(n), tenant_id=tenant) for n in range(20) for tenant in TENANTS)
        )

    assert max(count for _, count in commits) <= 4
    for tenant in TENANTS:
        assert await history(database, tenant, ids[tenant]) == [(n + 1, str(n)) for n in range(20)]


async def test_a_view_appends_to_its_tenants_sessions(database: DatabaseManager) -> None:
    id_ = await new_session(database, "acme")

    async with SessionWriter(database) as writer:
        acme = writer.for_tenant("acme")
        added = await acme.append(str(id_), said("x"), client_id="m")
        again = await writer.append(id_, said("x"), client_id="m", tenant_id="acme")
        with pytest.raises(SessionNotFoundError):
            await writer.for_tenant("other").append(id_, said("x"))
        with pytest.raises(SessionNotFoundError):
            await writer.append(id_, said("x"))

    assert (acme.tenant_id, added.seq, again.seq) == ("acme", 1, 1)


@pytest.mark.parametrize("tenant", [None, 7, "a\x00b", "x" * 256], ids=["none", "a number", "U+0000", "too long"])
async def test_what_names_no_tenant_is_refused_and_nothing_is_sent(
    database: DatabaseManager, commits: list[tuple[str, int]], tenant: Any
) -> None:
    id_ = await new_session(database, "")

    async with SessionWriter(database) as writer:
        with pytest.raises(SessionValueError, match="tenant_id"):
            await writer.append(id_, said("x"), tenant_id=tenant)
        with pytest.raises(SessionValueError, match="tenant_id"):
            writer.for_tenant(tenant)

    assert commits == []


async def test_tenants_are_forgotten_when_their_callers_are_answered_or_have_left(database: DatabaseManager) -> None:
    id_ = uuid4()
    async with SessionWriter(database, max_pending=2) as writer:
        appends = [
            asyncio.create_task(writer.append(id_, said("x"), tenant_id=f"t{n}")) for n in range(30) for _ in range(5)
        ]
        await asyncio.sleep(0)
        for each in appends[::3]:
            each.cancel()
        await asyncio.gather(*appends, return_exceptions=True)
        while writer._lines._ready:  # Messages whose callers have left are taken out by the next batch.
            await asyncio.sleep(0)
        await writer.append(await new_session(database, "last"), said("x"), tenant_id="last")
        left = dict(writer._lines._lines)

    assert left in ({}, {"last": left.get("last")})


class TestOnPostgres:
    """Where each tenant that writes has a connection."""

    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    async def test_a_session_that_is_locked_keeps_its_own_tenant_waiting_only(self, database: DatabaseManager) -> None:
        ids = {tenant: await new_session(database, tenant) for tenant in ("locked", "free", "other")}
        async with SessionWriter(database) as writer, database.session() as db:
            await SessionRepository(db, "locked").add_message_to_session(ids["locked"], said("first"))
            waiting = asyncio.create_task(writer.append(ids["locked"], said("second"), tenant_id="locked"))
            await somebody_waits(database)
            added = [await writer.append(ids[name], said("x"), tenant_id=name) for name in ("free", "other") * 3]
            assert not waiting.done()
            await db.commit()
            assert (await waiting).seq == 2

        assert [each.seq for each in added] == [1, 1, 2, 2, 3, 3]

    async def test_connections_are_as_many_as_tenants_that_write_at_the_same_time(
        self, database: DatabaseManager
    ) -> None:
        ids = {f"t{n}": await new_session(database, f"t{n}") for n in range(12)}
        async with SessionWriter(database) as writer:
            before = await connections(database)
            for tenant, id_ in ids.items():
                await writer.append(id_, said("x"), tenant_id=tenant)
            one_by_one = await connections(database) - before
            await asyncio.gather(*(writer.append(id_, said("x"), tenant_id=tenant) for tenant, id_ in ids.items()))
            together = await connections(database) - before

        assert (one_by_one, together) == (1, 4)

    async def test_closing_that_is_cancelled_tells_the_callers_of_every_tenant(self, database: DatabaseManager) -> None:
        tenants = [f"t{n}" for n in range(8)]
        ids = [await new_session(database, tenant) for tenant in tenants]
        writer = await SessionWriter(database, max_pending=1).__aenter__()
        async with database.session() as db:
            await db.execute(text("SELECT id FROM agent_service_sessions FOR UPDATE"))
            waiting = [
                asyncio.create_task(writer.append(id_, said("x"), tenant_id=tenant))
                for tenant, id_ in zip(tenants, ids, strict=True)
                for _ in range(3)
            ]
            await somebody_waits(database)
            closing = asyncio.create_task(writer.close())
            await asyncio.sleep(0)
            closing.cancel()
            results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
            with pytest.raises(asyncio.CancelledError):
                await closing
            await db.rollback()

        assert {type(each) for each in results} == {DatabaseUnavailableError}


async def connections(database: DatabaseManager) -> int:
    async with database.session() as db:
        counted = await db.execute(text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"))
        return int(counted.scalar_one())
