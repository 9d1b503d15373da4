"""Two tenants with sessions of the same ids, forks among them: none reads or changes the others. On both engines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.queries.watch import watch
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.held import somebody_waits

ROOT, FORK, LEAF = IDS = [UUID(int=number) for number in (1, 2, 3)]
NEW = {"role": "user", "content": "new", "token_count": 1}

Act = Callable[[DatabaseManager], Awaitable[Any]]


async def family(database: DatabaseManager, tenant: str, taken: int) -> None:
    """Store three messages, a fork of the first few of them, and a fork of that one from its third message on."""
    async with database.session() as db:
        repo = SessionRepository(db, tenant)

        async def say(id_: UUID, *numbers: int) -> None:
            for each in numbers:
                message = {**NEW, "content": f"needle {tenant} {each}"}
                await repo.add_message_to_session(id_, message, client_id=f"{tenant} {each}")

        await repo.create(Session(user_id="ada", title=tenant))
        await say(ROOT, 1, 2, 3)
        await repo.fork(ROOT, taken)
        await say(FORK, *range(taken + 1, 4))
        await repo.fork(FORK, 3)
        await say(LEAF, 4)


@pytest.fixture(autouse=True)
async def families(database: DatabaseManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of each tenant, in which only the number of messages differs that the fork took over."""
    for tenant, taken in (("mine", 2), ("theirs", 1)):
        with monkeypatch.context() as patched:
            patched.setattr("agent_service.infrastructure.database.models.session.uuid7", iter(IDS).__next__)
            await family(database, tenant, taken)


async def theirs(database: DatabaseManager) -> list[Any]:
    """Return every row of the other tenant's."""
    async with database.session() as db:
        sessions = "SELECT * FROM agent_service_sessions WHERE tenant_id = 'theirs' ORDER BY id"
        messages = "SELECT * FROM agent_service_session_messages WHERE tenant_id = 'theirs' ORDER BY session_id, seq"
        return [*(await db.execute(text(sessions))).all(), *(await db.execute(text(messages))).all()]


async def shown(database: DatabaseManager, tenant: str) -> list[str]:
    """Return what the last fork shows, having counted everything of the tenant's anew."""
    async with database.session() as db:
        repo = SessionRepository(db, tenant)
        assert await repo.recount() == []
        return [each.content.removeprefix("needle ") for each in await repo.get_messages(LEAF)]


def as_mine(call: Callable[[SessionRepository], Awaitable[Any]]) -> Act:
    async def act(database: DatabaseManager) -> None:
        async with database.session() as db:
            await call(SessionRepository(db, "mine"))

    return act


def written(*client_ids: str) -> Act:
    async def act(database: DatabaseManager) -> None:
        async with SessionWriter(database, tenant_id="mine") as writer:
            await asyncio.gather(*(writer.append(LEAF, NEW, client_id=each) for each in client_ids))

    return act


ALL = [f"mine {number}" for number in (1, 2, 3, 4)]
ACTS: dict[str, tuple[Act, list[str]]] = {
    "append": (as_mine(lambda repo: repo.add_message_to_session(LEAF, NEW, client_id="theirs 4")), [*ALL, "new"]),
    "append many": (
        as_mine(lambda repo: repo.add_messages_to_session(LEAF, [NEW] * 2, client_ids=["theirs 4", "theirs 5"])),
        [*ALL, "new", "new"],
    ),
    "writer": (written("theirs 4"), [*ALL, "new"]),
    "writer of many": (written("theirs 4", "theirs 5", "theirs 6"), [*ALL, "new", "new", "new"]),
    "pop": (as_mine(lambda repo: repo.pop_message(FORK)), ALL),
    "delete the fork": (as_mine(lambda repo: repo.delete(FORK, hard=True)), ALL),
    "delete the first": (as_mine(lambda repo: repo.delete(ROOT, hard=True)), ALL),
    "fork": (as_mine(lambda repo: repo.fork(LEAF, 3)), ALL),
    "status": (as_mine(lambda repo: repo.bulk_update_session_status(IDS, "failed")), ALL),
}


@pytest.mark.parametrize("act", ACTS)
async def test_what_one_tenant_does_changes_nothing_of_the_others(database: DatabaseManager, act: str) -> None:
    before = await theirs(database)
    call, expected = ACTS[act]

    await call(database)

    assert await shown(database, "mine") == expected
    assert await theirs(database) == before
    assert await shown(database, "theirs") == [f"theirs {number}" for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("term", ["needle", "ee"])
async def test_a_search_finds_what_is_ones_own(database: DatabaseManager, term: str) -> None:
    async with database.session() as db:
        repo = SessionRepository(db, "mine")
        hits = await repo.search_messages("ada", term, 100)
        others = await repo.search_messages("ada", "theirs", 100), await repo.search_sessions("ada", "theirs")

    expected = [(id_, number) for id_, last in ((ROOT, 3), (FORK, 3), (LEAF, 4)) for number in range(1, last + 1)]
    assert sorted((hit.session.id, hit.seq) for hit in hits) == expected
    assert others == ([], [])


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_a_number_that_is_given_back_is_ones_own(database: DatabaseManager) -> None:
    before = await theirs(database)

    async def append() -> Any:
        async with database.session() as db:
            return await SessionRepository(db, "mine").add_message_to_session(LEAF, NEW, client_id="same")

    async with database.session() as db:
        first = await SessionRepository(db, "mine").add_message_to_session(LEAF, NEW, client_id="same")
        again = asyncio.create_task(append())
        await somebody_waits(database)
    second = await again

    assert first.seq == second.seq == 5
    assert await shown(database, "mine") == [*ALL, "new"]
    assert await theirs(database) == before


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_only_ones_own_session_is_watched(database: DatabaseManager) -> None:
    before = await theirs(database)

    async with database.session() as db:
        watched = (await db.execute(watch("mine", LEAF))).all()

    assert watched == [(LEAF,)]
    assert await theirs(database) == before
