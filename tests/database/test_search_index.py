"""On SQLite messages are indexed after they were appended, and found meanwhile all the same."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import index_messages
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.support.depth import examples

WAITING = "SELECT count(*) FROM agent_service_session_search_pending"
INDEXED = "SELECT count(*) FROM agent_service_session_search_entries WHERE seq > 0"
MATCHING = "SELECT count(*) FROM agent_service_session_search WHERE agent_service_session_search MATCH '\"needle\"'"
PROVE = "INSERT INTO agent_service_session_search (agent_service_session_search, rank) VALUES ('integrity-check', 1)"

MERGE = "INSERT INTO agent_service_session_search (agent_service_session_search) VALUES ('optimize')"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
async def session_id(database: DatabaseManager) -> UUID:
    async with database.session() as db:
        return (await SessionRepository(db).create(Session(user_id="ada"))).id


@pytest.fixture
async def writer(database: DatabaseManager) -> AsyncIterator[SessionWriter]:
    async with SessionWriter(database) as opened:
        yield opened


def said(content: str | None) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def ask(database: DatabaseManager, question: str) -> Any:
    async with database.session() as db:
        return (await db.execute(text(question))).scalar()


async def tell(database: DatabaseManager, *statements: str) -> None:
    async with database.session() as db:
        for statement in statements:
            await db.execute(text(statement))


async def hits(database: DatabaseManager, term: str = "needle") -> list[tuple[UUID, int]]:
    async with database.session() as db:
        found = await SessionRepository(db).search_messages("ada", term, limit=1_000)
    return sorted((hit.session.id, hit.seq) for hit in found)


async def test_what_a_writer_appends_is_found_before_it_is_indexed_and_after(
    database: DatabaseManager, writer: SessionWriter, session_id: UUID
) -> None:
    await asyncio.gather(*(writer.append(session_id, said(f"a Needle {n}")) for n in range(150)))
    waiting, before = await ask(database, WAITING), await hits(database)
    async with asyncio.timeout(60):
        while await ask(database, WAITING):
            await asyncio.sleep(0.01)
    after = await hits(database)

    assert waiting > 0
    assert before == after == [(session_id, seq) for seq in range(1, 151)]
    assert await ask(database, MATCHING) == 150


async def test_a_message_without_text_waits_for_nothing(
    database: DatabaseManager, writer: SessionWriter, session_id: UUID
) -> None:
    await writer.append(session_id, said(None))

    assert await ask(database, WAITING) == 0


async def test_appending_in_transactions_indexes_along(database: DatabaseManager, session_id: UUID) -> None:
    waiting: list[int] = []
    for _ in range(20):
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session_id, said("needle"))
        waiting.append(await ask(database, WAITING))
    found = await hits(database)
    async with database.session() as db:
        await SessionRepository(db).add_messages_to_session(session_id, [said("needle") for _ in range(50)])

    assert max(waiting) == 7
    assert waiting.count(0) >= 2
    assert found == [(session_id, seq) for seq in range(1, 21)]
    assert await ask(database, WAITING) == 0
    assert await ask(database, MATCHING) == 70


async def test_sessions_of_one_message_are_indexed_along_too(database: DatabaseManager) -> None:
    for number in range(1, 41):
        async with database.session() as db:
            repo = SessionRepository(db)
            session = await repo.create(Session(id=UUID(int=number), user_id="ada"))
            await repo.add_message_to_session(session.id, said("needle"))

    assert await ask(database, WAITING) < 8
    assert len(await hits(database)) == 40


async def test_what_is_removed_while_it_waits_is_never_indexed(database: DatabaseManager, session_id: UUID) -> None:
    await fill(database, session_id, range(1, 4))
    await tell(database, "DELETE FROM agent_service_session_messages WHERE seq = 2")

    assert await hits(database) == [(session_id, 1), (session_id, 3)]
    assert await index_messages(database) == 3
    assert await ask(database, INDEXED) == 2
    await tell(database, PROVE)


async def test_what_comes_back_while_it_waits_is_found_once(database: DatabaseManager, session_id: UUID) -> None:
    await fill(database, session_id, range(1, 3))
    await tell(database, "DELETE FROM agent_service_session_messages")
    await fill(database, session_id, range(1, 3))
    found = [(session_id, 1), (session_id, 2)]

    assert await ask(database, WAITING) == 4
    assert await hits(database) == found
    await tell(database, "DELETE FROM agent_service_session_search_pending WHERE id = 1")
    assert await hits(database) == found
    await index_messages(database)
    assert await hits(database) == found
    assert await ask(database, MATCHING) == 2
    await tell(database, PROVE)


async def test_the_list_of_what_waits_does_not_grow_for_ever(database: DatabaseManager, session_id: UUID) -> None:
    await fill(database, session_id, range(1, 12_001))

    waiting, indexed = await ask(database, WAITING), await ask(database, INDEXED)

    assert 9_500 <= waiting <= 10_200
    assert waiting + indexed == 12_000


async def test_one_who_searches_in_a_read_only_session_sees_what_waits(
    database: DatabaseManager, session_id: UUID
) -> None:
    await fill(database, session_id, range(1, 3))

    async with database.session(readonly=True) as db:
        repo = SessionRepository(db)
        messages = await repo.search_messages("ada", "NEEDLE")
        sessions = await repo.search_sessions("ada", "needle")
        others = await repo.search_messages("grace", "needle")

    assert len(messages) == 2
    assert [each.id for each in sessions] == [session_id]
    assert others == []


async def test_going_back_a_revision_indexes_what_waits(database: DatabaseManager, session_id: UUID) -> None:
    await fill(database, session_id, range(1, 4))

    await database.downgrade("0005")
    matching = await ask(database, MATCHING)
    await fill(database, session_id, range(4, 6), before=True)
    at_once = await ask(database, MATCHING)
    await database.upgrade()

    assert (matching, at_once) == (3, 5)
    assert await hits(database) == [(session_id, seq) for seq in range(1, 6)]
    await tell(database, PROVE)


@pytest.mark.parametrize("seed", range(3))
async def test_search_finds_what_histories_show_whatever_happened(
    database: DatabaseManager, writer: SessionWriter, session_id: UUID, seed: int
) -> None:
    dice, ids = random.Random(seed), [session_id]
    for _ in range(examples(15, 40)):
        key, event = dice.choice(ids), dice.randrange(8)
        async with database.session() as db:
            repo = SessionRepository(db)
            if event == 0:
                ids.append((await repo.fork(key, dice.randint(0, (await repo.get(key)).last_seq))).id)  # type: ignore[union-attr]
            elif event == 1:
                await repo.pop_message(key)
            elif event == 2:
                await repo.add_message_to_session(key, said(f"a needle {dice.random()}"))
            elif event == 3 and len(ids) > 1:
                await repo.delete(key, hard=True)
                ids.remove(key)
        if event == 4:
            await index_messages(database, batch_size=1 + dice.randrange(3))
        elif event > 4:
            await asyncio.gather(*(writer.append(key, said(dice.choice(["needle", "hay"]))) for _ in range(5)))

        assert await hits(database) == await shown(database, ids)
    await tell(database, PROVE)


async def shown(database: DatabaseManager, ids: list[UUID]) -> list[tuple[UUID, int]]:
    async with database.session() as db:
        repo = SessionRepository(db)
        histories = {key: await repo.get_messages(key, limit=1_000) for key in ids}
    return sorted((key, each.seq) for key, found in histories.items() for each in found if "needle" in each.content)


async def fill(database: DatabaseManager, session_id: UUID, numbers: range, *, before: bool = False) -> None:
    """Insert messages as no method of ours does: nobody indexes along. Before revision 0010 they name no tenant."""
    columns, values = ("", "") if before else ("tenant_id, ", "'', ")
    await tell(
        database,
        "WITH RECURSIVE n(seq) AS "
        f"(SELECT {numbers.start} UNION ALL SELECT seq + 1 FROM n WHERE seq < {numbers.stop - 1}) "
        f"INSERT INTO agent_service_session_messages ({columns}session_id, seq, role, content, data, created_at) "
        f"SELECT {values}'{session_id.hex}', seq, 'user', 'a needle', '{{}}', '2026-01-01 00:00:00.000000' FROM n",
    )


async def test_a_search_costs_its_hits_and_its_page(database: DatabaseManager) -> None:
    steps = {}
    for sessions in (20, 80):
        async with database.session() as db:
            repo = SessionRepository(db)
            for made in range(20 if sessions > 20 else 0, sessions):
                session = await repo.create(Session(user_id="ada", title=f"about {made}"))
                contents = [f"frequent {made}" if seq < 4 else "hay" for seq in range(20)]
                await repo.add_messages_to_session(session.id, [said(each) for each in contents])
            await repo.add_message_to_session(session.id, said(f"rarely{sessions}"))
        await index_messages(database)  # else what waits to be indexed is looked through, too
        await tell(database, MERGE)  # the steps of FTS5 itself grow with the pieces of its index
        async with database.session(readonly=True) as db:
            for term in ("frequent", f"rarely{sessions}", "absent"):
                steps[term.rstrip("0123456789"), sessions] = await steps_of(db, SessionRepository(db), term)

    assert steps["absent", 80] <= steps["absent", 20] + 200
    assert steps["rarely", 80] <= steps["rarely", 20] + 200
    # The set of hits grows with the hits. Sessions that are not on the page are not compared with it.
    assert steps["frequent", 80] < steps["frequent", 20] * 6


async def steps_of(db: AsyncSession, repo: SessionRepository, term: str) -> int:
    """Count the steps of SQLite's virtual machine that a search takes."""
    driver: Any = (await (await db.connection()).get_raw_connection()).driver_connection
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    await repo.search_sessions("ada", term)
    await driver.set_progress_handler(count, 1)
    await repo.search_sessions("ada", term)
    await driver.set_progress_handler(None, 0)
    return steps
