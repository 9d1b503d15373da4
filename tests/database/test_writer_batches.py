"""What a writer puts into one batch, and in which order. On both engines."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.append import lines
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.repositories import SessionRepository


class Ticking:
    """A clock that is a second later each time it is asked: every batch has a moment of its own."""

    def __init__(self) -> None:
        self._asked = 0

    def monotonic(self) -> float:
        return 0.0

    def now(self) -> datetime:
        self._asked += 1
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self._asked)


async def new_sessions(database: DatabaseManager, count: int) -> list[UUID]:
    async with database.session() as db:
        repo = SessionRepository(db)
        return [(await repo.create(Session(user_id="ada"))).id for _ in range(count)]


async def contents(database: DatabaseManager, id_: UUID) -> list[Any]:
    async with database.session() as db:
        return [each.content for each in await SessionRepository(db).get_messages(id_, limit=10_000)]


async def batches(database: DatabaseManager) -> list[int]:
    """Return how many messages each batch had, the smallest first."""
    async with database.session() as db:
        moments = await db.execute(text("SELECT created_at FROM agent_service_session_messages"))
        return sorted(Counter(moments.scalars()).values())


async def test_messages_of_many_sessions_stand_in_the_order_in_which_they_were_given(database: DatabaseManager) -> None:
    ids = await new_sessions(database, 3)
    async with SessionWriter(database) as writer:
        given = [(ids[number % 3], str(number)) for number in range(60)]
        answers = await asyncio.gather(
            *(writer.append(id_, {"role": "user", "content": content}) for id_, content in given)
        )

    for place, id_ in enumerate(ids):
        expected = [str(number) for number in range(place, 60, 3)]
        assert await contents(database, id_) == expected
        own = [each for each in answers if each.session_id == id_]
        assert [(each.seq, each.content) for each in own] == list(enumerate(expected, 1))


async def test_a_batch_has_no_more_messages_than_it_may(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH", 7)
    ids = await new_sessions(database, 2)
    async with SessionWriter(database, clock=Ticking()) as writer:
        await asyncio.gather(
            *(writer.append(ids[number % 2], {"role": "user", "content": "x"}) for number in range(40))
        )

    assert max(await batches(database)) == 7


async def test_a_batch_has_no_more_text_than_it_may_unless_one_message_has(
    database: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_BATCH_CHARACTERS", 1000)
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database, clock=Ticking()) as writer:
        await asyncio.gather(
            *(writer.append(id_, {"role": "user", "content": "x" * 300}) for _ in range(12)),
            writer.append(id_, {"role": "user", "content": "x" * 5000}),
        )

    sizes = await batches(database)
    assert sum(sizes) == 13
    assert max(sizes) <= 4


async def test_an_append_that_was_answered_is_there_for_everybody(database: DatabaseManager) -> None:
    """The answer comes after the commit."""
    (id_,) = await new_sessions(database, 1)
    async with SessionWriter(database) as writer:
        for number in range(20):
            await writer.append(id_, {"role": "user", "content": str(number)})
            assert len(await contents(database, id_)) == number + 1


async def test_closing_it_stores_what_was_begun_before(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    writer = SessionWriter(database)
    await writer.__aenter__()
    begun = [asyncio.ensure_future(writer.append(id_, {"role": "user", "content": str(n)})) for n in range(50)]
    await asyncio.sleep(0)
    await writer.close()

    assert [each.done() for each in begun] == [True] * 50
    assert await contents(database, id_) == [str(number) for number in range(50)]


async def test_a_repetition_gives_the_first_message_whichever_way_it_came(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    first = {"role": "user", "content": "first"}
    again = {"role": "user", "content": "again"}
    async with database.session() as db:
        repo = SessionRepository(db)
        await repo.add_message_to_session(id_, first, client_id="a")
        await repo.add_messages_to_session(id_, [first], client_ids=["b"])
    async with SessionWriter(database) as writer:
        assert (await writer.append(id_, first, client_id="c")).seq == 3
        together = await asyncio.gather(*(writer.append(id_, again, client_id=each) for each in "abcabcd"))

    assert [(each.seq, each.content) for each in together[:6]] == [(1, "first"), (2, "first"), (3, "first")] * 2
    assert (together[6].seq, together[6].content) == (4, "again")
    async with database.session() as db:
        repo = SessionRepository(db)
        assert (await repo.add_message_to_session(id_, again, client_id="d")).seq == 4
        assert await repo.recount() == []


async def test_client_ids_are_those_of_a_session(database: DatabaseManager) -> None:
    one, two = await new_sessions(database, 2)
    async with SessionWriter(database) as writer:
        for id_ in (one, two):
            appended = await asyncio.gather(
                *(writer.append(id_, {"role": "user", "content": str(id_)}, client_id=each) for each in "ab")
            )
            assert [each.seq for each in appended] == [1, 2]

    assert await contents(database, two) == [str(two)] * 2


async def test_what_came_back_is_the_callers_own(database: DatabaseManager) -> None:
    (id_,) = await new_sessions(database, 1)
    given = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    async with SessionWriter(database) as writer:
        waiting = asyncio.ensure_future(writer.append(id_, given, client_id="a"))
        await asyncio.sleep(0)
        given["content"] = "changed"
        answer = await waiting
        answer.to_dict()["content"][0]["text"] = "changed"
        repeated = await writer.append(id_, given, client_id="a")

    assert answer.content == repeated.content == [{"type": "text", "text": "Hi"}]
