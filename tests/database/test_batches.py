"""add_messages_to_session: many messages in the caller's transaction. On both engines."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession


def said(content: object, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": str(content), **more}


async def counters_of(repo: SessionRepository, id_: UUID) -> tuple[Any, ...]:
    row = await repo.get(id_)
    assert row is not None
    moments = (row.last_activity_at, row.updated_at, row.expires_at)
    return row.last_seq, row.total_messages, row.total_tokens, *moments


async def test_messages_get_consecutive_numbers(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    await repo.add_message_to_session(session.id, said("first", token_count=1))

    added = await repo.add_messages_to_session(str(session.id), (said(n, token_count=n) for n in range(1200)))
    stored = await repo.get_messages(session.id, limit=10_000)

    assert [each.seq for each in added] == list(range(2, 1202))
    assert [(each.seq, each.to_dict()) for each in added] == [(each.seq, each.to_dict()) for each in stored[1:]]
    assert (session.last_seq, session.total_messages) == (1201, 1201)
    assert session.total_tokens == 1 + sum(range(1200))
    assert session.last_activity_at == added[0].created_at


async def test_client_ids_that_were_used_before_add_nothing(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    await repo.add_message_to_session(session.id, said("zero"), client_id="a")

    added = await repo.add_messages_to_session(
        session.id, [said(1), said(2), said(3), said(4), said(5)], client_ids=["b", "a", None, "b", None]
    )
    again = await repo.add_messages_to_session(session.id, [said(6), said(7)], client_ids=["b", "a"])

    assert [(each.seq, each.content) for each in added] == [(2, "1"), (1, "zero"), (3, "3"), (2, "1"), (4, "5")]
    assert [(each.seq, each.content) for each in again] == [(2, "1"), (1, "zero")]
    assert (session.last_seq, session.total_messages) == (4, 4)


async def test_a_message_that_cannot_be_kept_stops_all(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError, match=r"messages\[1\]\.role"):
        await repo.add_messages_to_session(session.id, [said(1), {"content": "no role"}])

    assert await repo.get_messages(session.id) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"messages": said(1)}, "messages must be a list"),
        ({"messages": None}, "messages must be a list"),
        ({"messages": "secret"}, r"got str$"),
        ({"messages": [said(1), "secret"]}, r"messages\[1\] must be a dict, not str$"),
        ({"messages": [{"role": "user", "content": {"a": "secret"}}]}, r"messages\[0\]\.content must .* not dict$"),
        ({"messages": [said(1)], "client_ids": ["a", "b"]}, "client_ids must be a list"),
        ({"messages": [said(1)], "client_ids": "a"}, "client_ids must be a list"),
        ({"messages": [said(1), said(2)], "client_ids": ["a", ""]}, r"client_ids\[1\]"),
    ],
)
async def test_arguments_that_cannot_be_are_refused(
    repo: SessionRepository, new_session: NewSession, arguments: dict[str, Any], complaint: str
) -> None:
    session = await new_session()

    with pytest.raises(SessionValueError, match=complaint):
        await repo.add_messages_to_session(session.id, **arguments)


async def test_no_messages_add_nothing(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()

    assert await repo.add_messages_to_session(session.id, []) == []
    with pytest.raises(SessionNotFoundError):
        await repo.add_messages_to_session(uuid4(), [])
    with pytest.raises(SessionNotFoundError):
        await repo.add_messages_to_session(uuid4(), [said(1)])


async def test_another_tenants_session_is_not_there(db: AsyncSession, new_session: NewSession) -> None:
    session = await new_session()

    with pytest.raises(SessionNotFoundError):
        await SessionRepository(db, "other").add_messages_to_session(session.id, [said(1)])


async def test_client_ids_of_another_session_add_messages_all_the_same(
    repo: SessionRepository, new_session: NewSession
) -> None:
    for session in (await new_session(), await new_session()):
        added = await repo.add_messages_to_session(session.id, [said(1), said(2)], client_ids=["a", "b"])

        assert [(each.session_id, each.seq) for each in added] == [(session.id, 1), (session.id, 2)]


async def test_another_tenants_session_of_the_same_id_stays_as_it_is(database: DatabaseManager) -> None:
    id_, client_ids = uuid4(), ["a", "b"]
    async with database.session() as db:
        for tenant in ("", "other"):
            await SessionRepository(db, tenant).create(Session(id=id_, user_id="ada"))
        await SessionRepository(db).add_messages_to_session(id_, [said(1), said(2)], client_ids=client_ids)
        before = await counters_of(SessionRepository(db), id_)
    async with database.session() as db:
        there = SessionRepository(db, "other")
        added = await there.add_messages_to_session(id_, [said(3, token_count=5), said(4)], client_ids=client_ids)
    async with SessionWriter(database, tenant_id="other") as writer:
        added += await asyncio.gather(writer.append(id_, said(5, token_count=7)), writer.append(id_, said(6)))

    given = [(each.tenant_id, each.seq, each.content, each.token_count) for each in added]
    assert given == [("other", 1, "3", 5), ("other", 2, "4", None), ("other", 3, "5", 7), ("other", 4, "6", None)]
    async with database.session() as db:
        assert [each.content for each in await SessionRepository(db).get_messages(id_)] == ["1", "2"]
        assert await counters_of(SessionRepository(db), id_) == before
        assert (await counters_of(SessionRepository(db, "other"), id_))[:3] == (4, 4, 12)


async def test_batches_that_race_with_the_same_client_ids_add_them_once(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def add(number: int) -> list[int]:
        async with database.session() as db:
            messages, client_ids = [said(n) for n in range(20)], [f"m{n}" for n in range(20)]
            return [
                each.seq
                for each in await SessionRepository(db).add_messages_to_session(
                    session.id, messages, client_ids=client_ids
                )
            ]

    results = await asyncio.gather(*map(add, range(6)))

    assert results == [list(range(1, 21))] * 6


async def test_a_transaction_that_is_rolled_back_takes_its_numbers_back(
    database: DatabaseManager, session_in: Any
) -> None:
    async def fail() -> None:
        async with database.session() as db:
            await SessionRepository(db).add_messages_to_session(session_in.id, [said(1), said(2)])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.session() as db:
        added = await SessionRepository(db).add_messages_to_session(session_in.id, [said(3)])

    assert [each.seq for each in added] == [1]


@pytest.fixture
async def session_in(database: DatabaseManager) -> Session:
    async with database.session() as db:
        return await SessionRepository(db).create(Session(user_id="ada"))
