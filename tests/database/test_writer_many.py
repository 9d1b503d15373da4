"""Several messages in one append of a writer: together or not at all. On both engines."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from agent_service.core.errors import SessionError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.append import lines
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.test_writer_batches import Ticking, batches, contents, new_sessions


def said(content: object) -> dict[str, Any]:
    return {"role": "user", "content": str(content)}


async def test_they_get_consecutive_numbers_however_many_append_at_once(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database) as writer:
        answers = await asyncio.gather(
            *(writer.append_many(id_, [said(f"{caller} {n}") for n in range(3)]) for caller in range(20)),
            *(writer.append(id_, said("alone")) for _ in range(10)),
        )

    together = [each for each in answers if isinstance(each, list)]
    assert [[each.seq - each_list[0].seq for each in each_list] for each_list in together] == [[0, 1, 2]] * 20
    stored = await contents(database, id_)
    assert len(stored) == 70
    for caller, answer in enumerate(together):
        assert stored[answer[0].seq - 1 :][:3] == [f"{caller} {n}" for n in range(3)]


async def test_one_that_cannot_be_kept_leaves_nothing_of_the_others(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database) as writer:
        with pytest.raises(SessionValueError, match=r"messages\[1\]\.role"):
            await writer.append_many(id_, [said("first"), {"content": "no role"}])
        # The database itself refuses the second: together its tokens exceed what a counter holds.
        many = [{**said(number), "token_count": 2**31 - 1} for number in range(3)]
        refused, kept = await asyncio.gather(
            writer.append_many(id_, [said("first"), *many], role="user", client_ids=["a"]),
            writer.append(id_, said("kept")),
            return_exceptions=True,
        )

    assert isinstance(refused, SessionValueError)
    assert isinstance(kept, SessionMessage)
    assert await contents(database, id_) == ["kept"]


async def test_a_session_that_is_not_there_is_told_to_its_caller_alone(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database) as writer:
        lost, kept = await asyncio.gather(
            writer.append_many(uuid4(), [said(1), said(2)]),
            writer.append_many(id_, [said(1), said(2)]),
            return_exceptions=True,
        )

    assert isinstance(lost, SessionNotFoundError)
    assert isinstance(kept, list)
    assert await contents(database, id_) == ["1", "2"]


async def test_those_appended_before_are_given_and_the_others_added(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database) as writer:
        await writer.append(id_, said("a"), client_id="a")
        answers = await asyncio.gather(
            writer.append_many(id_, [said("again"), said("b"), said("b again")], client_ids=["a", "b", "b"]),
            writer.append_many(id_, [said("c"), said("b third"), said("x")], client_ids=["c", "b", None]),
            writer.append(id_, said("c again"), client_id="c"),
        )

    found = [[each.content for each in answer] for answer in answers[:2]]
    assert found == [["a", "b", "b"], ["c", "b", "x"]]
    assert answers[2].content == "c"
    assert await contents(database, id_) == ["a", "b", "c", "x"]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 30])
async def test_any_number_of_them_is_stored_exactly(database: DatabaseManager, count: int) -> None:
    (id_,) = await new_sessions(database, 1)
    given = [{**said(n), "token_count": n, "more": [n, None]} for n in range(count)]
    ids = [None if n % 3 == 0 else f"id {n}" for n in range(count)]
    async with SessionWriter(database) as writer:
        first = await writer.append_many(id_, given, client_ids=ids)
        # Those that have a client id are found; the others are added once more.
        again = await writer.append_many(id_, given, client_ids=ids)

    async with database.session() as db:
        repo = SessionRepository(db)
        stored = await repo.get_messages(id_, limit=1000)
        session = await repo.get(id_)
        assert await repo.recount() == []
    assert [each.seq for each in first] == list(range(1, count + 1))
    assert [each.to_dict() for each in stored[:count]] == given
    assert [each.client_id for each in stored[:count]] == ids
    assert [each.token_count for each in stored[:count]] == list(range(count))
    added = [n for n in range(count) if ids[n] is None]
    assert [each.to_dict() for each in stored[count:]] == [given[n] for n in added]
    assert [each.seq for each in again] == [
        count + 1 + added.index(n) if ids[n] is None else n + 1 for n in range(count)
    ]
    assert session is not None
    assert (session.last_seq, session.total_messages) == (len(stored), len(stored))


async def test_they_are_one_batch_even_where_they_are_more_than_a_batch_holds(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH", 4)
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database, clock=Ticking()) as writer:
        await asyncio.gather(
            writer.append_many(id_, [said(n) for n in range(9)]),
            *(writer.append_many(id_, [said(n) for n in range(2)]) for _ in range(4)),
        )

    assert await batches(database) == [4, 4, 9]


async def test_a_caller_who_leaves_before_takes_all_of_them_along(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database) as writer:
        leaving = asyncio.ensure_future(writer.append_many(id_, [said(1), said(2)], client_ids=["a", None]))
        staying = asyncio.ensure_future(writer.append(id_, said("stays"), client_id="a"))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).content == "stays"

    assert await contents(database, id_) == ["stays"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"messages": {"role": "user"}}, "messages must be a list"),
        ({"messages": [said(1)], "client_ids": []}, "client_ids must be a list"),
        ({"messages": [said(1)], "role": 7}, "role must be a list"),
        ({"messages": [], "tenant_id": None}, "tenant_id"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    database: DatabaseManager, given: dict[str, Any], complaint: str
) -> None:
    async with SessionWriter(database) as writer:
        with pytest.raises(SessionValueError, match=complaint):
            await writer.append_many(uuid4(), **given)
        with pytest.raises(SessionValueError, match="session_id"):
            await writer.append_many("no id", [])
        assert await writer.append_many(uuid4(), []) == []
        tenant = writer.for_tenant("acme")
        with pytest.raises(SessionNotFoundError):
            await tenant.append_many(UUID(int=7), [said(1)])
    with pytest.raises(SessionError, match="not open"):
        await writer.append_many(uuid4(), [said(1)])
