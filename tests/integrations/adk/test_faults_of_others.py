"""Faults that other session services for ADK have had, each as a test of this one. On both engines."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.sessions.session import Session
from sqlalchemy import event as listening
from sqlalchemy import insert, select

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.connection import close_database
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session as StoredRow
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.adk import AdkMemoryService, AdkSessionService
from agent_service.integrations.adk.identity import session_key
from tests.integrations.adk.said import APP, USER, read, said, texts


@contextmanager
def statements(database: DatabaseManager) -> Iterator[list[str]]:
    """What an engine is sent while the block runs."""
    sent: list[str] = []

    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    listening.listen(database.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        listening.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def begin(service: AdkSessionService, session_id: str = "s1", **state: object) -> Session:
    return await service.create_session(app_name=APP, user_id=USER, session_id=session_id, state=state)


@pytest.mark.parametrize("config", [{"num_recent_events": 0}, {"num_recent_events": 2}, {"after_timestamp": 8.0}])
async def test_an_append_after_a_filtered_read_deletes_nothing(service: AdkSessionService, config: dict[str, float]):
    """google/adk-python#7140."""
    session = await begin(service)
    for second in range(10):
        await service.append_event(session, said(str(second), timestamp=float(second)))

    part = await read(service, session, **config)
    await service.append_event(part, said("10", timestamp=10.0))

    assert texts(await read(service, session)) == [str(number) for number in range(11)]


async def test_two_runners_never_interleave_their_turns(service: AdkSessionService, another: AdkSessionService):
    """google/adk-python#4751: each reads, and goes on with what it has read."""
    await begin(service)
    one, other = await read(service, Session(id="s1", app_name=APP, user_id=USER)), None
    other = await read(another, one)

    outcomes = await asyncio.gather(
        *(service.append_event(one, said(f"one {step}")) for step in range(5)),
        *(another.append_event(other, said(f"other {step}")) for step in range(5)),
        return_exceptions=True,
    )

    assert sum(isinstance(each, StaleSessionError) for each in outcomes) == 5
    stored = texts(await read(service, one))
    assert stored in ([f"one {step}" for step in range(5)], [f"other {step}" for step in range(5)])


async def test_many_tasks_that_share_an_object_are_never_stale(service: AdkSessionService):
    """google/adk-python#3054: parallel branches of an agent append at the same time."""
    session = await begin(service)

    await asyncio.gather(
        *(
            service.append_event(
                session, said(str(task), state={f"k{task}": task} if task % 2 else {f"user:k{task}": 1})
            )
            for task in range(40)
        )
    )

    found = await read(service, session)
    assert found == session
    assert sorted(map(int, texts(found))) == list(range(40))
    assert len(found.state) == 40


@pytest.mark.parametrize("moment", [0.0, 1.1, 1_764_600_000.123456, 1_764_600_000.1234567, 4e9 + 1 / 3, 2**40 + 0.1])
async def test_times_never_make_an_object_stale(service: AdkSessionService, moment: float):
    """google/adk-python#537, #917 and #3717: moments that a database rounds, and clocks that go back."""
    session = await begin(service)
    for offset in (0.0, -5.0, 1e-6, 0.0):
        await service.append_event(session, said(timestamp=moment + offset))

    found = await read(service, session)
    assert found.last_update_time == moment
    assert [event.timestamp for event in found.events] == [moment, moment - 5.0, moment + 1e-6, moment]
    await service.append_event(found, said())


async def test_an_object_that_was_not_read_here_is_judged_by_what_it_shows(service: AdkSessionService):
    """ag-ui#1732: an object that was copied, sent as JSON or made by hand has no mark of ours."""
    session = await begin(service)
    await service.append_event(session, said("1", timestamp=1.0))
    sent = Session.model_validate_json(session.model_dump_json())
    by_hand = Session(id="s1", app_name=APP, user_id=USER, last_update_time=1.0)
    late = Session.model_validate_json(session.model_dump_json())

    await service.append_event(sent, said("2", timestamp=2.0))
    await service.append_event(sent, said("3", timestamp=3.0))
    by_hand.last_update_time = 3.0
    await service.append_event(by_hand, said("4", timestamp=4.0))

    with pytest.raises(StaleSessionError):
        await service.append_event(late, said("5", timestamp=5.0))
    with pytest.raises(StaleSessionError):
        await service.append_event(session.model_copy(deep=True), said("5"))
    assert texts(await read(service, session)) == ["1", "2", "3", "4"]


async def test_events_are_in_the_order_of_their_commits(service: AdkSessionService, another: AdkSessionService):
    """Not in the order of the clocks of those who sent them."""
    session = await begin(service)
    await service.append_event(session, said("first", timestamp=200.0))
    later = await read(another, session)
    await another.append_event(later, said("second", timestamp=100.0))

    found = await read(service, session)
    assert texts(found) == ["first", "second"]
    assert texts(await read(service, session, num_recent_events=1)) == ["second"]
    assert found.last_update_time == 100.0


async def test_the_time_of_an_update_is_the_time_of_the_event(service: AdkSessionService):
    session = await begin(service)
    await service.append_event(session, said(timestamp=12.5))

    (listed,) = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    assert session.last_update_time == listed.last_update_time == 12.5


async def test_an_empty_user_has_no_sessions_and_sees_none(service: AdkSessionService):
    await begin(service)

    assert (await service.list_sessions(app_name=APP, user_id="")).sessions == []
    assert (await service.list_sessions(app_name="", user_id=USER)).sessions == []
    assert await service.get_session(app_name=APP, user_id="", session_id="s1") is None
    assert await service.forget_user(app_name=APP, user_id="nobody") == 0


