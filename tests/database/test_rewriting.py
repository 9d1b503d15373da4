"""Clearing a session, replacing its end, and popping its last message. On both engines."""

import asyncio
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.truncations import (
    MOST,
    Removed,
    first_to_forget,
    read_removed,
    removed_again,
)
from agent_service.infrastructure.database.repositories import SessionRepository, Truncation
from tests.database.conftest import NewSession
from tests.support.depth import examples
from tests.support.forked import Forked

PATIENCE = 60.0


def message(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content, "token_count": 2}


async def say(repo: SessionRepository, session: Session, *contents: str) -> None:
    await repo.add_messages_to_session(session.id, [message(each) for each in contents])


async def shown(repo: SessionRepository, session: Session) -> list[tuple[int, Any]]:
    return [(each.seq, each.content) for each in await repo.get_messages(session.id, limit=10_000)]


async def test_a_cleared_session_is_empty_and_goes_on_with_its_numbers(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session(user_id="ada", title="-", context={"kept": True})
    await say(repo, session, "needle", "two", "three")

    removed = await repo.clear_messages(session.id)
    counters = session.last_seq, session.total_messages, session.total_tokens, session.version
    found = await repo.search_messages("ada", "needle"), await repo.search_sessions("ada", "needle")
    again = await repo.clear_messages(session.id), await repo.clear_messages(session.id, expected_seq=3)
    added = await repo.add_message_to_session(session.id, message("four"))

    assert (removed, again, counters) == (3, (0, 0), (3, 0, 0, 2))
    assert found == ([], [])
    assert added.seq == 4
    assert await shown(repo, session) == [(4, "four")]
    assert (session.context, session.version) == ({"kept": True}, 2)
    assert await repo.recount() == []


async def test_an_end_is_replaced_by_other_messages(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session(user_id="ada", title="-")
    await say(repo, session, "one", "two", "needle", "needle")

    stored = await repo.replace_suffix(session.id, 3, [message("summary"), {"type": "reasoning"}], role="assistant")

    assert [(each.seq, each.role) for each in stored] == [(5, "user"), (6, "assistant")]
    assert await shown(repo, session) == [(1, "one"), (2, "two"), (5, "summary"), (6, None)]
    assert (session.last_seq, session.total_messages, session.total_tokens, session.version) == (6, 4, 6, 2)
    assert await repo.search_messages("ada", "needle") == []
    assert [hit.seq for hit in await repo.search_messages("ada", "summary")] == [5]
    assert await repo.recount() == []


async def test_replacing_after_the_last_message_only_appends(repo: SessionRepository, new_session: NewSession) -> None:
    session = await new_session()
    await say(repo, session, "one")

    await repo.replace_suffix(session.id, 2, [message("two")], expected_seq=1)
    await repo.replace_suffix(session.id, 3, [])

    assert await shown(repo, session) == [(1, "one"), (2, "two")]
    assert session.version == 1


async def test_nothing_changes_when_an_expectation_or_an_argument_is_wrong(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    await say(repo, session, "one", "two")

    with pytest.raises(SessionConflictError, match="is at last_seq 2, expected was 1"):
        await repo.replace_suffix(session.id, 1, [message("x")], expected_seq=1)
    with pytest.raises(SessionConflictError, match="is at last_seq 2, expected was 0"):
        await repo.clear_messages(session.id, expected_seq=0)
    with pytest.raises(SessionValueError, match=r"from_seq must be at most 3, .*got 4"):
        await repo.replace_suffix(session.id, 4, [message("x")])
    with pytest.raises(SessionValueError, match="from_seq"):
        await repo.replace_suffix(session.id, 0, [])
    with pytest.raises(SessionValueError, match=r"messages\[0\]\.role"):
        await repo.replace_suffix(session.id, 1, [{"content": "x"}])
    for call in (repo.clear_messages(uuid4()), repo.replace_suffix(uuid4(), 1, [])):
        with pytest.raises(SessionNotFoundError):
            await call

    assert await shown(repo, session) == [(1, "one"), (2, "two")]
    assert session.version == 1


async def test_client_ids_of_removed_messages_are_free_and_kept_ones_are_not(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    await repo.add_messages_to_session(session.id, [message("a"), message("b")], client_ids=["a", "b"])

    stored = await repo.replace_suffix(session.id, 2, [message("A"), message("B")], client_ids=["a", "b"])

    assert [(each.seq, each.content) for each in stored] == [(1, "a"), (3, "B")]
    assert await shown(repo, session) == [(1, "a"), (3, "B")]
    assert await repo.recount() == []


async def test_forks_keep_what_they_show_of_a_history_that_is_rewritten(
    repo: SessionRepository, new_session: NewSession
) -> None:
    first = await new_session()
    await say(repo, first, "1", "2", "3")
    second = await repo.fork(first.id, 3)
    await say(repo, second, "4")
    third = await repo.fork(second.id, 4)
    fourth = await repo.fork(third.id, 2)
    before = await shown(repo, third)

    await repo.replace_suffix(second.id, 2, [message("other")])

    assert await shown(repo, second) == [(1, "1"), (5, "other")]
    assert await shown(repo, third) == before == [(1, "1"), (2, "2"), (3, "3"), (4, "4")]
    assert await shown(repo, fourth) == [(1, "1"), (2, "2")]
    await repo.clear_messages(first.id)
    await repo.clear_messages(third.id)
    assert await shown(repo, first) == await shown(repo, third) == []
    assert await shown(repo, second) == [(1, "1"), (5, "other")]
    assert await shown(repo, fourth) == [(1, "1"), (2, "2")]
    assert await repo.recount() == []


async def test_a_long_history_is_removed_in_bounded_statements_and_handed_down(
    repo: SessionRepository, new_session: NewSession
) -> None:
    session = await new_session()
    await say(repo, session, *map(str, range(1, 1301)))
    forks = [await repo.fork(session.id, 1300), await repo.fork(session.id, 700)]

    removed = await repo.clear_messages(session.id)

    assert removed == 1300
    assert [len(await shown(repo, each)) for each in (session, *forks)] == [0, 1300, 700]
    assert await repo.recount() == []


async def test_a_transaction_that_goes_on_after_a_refusal_kept_everything(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await say(repo, session, "one", "two")
    async with database.session() as db:
        repo = SessionRepository(db)
        with pytest.raises(SessionConflictError):
            await repo.clear_messages(session.id, expected_seq=1)
        await say(repo, session, "three")

    async with database.session() as db:
        assert await shown(SessionRepository(db), session) == [(1, "one"), (2, "two"), (3, "three")]


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "pop", "fork", "replace", "replace", "clear"]),
        st.integers(0, 4),
        st.integers(0, 9),
    ),
    max_size=20,
)


@settings(max_examples=examples(5, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
async def test_any_history_shows_what_lists_of_messages_would(
    database: DatabaseManager, operations: list[tuple[str, int, int]]
) -> None:
    async with database.session() as db:
        repo = SessionRepository(db, str(uuid4()))
        seen: dict[Any, list[tuple[int, str]]] = {}
        last: dict[Any, int] = {}
        begun = await repo.create(Session(user_id="ada"))
        seen[begun.id], last[begun.id] = [], 0
        for said, (name, which, number) in enumerate(operations):
            key = list(seen)[which % len(seen)]
            if name == "say":
                last[key] += 1
                stored = await repo.add_message_to_session(key, message(str(said)), client_id=f"c{number}{said}")
                assert stored.seq == last[key]
                seen[key].append((last[key], str(said)))
            elif name == "pop":
                popped = await repo.pop_message(key)
                assert (popped and (popped.seq, popped.content)) == (seen[key].pop() if seen[key] else None)
            elif name == "fork":
                at = min(number, last[key])
                fork = await repo.fork(key, at)
                seen[fork.id], last[fork.id] = [each for each in seen[key] if each[0] <= at], at
            elif name == "clear":
                assert await repo.clear_messages(key, expected_seq=last[key]) == len(seen[key])
                seen[key] = []
            else:
                first = min(number, last[key]) + 1
                new = [message(f"{said}{part}") for part in "ab"[: number % 3]]
                await repo.replace_suffix(key, first, new)
                kept = [each for each in seen[key] if each[0] < first]
                seen[key] = kept + [(last[key] + n, each["content"]) for n, each in enumerate(new, 1)]
                last[key] += len(new)
            for session_id, expected in seen.items():
                found = await repo.get_session_with_messages(session_id)
                assert found is not None
                assert [(each.seq, each.content) for each in found.messages] == expected
                assert (found.total_messages, found.total_tokens) == (len(expected), 2 * len(expected))
                assert found.last_seq == last[session_id]
        assert await repo.recount() == []


async def test_twenty_tasks_and_two_processes_pop_each_message_once(
    database: DatabaseManager, database_url: str
) -> None:
    count = 60
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await say(repo, session, *map(str, range(count)))

    async def elsewhere() -> list[int]:
        with await Forked.start("tests.database.popper", database_url, str(session.id)) as process:
            popped = []
            while line := await process.line():
                popped.append(int(line))
            assert await process.wait() == 0
            return popped

    async def here() -> list[int]:
        popped: list[int] = []
        while True:
            async with database.session() as db:
                found = await SessionRepository(db).pop_message(session.id)
            if found is None:
                return popped
            popped.append(found.seq)

    done = await asyncio.gather(elsewhere(), elsewhere(), *(here() for _ in range(20)))

    assert sorted(seq for each in done for seq in each) == list(range(1, count + 1))
    async with database.session() as db:
        repo = SessionRepository(db)
        assert await shown(repo, session) == []
        assert await repo.recount() == []


async def test_appends_and_rewrites_at_once_lose_nothing_and_reuse_no_number(database: DatabaseManager) -> None:
    async with database.session() as db:
        session = await SessionRepository(db).create(Session(user_id="ada"))

    async def rewrite(name: str) -> list[SessionMessage]:
        async with database.session() as db:
            repo = SessionRepository(db)
            start = (await repo.get(session.id)).last_seq + 1  # type: ignore[union-attr]
            return await repo.replace_suffix(session.id, start, [message(f"{name}1"), message(f"{name}2")])

    async with SessionWriter(database) as writer:
        appended = [writer.append(session.id, message(f"w{n}")) for n in range(20)]
        done: list[Any] = await asyncio.gather(*appended, *(rewrite(f"r{n}") for n in range(10)))

    numbers: list[int] = [each.seq for part in done for each in (part if isinstance(part, list) else [part])]
    async with database.session() as db:
        repo = SessionRepository(db)
        left = await shown(repo, session)
        assert await repo.recount() == []
    assert sorted(numbers) == list(range(1, 41))
    assert {seq for seq, _ in left} <= set(numbers)


async def follow(database: DatabaseManager, session: Session, after_seq: int = 0) -> Any:
    async with database.session() as db:
        return SessionRepository(db).subscribe(session.id, after_seq=after_seq, truncations=True)


async def test_a_follower_that_keeps_a_view_has_what_the_session_shows(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await say(repo, session, "one", "two", "three")
    view: dict[int, str] = {}
    told: list[Truncation] = []
    changed = asyncio.Event()

    async def keep(feed: Any) -> None:
        async with aclosing(feed) as events:
            async for event in events:
                if isinstance(event, Truncation):
                    told.append(event)
                    for seq in [each for each in view if each >= event.from_seq]:
                        del view[seq]
                else:
                    assert event.seq > max(view, default=0)
                    view[event.seq] = event.content
                changed.set()

    async def agrees() -> None:
        async with database.session() as db:
            expected = dict(await shown(SessionRepository(db), session))
        async with asyncio.timeout(PATIENCE):
            while view != expected:
                changed.clear()
                await changed.wait()

    following = asyncio.create_task(keep(await follow(database, session)))
    try:
        await agrees()
        for step in (
            lambda repo: repo.replace_suffix(session.id, 2, [message("short")]),
            lambda repo: repo.clear_messages(session.id),
            lambda repo: say(repo, session, "four", "five"),
            lambda repo: repo.replace_suffix(session.id, 6, []),
            lambda repo: repo.clear_messages(session.id),
        ):
            async with database.session() as db:
                await step(SessionRepository(db))
            await agrees()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    assert [each.from_seq for each in told] == [2, 1, 6, 1]
    assert {each.session_id for each in told} == {session.id}


async def test_a_follower_that_comes_back_is_told_what_it_has_to_forget(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await say(repo, session, "one", "two", "three")
        await repo.replace_suffix(session.id, 3, [message("four")])
        await repo.replace_suffix(session.id, 4, [message("five")])

    async def events(after_seq: int, count: int) -> list[Any]:
        found: list[Any] = []
        async with aclosing(await follow(database, session, after_seq)) as feed, asyncio.timeout(PATIENCE):
            async for event in feed:
                found.append(event.from_seq if isinstance(event, Truncation) else event.content)
                if len(found) == count:
                    return found
        return found

    assert [await events(after, 2) for after in (3, 4)] == [[3, "five"], [4, "five"]]
    assert await events(0, 3) == ["one", "two", "five"]
    assert await events(2, 1) == ["five"]


async def test_an_event_ends_a_follower_before_it_is_told_what_came_in_place(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await say(repo, session, "one", "two")
        await repo.replace_suffix(session.id, 2, [message("three")])
        end = asyncio.Event()
        feed = repo.subscribe(session.id, after_seq=2, until=end, truncations=True)

    async with aclosing(feed) as events, asyncio.timeout(PATIENCE):
        first = await anext(events)
        end.set()
        later = [event async for event in events]

    assert (first, later) == (Truncation(session.id, 2), [])


async def test_a_follower_that_asks_for_messages_only_gets_no_truncation(database: DatabaseManager) -> None:
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada"))
        await say(repo, session, "one", "two")
        await repo.clear_messages(session.id)
        await say(repo, session, "three")
        feed = repo.subscribe(session.id, after_seq=2)
        with pytest.raises(SessionValueError, match="truncations must be True or False"):
            repo.subscribe(session.id, truncations=1)  # type: ignore[call-overload] # that is the point

    async with aclosing(feed) as messages, asyncio.timeout(PATIENCE):
        assert (await anext(messages)).content == "three"


@given(
    steps=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 200)), min_size=1, max_size=120),
    after=st.integers(0, 200),
)
def test_the_list_of_removals_stays_short_and_hides_none(steps: list[tuple[int, int]], after: int) -> None:
    text, last, every = None, 0, []
    for grown, back in steps:
        last += grown
        first = max(1, last - back)
        every.append(Removed(last, first))
        text = removed_again(text, last, first)
    kept = read_removed(text)

    unseen = [each.from_seq for each in every if each.seq >= after and each.from_seq <= after]
    found = first_to_forget(kept, after, after)
    assert len(kept) <= MOST
    assert (found is not None and found <= min(unseen)) or not unseen
    if len({each.seq for each in every}) < MOST:
        assert found == min(unseen, default=None)
