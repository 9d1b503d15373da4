"""A fork shows its parent's messages up to where it left, whatever happens to either. On both engines."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.conftest import NewSession
from tests.support.depth import examples

MANY = 15
"""Messages that a parent hands down one by one."""


async def say(repo: SessionRepository, session: Session, *contents: str) -> None:
    for content in contents:
        await repo.add_message_to_session(session.id, {"role": "user", "content": content, "token_count": 2})


async def shown(repo: SessionRepository, session: Session, **bounds: Any) -> list[tuple[int, Any]]:
    return [(each.seq, each.content) for each in await repo.get_messages(session.id, **bounds)]


async def rows(db: AsyncSession) -> int:
    count: int = (await db.execute(text("SELECT count(*) FROM agent_service_session_messages"))).scalar_one()
    return count


async def test_a_fork_continues_from_its_parents_message_without_copying(
    db: AsyncSession, repo: SessionRepository, new_session: NewSession
) -> None:
    parent = await new_session(user_id="ada", title="Trains", context={"a": {"b": 1}}, metadata={"m": 1})
    await say(repo, parent, "one", "two", "three")

    fork = await repo.fork(parent.id, 2)
    before = await rows(db)
    await say(repo, fork, "other")
    await say(repo, parent, "four")

    assert before == 3
    assert await shown(repo, fork) == [(1, "one"), (2, "two"), (3, "other")]
    assert await shown(repo, parent) == [(1, "one"), (2, "two"), (3, "three"), (4, "four")]
    assert (fork.user_id, fork.agent_id, fork.title) == ("ada", parent.agent_id, "Trains")
    assert (fork.context, fork.session_metadata) == ({"a": {"b": 1}}, {"m": 1})
    assert (fork.total_messages, fork.total_tokens, fork.last_seq) == (3, 6, 3)
    assert (fork.parent_session_id, fork.fork_seq) == (parent.id, 2)


async def test_windows_of_nested_forks_cross_every_generation(repo: SessionRepository, new_session: NewSession) -> None:
    first = await new_session()
    await say(repo, first, "1", "2", "3")
    second = await repo.fork(first.id, 2)
    await say(repo, second, "3b", "4b")
    third = await repo.fork(second.id, 3)
    await say(repo, third, "4c")
    below = await repo.fork(third.id, 1)

    assert [seq for seq, _ in await shown(repo, third)] == [1, 2, 3, 4]
    assert [content for _, content in await shown(repo, third)] == ["1", "2", "3b", "4c"]
    assert await shown(repo, third, limit=2) == [(3, "3b"), (4, "4c")]
    assert await shown(repo, third, limit=2, before_seq=4) == [(2, "2"), (3, "3b")]
    assert await shown(repo, third, limit=2, after_seq=1) == [(2, "2"), (3, "3b")]
    assert await shown(repo, third, after_seq=3) == [(4, "4c")]
    assert await shown(repo, third, max_tokens=4) == [(3, "3b"), (4, "4c")]
    assert await shown(repo, third, after_seq=0, max_tokens=4) == [(1, "1"), (2, "2")]
    assert [each.content async for each in repo.iter_messages(third.id)] == ["1", "2", "3b", "4c"]
    loaded = await repo.get_session_with_messages(third.id)
    assert loaded is not None
    assert [each.content for each in loaded.messages] == ["1", "2", "3b", "4c"]
    assert await shown(repo, below) == [(1, "1")]


async def test_a_fork_at_nothing_and_one_past_the_end(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    await say(repo, session, "one")

    empty = await repo.fork(session.id, 0)
    await say(repo, empty, "first")

    assert await shown(repo, empty) == [(1, "first")]
    with pytest.raises(SessionValueError, match=r"seq must be at most 1.*got 2"):
        await repo.fork(session.id, 2)
    with pytest.raises(SessionValueError, match="seq"):
        await repo.fork(session.id, -1)
    await repo.delete(session.id)
    with pytest.raises(SessionNotFoundError):
        await repo.fork(session.id, 1)


async def test_what_a_parent_pops_stays_with_its_forks(repo: SessionRepository, new_session: NewSession) -> None:
    parent = await new_session()
    await say(repo, parent, "one", "two")
    fork = await repo.fork(parent.id, 2)
    grandchild = await repo.fork(fork.id, 2)

    popped = await repo.pop_message(parent.id)

    assert popped is not None
    assert (popped.seq, popped.content) == (2, "two")
    assert await shown(repo, parent) == [(1, "one")]
    assert await shown(repo, fork) == await shown(repo, grandchild) == [(1, "one"), (2, "two")]
    assert await repo.recount() == []


async def test_a_fork_that_its_grandparent_adopts_shows_no_more_of_it_than_before(
    repo: SessionRepository, new_session: NewSession
) -> None:
    grandparent = await new_session()
    await say(repo, grandparent, "one", "two", "three", "four")
    parent = await repo.fork(grandparent.id, 2)
    await say(repo, parent, "other three")
    fork = await repo.fork(parent.id, 3)
    before = await shown(repo, fork)

    assert await repo.delete(parent.id, hard=True)

    assert before == [(1, "one"), (2, "two"), (3, "other three")]
    assert await shown(repo, fork) == before
    assert await repo.recount() == []


async def test_a_fork_pops_what_it_inherited_from_itself_alone(
    repo: SessionRepository, new_session: NewSession
) -> None:
    parent = await new_session()
    await say(repo, parent, "one", "two")
    fork = await repo.fork(parent.id, 2)
    grandchild = await repo.fork(fork.id, 2)

    popped = await repo.pop_message(fork.id)
    added = await repo.add_message_to_session(fork.id, {"role": "user", "content": "three"})

    assert popped is not None
    assert popped.content == "two"
    assert added.seq == 3
    assert await shown(repo, fork) == [(1, "one"), (3, "three")]
    assert await shown(repo, parent) == await shown(repo, grandchild) == [(1, "one"), (2, "two")]
    assert (fork.total_messages, fork.total_tokens) == (2, 2)


async def test_search_finds_what_a_fork_shows_and_no_more(repo: SessionRepository, new_session: NewSession) -> None:
    parent = await new_session(user_id="ada", title="-")
    await say(repo, parent, "a needle", "a thimble")
    fork = await repo.fork(parent.id, 1)
    nested = await repo.fork(fork.id, 1)
    await repo.delete(parent.id)

    for term in ("needle", "ee"):
        assert {each.id for each in await repo.search_sessions("ada", term)} == {fork.id, nested.id}
        hits = await repo.search_messages("ada", term)
        assert {(hit.session.id, hit.seq) for hit in hits} == {(fork.id, 1), (nested.id, 1)}
    assert await repo.search_sessions("ada", "thimble") == []
    assert await repo.search_messages("ada", "thimble") == []


async def test_a_client_id_the_fork_used_again_survives_its_parents_end(
    repo: SessionRepository, new_session: NewSession
) -> None:
    parent = await new_session()
    await repo.add_message_to_session(parent.id, {"role": "user", "content": "a"}, client_id="m")
    await repo.add_message_to_session(parent.id, {"role": "user", "content": "b"}, client_id="n")
    fork = await repo.fork(parent.id, 2)
    await repo.add_message_to_session(fork.id, {"role": "user", "content": "c"}, client_id="m")

    await repo.delete(parent.id, hard=True)

    assert [(each.content, each.client_id) for each in await repo.get_messages(fork.id)] == [
        ("a", None),
        ("b", "n"),
        ("c", "m"),
    ]
    assert (await repo.get(fork.id)).parent_session_id is None  # type: ignore[union-attr]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "say", "pop", "fork", "fork", "hide", "restore", "remove", "purge"]),
        st.integers(0, 5),
        st.integers(0, 6),
    ),
    min_size=12,
    max_size=25,
)


@settings(max_examples=examples(6, 30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
async def test_any_history_of_forks_shows_what_copies_would(
    database: DatabaseManager, operations: list[tuple[str, int, int]]
) -> None:
    """The model copies at every fork; sessions of the database must never look different from it."""
    async with database.session() as db:
        repo = SessionRepository(db, str(uuid4()))
        model = Model(repo)
        await model.begin()
        for name, which, number in operations:
            await model.step(name, which, number)
            await model.check()
        await model.check_pages()
        assert await repo.recount() == []


class Model:
    """Histories as plain lists of (seq, content)."""

    def __init__(self, repo: SessionRepository) -> None:
        self.repo = repo
        self.seen: dict[Any, list[tuple[int, str]]] = {}
        self.hidden: dict[Any, list[tuple[int, str]]] = {}
        self.last: dict[Any, int] = {}
        self.said = 0

    async def begin(self) -> None:
        session = await self.repo.create(Session(user_id="ada"))
        self.seen[session.id], self.last[session.id] = [], 0

    async def step(self, name: str, which: int, number: int) -> None:
        pool = self.hidden if name == "restore" else self.seen
        if not pool:
            return await self.begin()
        key = list(pool)[which % len(pool)]
        if name == "say":
            self.said += 1
            message = await self.repo.add_message_to_session(key, {"role": "user", "content": str(self.said)})
            self.last[key] += 1
            assert message.seq == self.last[key]
            self.seen[key].append((message.seq, str(self.said)))
        elif name == "pop":
            popped = await self.repo.pop_message(key)
            expected = self.seen[key].pop() if self.seen[key] else None
            assert (popped and (popped.seq, popped.content)) == expected
        elif name == "fork":
            seq = min(number, self.last[key])
            fork = await self.repo.fork(key, seq)
            self.seen[fork.id] = [each for each in self.seen[key] if each[0] <= seq]
            self.last[fork.id] = seq
        elif name == "hide":
            assert await self.repo.delete(key)
            self.hidden[key] = self.seen.pop(key)
        elif name == "restore":
            assert await self.repo.restore(key)
            self.seen[key] = self.hidden.pop(key)
        elif name == "remove":
            assert await self.repo.delete(key, hard=True)
            del self.seen[key]
        else:
            assert await self.repo.purge_deleted(datetime.now(UTC) + timedelta(days=1)) == len(self.hidden)
            self.hidden.clear()
        return None

    async def check(self) -> None:
        for key, expected in self.seen.items():
            session = await self.repo.get_session_with_messages(key)
            assert session is not None
            assert [(each.seq, each.content) for each in session.messages] == expected
            assert session.total_messages == len(expected)

    async def check_pages(self) -> None:
        for key, expected in self.seen.items():
            assert [(each.seq, each.content) for each in await self.repo.get_messages(key)] == expected
            middle = await self.repo.get_messages(key, limit=2, after_seq=1)
            assert [(each.seq, each.content) for each in middle] == [each for each in expected if each[0] > 1][:2]


async def test_a_fork_and_a_pop_at_the_same_time_agree(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        parent = await repo.create(Session(user_id="ada"))
        await say(repo, parent, *"abcdefgh")

    async def fork() -> Session:
        async with database.session() as db:
            return await SessionRepository(db).fork(parent.id, 8)

    async def pop() -> None:
        async with database.session() as db:
            await SessionRepository(db).pop_message(parent.id)

    done = await asyncio.gather(*(fork() if number % 2 else pop() for number in range(10)))

    async with database.session() as db:
        repo = SessionRepository(db)
        for session in filter(None, done):
            assert len(await shown(repo, session)) == session.total_messages
        assert len(await shown(repo, parent)) == 3
        assert await repo.recount() == []


async def test_a_reader_of_a_fork_never_misses_a_message_that_is_handed_down(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        parent = await repo.create(Session(user_id="ada"))
        await say(repo, parent, *map(str, range(MANY)))
        fork = await repo.fork(parent.id, MANY)

    async def pop_everything() -> None:
        for _ in range(MANY):
            async with database.session() as db:
                await SessionRepository(db).pop_message(parent.id)

    popping = asyncio.create_task(pop_everything())
    while not popping.done():
        async with database.session() as db:
            assert [seq for seq, _ in await shown(SessionRepository(db), fork)] == list(range(1, MANY + 1))
    await popping

    async with database.session() as db:
        assert len(await shown(SessionRepository(db), fork)) == MANY