async def test_an_append_to_what_is_not_stored_stores_nothing(service: AdkSessionService):
    with pytest.raises(SessionNotFoundError):
        await service.append_event(Session(id="s1", app_name=APP, user_id=USER), said(state={"app:a": 1}))

    assert (await service.list_sessions(app_name=APP)).sessions == []
    assert (await begin(service)).state == {}


async def test_an_event_that_is_delivered_again_is_stored_once(service: AdkSessionService, another: AdkSessionService):
    session = await begin(service)
    first, second = said("1", state={"n": 1, "user:n": 1}), said("2", state={"n": 2, "user:n": 2})
    for event in (first, second):
        await service.append_event(session, event)

    for event in (first, second):
        await service.append_event(session, event.model_copy(deep=True))
        await another.append_event(await read(another, session), event.model_copy(deep=True))

    found = await read(service, session)
    assert (texts(found), found.state) == (["1", "2"], {"n": 2, "user:n": 2})
    assert session == found
    differs = first.model_copy(update={"author": "somebody else"}, deep=True)
    await service.append_event(session, differs)
    assert texts(await read(service, session)) == ["1", "2", "1"]


@pytest.mark.parametrize("state", [{"n": 1}, {"n": 1, "user:n": 1}], ids=["own", "shared"])
async def test_an_append_whose_answer_was_lost_is_found_again(
    service: AdkSessionService, another: AdkSessionService, state: dict[str, object]
):
    """The same object goes on, as if it had been answered: nothing is stale, nothing twice."""
    session = await begin(service)
    unanswered = session.model_copy(deep=True)
    event = said("1", state=state)
    await another.append_event(unanswered, event.model_copy(deep=True))

    await service.append_event(session, event)
    await service.append_event(session, said("2"))

    assert session == await read(service, session)
    assert texts(session) == ["1", "2"]
    assert session.state == state


async def test_a_cancelled_append_is_stored_or_not_and_can_be_repeated(service: AdkSessionService):
    session = await begin(service)
    event = said("1", state={"n": 1})
    appending = asyncio.create_task(service.append_event(session, event))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending

    await service.append_event(session, event)

    assert session == await read(service, session)
    assert texts(session) == ["1"]


async def test_lists_are_read_by_pages(service: AdkSessionService, database: DatabaseManager):
    """google/adk-python#4621 and #4871: statements grow with pages of 500 sessions, not with sessions."""
    await begin(service, "s1", **{"user:lang": "en", "app:a": 1})

    async def store(numbers: range) -> None:
        """Store copies of the first session, many at once."""
        async with database.session() as db:
            table: Any = StoredRow.__table__
            (first,) = (
                await db.execute(select(table).where(table.c.external_id == session_key(APP, USER, "s1")))
            ).all()
            copies = [{"id": uuid4(), "external_id": session_key(APP, USER, f"n{number}")} for number in numbers]
            await db.execute(insert(table), [{**first._mapping, **copy} for copy in copies])

    counts = []
    for numbers in (range(10), range(10, 499), range(499, 1200)):
        await store(numbers)
        with statements(database) as sent:
            sessions = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
        assert len(sessions) == numbers.stop + 1
        assert sessions[-1].state == {"user:lang": "en", "app:a": 1}
        counts.append(sum(each.startswith(("SELECT", "WITH")) for each in sent))
    assert counts[0] == counts[1]
    assert counts[2] - counts[1] == 2 * (counts[1] - 1)  # two more pages; their ids are one statement


async def test_a_search_of_the_memory_is_one_statement(service: AdkSessionService, database: DatabaseManager):
    """google/adk-python#5300: one more read for each session found."""
    memory = AdkMemoryService(database)
    for number in range(12):
        session = await begin(service, f"s{number}")
        await service.append_event(session, said(f"The ferry of day {number}"))
        await memory.add_session_to_memory(session)

    with statements(database) as sent:
        found = await memory.search_memory(app_name=APP, user_id=USER, query="Which ferry?")

    assert len(found.memories) == 10
    assert sum(each.lstrip("( ").startswith(("SELECT", "WITH")) for each in sent) == 1


async def test_an_outage_is_an_error_of_ours_and_the_session_goes_on_after_it(database: DatabaseManager):
    """The writer gave up: the object is as it was, and the same event can be sent again."""
    async with AdkSessionService(database) as service:
        session = await begin(service)
        event = said("1", state={"n": 1, "temp:draft": 1})
        before = session.model_copy(deep=True)
        place = service._place
        async with SessionWriter(database, timeout=0.001) as impatient, database.session() as db:
            row = await SessionRepository(db).get_by_external_id(session_key(APP, USER, "s1"))
            assert row is not None
            await SessionRepository(db).get(row.id, lock=True)  # nobody else can append now
            opened = place._writers.get()
            opened._opened = impatient
            with pytest.raises(DatabaseUnavailableError):
                await service.append_event(session, event)
            assert session == before
            opened._opened = None
        await service.append_event(session, event)
        found = await read(service, session)
        assert (texts(found), found.state) == (["1"], {"n": 1})


def test_a_service_works_on_one_event_loop_after_the_other(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """Runner.run() has an event loop of its own for each call."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()
    service = AdkSessionService()

    async def one(number: int) -> list[str]:
        if number == 0:
            await begin(service)
        session = await read(service, Session(id="s1", app_name=APP, user_id=USER))
        await service.append_event(session, said(str(number)))
        await service.close()
        await close_database()
        return texts(session)

    assert [asyncio.run(one(number)) for number in range(3)] == [["0"], ["0", "1"], ["0", "1", "2"]]
