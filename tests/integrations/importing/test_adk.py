"""Sessions of ADK's DatabaseSessionService: what is read after an import is what ADK read before."""

from typing import Any

import pytest
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig

from agent_service.context.database import DatabaseContextStore
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkSessionService
from agent_service.integrations.adk.identity import app_key
from agent_service.integrations.importing import ImportStoppedError, Options, import_adk
from tests.integrations.importing.adk_filled import events, fill_adk, fill_adk_v0, theirs
from tests.integrations.importing.filled import execute

KEYS = {("app", "ada", "s1"): 3, ("app", "bob", "s1"): 1, ("app", "ada", "s2"): 0, ("other/app", "ada", "s 1"): 1}


async def ours(target: DatabaseManager, keys: Any) -> dict[Any, Session | None]:
    async with AdkSessionService(target) as service:
        return {
            (app, user, session_id): await service.get_session(app_name=app, user_id=user, session_id=session_id)
            for app, user, session_id in keys
        }


def shown(session: Session | None) -> dict[str, Any]:
    assert session is not None
    values = session.model_dump(mode="json")
    # Their column keeps microseconds of the moment that ours takes from the last event.
    return values | {"last_update_time": round(values["last_update_time"], 5)}


async def test_sessions_with_their_events_and_state_are_read_as_adk_read_them(target: DatabaseManager, source_url: str):
    await fill_adk(source_url, KEYS)
    before = await theirs(source_url, KEYS)

    report = await import_adk(source_url, options=Options(database=target))
    again = await import_adk(source_url, options=Options(database=target))

    after = await ours(target, KEYS)
    assert {key: shown(session) for key, session in after.items()} == {
        key: shown(session) for key, session in before.items()
    }
    assert {key: session.events for key, session in after.items() if session} == {
        key: session.events for key, session in before.items() if session
    }
    # Two apps, three users of them, four sessions.
    assert (report.total, report.added, report.items_added) == (9, 9, 20)
    assert (again.added, again.extended, again.unchanged, again.items) == (0, 0, 9, 20)


async def test_lists_and_filters_give_what_adk_gives(target: DatabaseManager, source_url: str):
    await fill_adk(source_url, KEYS)
    await import_adk(source_url, options=Options(database=target))
    from google.adk.sessions import DatabaseSessionService  # noqa: PLC0415

    services: list[Any] = [DatabaseSessionService(source_url), AdkSessionService(target)]
    recent = GetSessionConfig(num_recent_events=3, after_timestamp=events(1)[1].timestamp)
    key = {"app_name": "app", "user_id": "ada"}

    listed = [[each.id for each in (await service.list_sessions(**key)).sessions] for service in services]
    filtered = [await service.get_session(**key, session_id="s1", config=recent) for service in services]
    state = [await service.get_user_state(**key) for service in services]
    for service in services:
        await service.close()

    assert listed[0] == listed[1]
    assert [each.id for each in filtered[0].events] == [each.id for each in filtered[1].events]
    assert state[0] == state[1] != {}


async def test_sessions_and_state_that_change_in_the_source_are_brought_again(target: DatabaseManager, source_url: str):
    await fill_adk(source_url, KEYS)
    await import_adk(source_url, options=Options(database=target))
    await fill_adk(source_url, {("app", "ada", "s1"): 2, ("app", "cid", "s1"): 1}, first=5)

    report = await import_adk(source_url, options=Options(database=target))

    keys = [*KEYS, ("app", "cid", "s1")]
    before, after = await theirs(source_url, keys), await ours(target, keys)
    assert {key: shown(each) for key, each in after.items()} == {key: shown(each) for key, each in before.items()}
    # The app's and Ada's state and her session; Cid's state and session.
    assert (report.extended, report.added, report.unchanged) == (3, 2, 6)


async def test_sessions_go_on_in_the_target(target: DatabaseManager, source_url: str):
    await fill_adk(source_url, {("app", "ada", "s1"): 1})
    await import_adk(source_url, options=Options(database=target))
    async with AdkSessionService(target) as service:
        key: dict[str, Any] = {"app_name": "app", "user_id": "ada", "session_id": "s1"}
        session = await service.get_session(**key)
        assert session is not None
        for event in events(7):
            await service.append_event(session, event)
        found = await service.get_session(**key)

    assert found is not None
    assert [each.id for each in found.events] == [each.id for each in session.events]
    assert found.state["last"] == 7


async def test_state_that_the_target_changed_is_left_alone_and_reported(target: DatabaseManager, source_file: str):
    await fill_adk(source_file, {("app", "ada", "s1"): 1})
    await import_adk(source_file, options=Options(database=target))
    states = DatabaseContextStore(session_factory=target.session)
    await states.set(app_key("", "app"), {"count": 77})

    with pytest.raises(ImportStoppedError, match="app_states of 'app': the target holds other state"):
        await import_adk(source_file, options=Options(database=target))
    report = await import_adk(source_file, options=Options(database=target, on_problem="skip"))

    assert (report.skipped, report.unchanged, report.problems.count) == (1, 2, 1)
    assert await states.get(app_key("", "app")) == {"count": 77}


async def test_the_older_layout_is_read_without_running_its_pickles(target: DatabaseManager, source_url: str):
    key = ("app", "ada", "old")
    await fill_adk_v0(source_url, key, 2)
    before = (await theirs(source_url, [key]))[key]

    report = await import_adk(source_url, options=Options(database=target))
    again = await import_adk(source_url, options=Options(database=target))

    after = (await ours(target, [key]))[key]
    assert before is not None
    assert after is not None
    assert [each.model_dump(mode="json", exclude_none=True) for each in after.events] == [
        each.model_dump(mode="json", exclude_none=True) for each in before.events
    ]
    assert after.state == before.state
    assert (report.items_added, again.changed) == (9, False)


async def test_a_session_without_events_keeps_the_time_of_its_last_update(target: DatabaseManager, source_url: str):
    await fill_adk(source_url, {("app", "ada", "s1"): 0})
    await execute(source_url, "UPDATE sessions SET update_time = '2026-01-02 03:04:05.678901'")

    await import_adk(source_url, options=Options(database=target))

    keys = [("app", "ada", "s1")]
    (before,), (after,) = (await theirs(source_url, keys)).values(), (await ours(target, keys)).values()
    assert before is not None
    assert after is not None
    assert before.last_update_time == after.last_update_time == pytest.approx(1767323045.678901, abs=1e-6)
