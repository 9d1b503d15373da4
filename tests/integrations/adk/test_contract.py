"""What ADK asks of a session service, said again in our words. On both engines."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError as AdkNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.sessions.session import Session
from google.genai import types
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError, UndecodableError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.adk import AdkSessionService
from agent_service.integrations.adk.identity import session_key
from tests.integrations.adk.said import APP, USER, read, said, texts


class Place(BaseModel):
    """A value of state that has a form in JSON."""

    city: str


async def begin(service: AdkSessionService, session_id: str | None = None, **state: object) -> Session:
    return await service.create_session(app_name=APP, user_id=USER, session_id=session_id, state=state)


async def test_a_session_is_read_as_it_was_created(service: AdkSessionService):
    created = await begin(service, "chat 1", step=1)

    found = await read(service, created)

    assert found == created
    assert (found.id, found.app_name, found.user_id, found.state) == ("chat 1", APP, USER, {"step": 1})
    assert found.events == []
    assert found.last_update_time > 0


async def test_a_session_without_an_id_is_given_one(service: AdkSessionService):
    first, second, blank = await begin(service), await begin(service), await begin(service, "   ")

    assert len({first.id, second.id, blank.id}) == 3
    assert await read(service, blank) == blank


async def test_white_space_around_an_id_is_no_part_of_it(service: AdkSessionService):
    assert (await begin(service, "  s1\n")).id == "s1"

    for padded in ("s1", " s1", "s1 "):
        assert await service.get_session(app_name=APP, user_id=USER, session_id=padded) is not None
    with pytest.raises(AlreadyExistsError):
        await begin(service, " s1")
    await service.delete_session(app_name=APP, user_id=USER, session_id=" s1 ")
    assert await service.get_session(app_name=APP, user_id=USER, session_id="s1") is None


async def test_an_id_belongs_to_an_app_and_a_user(service: AdkSessionService):
    """Two users, and two apps, may have a session of the same id."""
    for app, user in ((APP, "ada"), (APP, "bob"), ("sales", "ada"), ("a/b", "c"), ("a", "b/c")):
        created = await service.create_session(app_name=app, user_id=user, session_id="s1", state={"of": app + user})
        await service.append_event(created, said(app + user))

    for app, user in ((APP, "ada"), (APP, "bob"), ("sales", "ada"), ("a/b", "c"), ("a", "b/c")):
        found = await service.get_session(app_name=app, user_id=user, session_id="s1")
        assert found is not None
        assert (found.state, texts(found)) == ({"of": app + user}, [app + user])


async def test_a_taken_id_is_an_error_of_both_kinds_and_changes_nothing(service: AdkSessionService):
    await begin(service, "s1", step=1)

    with pytest.raises(AlreadyExistsError) as raised:
        await service.create_session(app_name=APP, user_id=USER, session_id="s1", state={"app:a": 1, "user:b": 2})

    assert isinstance(raised.value, SessionConflictError)
    assert isinstance(raised.value.__cause__, SessionConflictError)
    assert (await read(service, await begin(service))).state == {}


async def test_the_state_of_an_app_and_of_a_user_is_shared(service: AdkSessionService):
    first = await begin(service, "s1", **{"app:model": "m1", "user:lang": "en", "step": 1, "temp:draft": "x"})

    assert first.state == {"app:model": "m1", "user:lang": "en", "step": 1}
    assert (await begin(service)).state == {"app:model": "m1", "user:lang": "en"}
    of_bob = await service.create_session(app_name=APP, user_id="bob")
    assert of_bob.state == {"app:model": "m1"}
    assert (await service.create_session(app_name="sales", user_id=USER)).state == {}
    assert await service.get_user_state(app_name=APP, user_id=USER) == {"lang": "en"}
    assert await service.get_user_state(app_name=APP, user_id="nobody") == {}


async def test_an_event_changes_state_of_every_scope_at_once(service: AdkSessionService):
    session = await begin(service, step=1, kept=True)
    event = said(state={"step": 2, "app:model": "m2", "user:lang": "de", "temp:draft": "x", "gone": None})

    returned = await service.append_event(session, event)

    assert returned is event
    assert session.state == {
        "step": 2,
        "kept": True,
        "app:model": "m2",
        "user:lang": "de",
        "temp:draft": "x",
        "gone": None,
    }
    found = await read(service, session)
    assert found.state == {"step": 2, "kept": True, "app:model": "m2", "user:lang": "de", "gone": None}
    assert found.events == session.events == [event]
    assert event.actions.state_delta == {"step": 2, "app:model": "m2", "user:lang": "de", "gone": None}
    assert (await begin(service)).state == {"app:model": "m2", "user:lang": "de"}


async def test_rich_values_of_state_are_stored_in_their_json_form(service: AdkSessionService):
    session = await begin(service, at=datetime(2026, 12, 1, tzinfo=UTC), place=Place(city="Bergen"))
    await service.append_event(session, said(state={"place": Place(city="Oslo"), "raw": b"\xff", "pair": (1, 2)}))

    assert (await read(service, session)).state == {
        "at": "2026-12-01T00:00:00Z",
        "place": {"city": "Oslo"},
        "raw": "_w==",
        "pair": [1, 2],
    }


async def test_an_event_comes_back_equal(service: AdkSessionService):
    session = await begin(service)
    parts = [
        types.Part(text="A picture\x00", thought_signature=b"\xff\x00"),
        types.Part(inline_data=types.Blob(data=bytes(range(256)), mime_type="image/png")),
        types.Part(function_call=types.FunctionCall(id="c1", name="look", args={"at": None, "zoom": 1.5})),
    ]
    summary = EventCompaction(
        start_timestamp=1.0, end_timestamp=2.5, compacted_content=types.Content(role="model", parts=parts[:1])
    )
    event = Event(
        author="agent",
        invocation_id="i1",
        branch="root.agent",
        content=types.Content(role="model", parts=parts),
        long_running_tool_ids={"c1", "c2"},
        error_code="E1",
        custom_metadata={"kept": {"none": None}},
        actions=EventActions(
            transfer_to_agent="other",
            escalate=True,
            artifact_delta={"file": 3},
            rewind_before_invocation_id="i0",
            compaction=summary,
        ),
        usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=7),
        timestamp=1_700_000_000.123456,
    )

    await service.append_event(session, event)

    found = await read(service, session)
    assert found.events == [event]
    assert found.last_update_time == session.last_update_time == 1_700_000_000.123456


async def test_a_partial_event_is_returned_and_not_stored(service: AdkSessionService):
    session = await begin(service)
    event = said("Hel", state={"step": 1}, partial=True)

    assert await service.append_event(session, event) is event

    assert session.events == []
    assert session.state == {}
    assert (await read(service, session)).events == []


async def test_events_are_filtered_by_number_and_by_time(service: AdkSessionService):
    """``after_timestamp`` is inclusive, and both filters go together."""
    session = await begin(service)
    for second in range(6):
        await service.append_event(session, said(str(second), timestamp=float(second)))

    async def shown(**config: object) -> list[str]:
        return texts(await read(service, session, **config))

    assert await shown(num_recent_events=2) == ["4", "5"]
    assert await shown(num_recent_events=0) == []
    assert await shown(num_recent_events=99) == list("012345")
    assert await shown(after_timestamp=3.0) == ["3", "4", "5"]
    assert await shown(after_timestamp=0.0) == list("012345")
    assert await shown(after_timestamp=5.5) == []
    assert await shown(after_timestamp=1.0, num_recent_events=3) == ["3", "4", "5"]
    assert await shown(after_timestamp=4.0, num_recent_events=3) == ["4", "5"]
    assert (await read(service, session, num_recent_events=0)).last_update_time == 5.0


async def test_a_long_history_is_read_whole_and_in_order(service: AdkSessionService, database: DatabaseManager):
    """Longer than a page of the reader."""
    session = await begin(service)
    template = said("0")
    await service.append_event(session, template)
    async with database.session() as db:
        repo = SessionRepository(db)
        row = await repo.get_by_external_id(session_key(APP, USER, session.id))
        assert row is not None
        (first,) = await repo.get_messages(row.id)
        further = [
            {**first.to_dict(), "content": {"parts": [{"text": str(number)}]}, "timestamp": float(number)}
            for number in range(1, 1203)
        ]
        await repo.add_messages_to_session(row.id, further, role="assistant")

    assert texts(await read(service, session)) == [str(number) for number in range(1203)]
    assert texts(await read(service, session, num_recent_events=1100)) == [str(number) for number in range(103, 1203)]
    assert texts(await read(service, session, after_timestamp=150.0)) == [str(number) for number in range(150, 1203)]


async def test_lists_have_state_and_no_events_and_begin_with_the_oldest_update(service: AdkSessionService):
    first, second, third = [await begin(service, f"s{number}", own=number) for number in range(3)]
    other = await service.create_session(app_name=APP, user_id="bob", session_id="s0", state={"user:lang": "no"})
    await service.create_session(app_name="sales", user_id=USER)
    for session, at in ((first, 30.0), (third, 10.0), (second, 20.0), (other, 20.0)):
        await service.append_event(session, said(timestamp=at, state={"app:model": "m1"}))

    of_ada = (await service.list_sessions(app_name=APP, user_id=USER)).sessions
    of_all = (await service.list_sessions(app_name=APP)).sessions

    assert [each.id for each in of_ada] == ["s2", "s1", "s0"]
    assert [each.state for each in of_ada] == [{"own": number, "app:model": "m1"} for number in (2, 1, 0)]
    assert [each.last_update_time for each in of_ada] == [10.0, 20.0, 30.0]
    assert all(each.events == [] for each in of_all)
    assert [(each.user_id, each.id) for each in of_all] == [(USER, "s2"), (USER, "s1"), ("bob", "s0"), (USER, "s0")]
    assert of_all[2].state == {"user:lang": "no", "app:model": "m1"}
    assert (await service.list_sessions(app_name="nothing")).sessions == []


async def test_a_session_from_a_list_can_be_appended_to(service: AdkSessionService):
    created = await begin(service)
    await service.append_event(created, said("1"))
    (listed,) = (await service.list_sessions(app_name=APP, user_id=USER)).sessions

    await service.append_event(listed, said("2"))

    assert texts(await read(service, created)) == ["1", "2"]


async def test_a_deleted_session_is_gone_and_its_id_is_free(service: AdkSessionService):
    session = await begin(service, "s1", **{"user:lang": "en", "step": 1})
    await service.append_event(session, said())

    await service.delete_session(app_name=APP, user_id=USER, session_id="s1")
    await service.delete_session(app_name=APP, user_id=USER, session_id="s1")

    assert await service.get_session(app_name=APP, user_id=USER, session_id="s1") is None
    with pytest.raises(AdkNotFoundError):
        await service.append_event(session, said())
    assert (await begin(service, "s1")).state == {"user:lang": "en"}
    with pytest.raises(AdkNotFoundError):  # the object is of the session that was deleted
        await service.append_event(session, said())


async def test_what_was_never_stored_is_not_appended_to(service: AdkSessionService):
    stranger = Session(id="s1", app_name=APP, user_id=USER)

    with pytest.raises(AdkNotFoundError, match="not found") as raised:
        await service.append_event(stranger, said(state={"user:lang": "en"}))

    assert isinstance(raised.value, SessionNotFoundError)
    assert stranger.events == []
    assert await service.get_session(app_name=APP, user_id=USER, session_id="s1") is None
    assert await service.get_user_state(app_name=APP, user_id=USER) == {}


@pytest.mark.parametrize("state", [{}, {"step": 1}, {"user:lang": "en", "step": 1}], ids=["plain", "own", "shared"])
async def test_a_stale_session_object_is_refused_and_stays_as_it_was(
    service: AdkSessionService, another: AdkSessionService, state: dict[str, object]
):
    session = await begin(service)
    stale = await read(another, session)
    await service.append_event(session, said("1"))
    before = stale.model_copy(deep=True)
    event = said("2", state={**state, "temp:draft": 1})

    with pytest.raises(StaleSessionError) as raised:
        await another.append_event(stale, event)

    assert isinstance(raised.value, SessionConflictError)
    assert stale == before
    assert event.actions.state_delta == {**state, "temp:draft": 1}
    found = await read(service, session)
    assert (texts(found), found.state) == (["1"], {})
    fresh = await read(another, session)
    await another.append_event(fresh, event)
    assert texts(await read(service, session)) == ["1", "2"]


async def test_a_user_can_be_forgotten(service: AdkSessionService):
    for number in range(3):
        await service.append_event(await begin(service, f"s{number}"), said(state={"user:lang": "en", "app:a": 1}))
    await service.create_session(app_name=APP, user_id="bob", session_id="s0", state={"user:lang": "no"})

    assert await service.forget_user(app_name=APP, user_id=USER) == 3

    assert (await service.list_sessions(app_name=APP, user_id=USER)).sessions == []
    assert await service.get_user_state(app_name=APP, user_id=USER) == {}
    assert await service.get_user_state(app_name=APP, user_id="bob") == {"lang": "no"}
    assert await service.forget_user(app_name=APP, user_id=USER) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"user_id": ""}, "user_id must have 1 to 255 characters"),
        ({"app_name": ""}, "app_name must have 1 to 255 characters"),
        ({"user_id": "a" * 256}, "user_id must have 1 to 255 characters"),
        ({"user_id": "a\x00b"}, r"user_id holds U\+0000"),
        ({"session_id": 7}, "session_id must be a string, not int"),
        ({"state": {"user:x": object()}}, r"state\['user:x'\] is a object"),
        ({"state": {"x": float("nan")}}, r"state\.x is nan"),
        ({"state": {"user:x": float("inf")}}, r"state\['user:x'\] is inf"),
        ({"state": {"app:x": "\ud800"}}, r"state\['app:x'\] holds a lone surrogate"),
        ({"state": {"x": "\x00"}}, r"context\.x holds U\+0000"),
        ({"state": {7: 1}}, "state has a key that is no string: 7"),
    ],
)
async def test_what_cannot_be_stored_is_refused_with_its_name(
    service: AdkSessionService, arguments: dict[str, object], problem: str
):
    with pytest.raises(SessionValueError, match=problem):
        await service.create_session(**{"app_name": APP, "user_id": USER, **arguments})  # type: ignore[arg-type]

    assert (await service.list_sessions(app_name=APP)).sessions == []


async def test_what_is_no_event_or_session_is_refused_without_its_content(service: AdkSessionService):
    session = await begin(service)

    for given in ((session, None), (session, {"text": "secret"}), (None, said()), ({"text": "secret"}, said())):
        with pytest.raises(SessionValueError, match="must be an ADK") as raised:
            await service.append_event(*given)
        assert "secret" not in str(raised.value)


async def test_an_event_that_cannot_be_stored_changes_nothing(service: AdkSessionService):
    session = await begin(service)
    before = session.model_copy(deep=True)

    for state in ({"x": object()}, {"x": float("inf")}, {"user:x": float("nan")}, {"x": "\ud800"}):
        with pytest.raises(SessionValueError, match="x"):
            await service.append_event(session, said(state=state))

    assert session == before
    assert await read(service, session) == before
    await service.append_event(session, said(state={"temp:x": object()}))


async def test_tenants_know_nothing_of_each_other(database: DatabaseManager):
    async with AdkSessionService(database, tenant_id="acme") as acme, AdkSessionService(database) as nobody:
        of_acme = await begin(acme, "s1", **{"app:a": 1, "user:b": 2, "c": 3})
        of_nobody = await begin(nobody, "s1")

        assert of_nobody.state == {}
        await acme.append_event(of_acme, said("theirs", state={"app:a": 4, "user:b": 5}))
        assert await read(nobody, of_nobody) == of_nobody
        assert await nobody.get_user_state(app_name=APP, user_id=USER) == {}
        with pytest.raises(AdkNotFoundError):
            await nobody.append_event(of_acme, said())
        assert await nobody.forget_user(app_name=APP, user_id=USER) == 1
        assert texts(await read(acme, of_acme)) == ["theirs"]
        assert await acme.get_user_state(app_name=APP, user_id=USER) == {"b": 5}


async def test_an_engine_of_the_callers_own_serves_too(database: DatabaseManager, database_url: str):
    engine = create_async_engine(database_url)
    async with AdkSessionService(engine) as service:
        session = await begin(service, "s1", **{"user:lang": "en"})
        await service.append_event(session, said("1", state={"step": 1}))
        await service.append_event(session, said("2", state={"user:lang": "de"}))
        with pytest.raises(AlreadyExistsError):
            await begin(service, "s1")
        assert await read(service, session) == session
    await engine.dispose()
    async with AdkSessionService(database) as another:
        assert texts(await read(another, session)) == ["1", "2"]


@pytest.mark.parametrize("own_engine", [False, True])
async def test_state_and_events_are_of_one_moment(
    database: DatabaseManager, database_url: str, monkeypatch: pytest.MonkeyPatch, own_engine: bool
):
    find = SessionRepository.get_by_external_id
    meanwhile: list[Callable[[], Awaitable[object]]] = []

    async def then_others(self: SessionRepository, *arguments: Any):
        row = await find(self, *arguments)
        if meanwhile:
            await meanwhile.pop()()
        return row

    monkeypatch.setattr(SessionRepository, "get_by_external_id", then_others)
    engine = create_async_engine(database_url)
    async with AdkSessionService(engine if own_engine else database) as service, AdkSessionService(database) as another:
        session = await begin(service, None, **{"app:n": 1, "user:n": 1, "n": 1})
        written = await read(another, session)
        event = said("2", state={"app:n": 2, "user:n": 2, "n": 2})
        meanwhile.append(lambda: another.append_event(written, event))
        assert await read(service, session) == session
        assert await read(service, session) == written

        meanwhile.append(lambda: another.delete_session(app_name=APP, user_id=USER, session_id=session.id))
        assert texts(await read(service, session)) == ["2"]
        assert await service.get_session(app_name=APP, user_id=USER, session_id=session.id) is None
    await engine.dispose()


def test_a_place_that_cannot_be_used_is_refused():
    with pytest.raises(SessionValueError, match="engine must be an AsyncEngine or a DatabaseManager, not str"):
        AdkSessionService("sqlite+aiosqlite:///a.db")  # type: ignore[arg-type]
    with pytest.raises(SessionValueError, match="tenant_id"):
        AdkSessionService(tenant_id=None)  # type: ignore[arg-type]


async def test_a_message_that_is_no_event_is_named_when_it_is_read(
    service: AdkSessionService, database: DatabaseManager
):
    session = await begin(service)
    async with database.session() as db:
        repo = SessionRepository(db)
        row = await repo.get_by_external_id(session_key(APP, USER, session.id))
        assert row is not None
        await repo.add_message_to_session(row.id, {"role": "user", "content": "a secret"})

    for config in ({}, {"num_recent_events": 0}, {"after_timestamp": 1.0}):
        with pytest.raises(UndecodableError, match="no event of ADK") as raised:
            await read(service, session, **config)
        assert "secret" not in str(raised.value)
    (listed,) = (await service.list_sessions(app_name=APP)).sessions
    assert listed.last_update_time == session.last_update_time
