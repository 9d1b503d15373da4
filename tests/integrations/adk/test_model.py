"""Whatever is done in whatever order, ADK's service in memory and this one hold the same. On both engines.

Two services work on one database, as two processes do, and are replaced by new ones, as after a crash. What the service
in memory does not know is decided by the model: an object that does not know the last event is refused.
"""

import asyncio
from copy import deepcopy
from itertools import count
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.sessions import InMemorySessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkSessionService
from tests.integrations.adk.said import said
from tests.support.depth import examples

USERS = st.sampled_from(["ada", "bob"])
IDS = st.sampled_from(["s1", "s2", " s1 ", "a/b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["k", "$set", "%"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "app:a", "user:a", "user:b", "temp:a", "other:a"])
STATE = st.dictionaries(KEYS, VALUES, max_size=3)
MOMENTS = st.sampled_from([0.0, 1.0, 1.1, 2.5, 1e9 + 0.1])
_apps = count()


class Held:
    """A session object of each service, and how many events of which stored session it knows."""

    def __init__(self, ours: Session, theirs: Session, stored: "Stored") -> None:
        self.ours, self.theirs, self.stored = ours, theirs, stored
        self.known = stored.events


class Stored:
    """A session that is stored."""

    events = 0
    there = True


class Sessions(RuleBasedStateMachine):
    """Both services, and the objects that callers hold."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.app = f"app{next(_apps)}"
        self.theirs = InMemorySessionService()
        self.stored: dict[tuple[str, str], Stored] = {}
        self.held: list[Held] = []
        self.sent: list[tuple[Held, Event]] = []

    @initialize()
    def open(self) -> None:
        async def make() -> DatabaseManager:
            return DatabaseManager(self.url)

        self.database = self.loop.run(make())
        self.services = [AdkSessionService(self.database) for _ in range(2)]

    def run(self, call: Any) -> Any:
        return self.loop.run(call)

    def scope(self, user: str, session_id: str) -> dict[str, str]:
        return {"app_name": self.app, "user_id": user, "session_id": session_id}

    @rule(user=USERS, session_id=IDS, state=STATE, service=st.integers(0, 1))
    def create(self, user: str, session_id: str, state: dict[str, Any], service: int) -> None:
        place = (user, session_id.strip())
        ours = self.services[service].create_session(**self.scope(user, session_id), state=deepcopy(state))
        if place in self.stored:
            with pytest.raises(AlreadyExistsError):
                self.run(ours)
            return
        created = self.run(ours)
        reference = self.run(self.theirs.create_session(**self.scope(user, session_id), state=deepcopy(state)))
        self.stored[place] = Stored()
        self.held.append(Held(created, reference, self.stored[place]))
        self.same(created, reference)

    @precondition(lambda self: self.stored)
    @rule(data=st.data(), service=st.integers(0, 1), most=st.none() | st.integers(0, 3), since=st.none() | MOMENTS)
    def read(self, data: st.DataObject, service: int, most: int | None, since: float | None) -> None:
        place = data.draw(st.sampled_from(sorted(self.stored)))
        config = GetSessionConfig(num_recent_events=most, after_timestamp=since)
        ours = self.run(self.services[service].get_session(**self.scope(*place), config=config))
        theirs = self.run(self.theirs.get_session(**self.scope(*place), config=config))
        self.same(ours, theirs)
        self.held.append(Held(ours, theirs, self.stored[place]))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), service=st.integers(0, 1), state=STATE, at=MOMENTS, partial=st.booleans())
    def append(self, data: st.DataObject, service: int, state: dict[str, Any], at: float, partial: bool) -> None:
        held = data.draw(st.sampled_from(self.held))
        event = said(str(len(self.sent)), state=deepcopy(state), timestamp=at, partial=partial or None)
        copy = event.model_copy(deep=True)
        before = held.ours.model_copy(deep=True)
        ours = self.services[service].append_event(held.ours, event)
        if partial:
            assert self.run(ours) is event
            assert held.ours == before
            return
        wrong = SessionNotFoundError if not held.stored.there else StaleSessionError
        if not held.stored.there or held.known != held.stored.events:
            with pytest.raises(wrong):
                self.run(ours)
            assert held.ours == before
            assert event == copy
            return
        assert self.run(ours) is event
        self.run(self.theirs.append_event(held.theirs, copy))
        held.stored.events += 1
        held.known = held.stored.events
        self.sent.append((held, event))
        self.same(held.ours, held.theirs)

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), service=st.integers(0, 1))
    def deliver_again(self, data: st.DataObject, service: int) -> None:
        """An equal event of an earlier append changes nothing, even of an object that is not up to date."""
        held, event = data.draw(st.sampled_from(self.sent))
        if held.stored.there:
            before = held.ours.model_copy(deep=True)
            assert self.run(self.services[service].append_event(held.ours, event.model_copy(deep=True))) == event
            assert held.ours == before

    @precondition(lambda self: self.stored)
    @rule(data=st.data(), service=st.integers(0, 1))
    def delete(self, data: st.DataObject, service: int) -> None:
        place = data.draw(st.sampled_from(sorted(self.stored)))
        self.run(self.services[service].delete_session(**self.scope(*place)))
        self.run(self.theirs.delete_session(**self.scope(*place)))
        self.stored.pop(place).there = False

    @rule(service=st.integers(0, 1))
    def begin_anew(self, service: int) -> None:
        self.run(self.services[service].close())
        self.services[service] = AdkSessionService(self.database)

    @rule(user=st.none() | USERS, service=st.integers(0, 1))
    def list_all(self, user: str | None, service: int) -> None:
        ours = self.run(self.services[service].list_sessions(app_name=self.app, user_id=user)).sessions
        theirs = self.run(self.theirs.list_sessions(app_name=self.app, user_id=user)).sessions
        assert [(each.user_id, each.id) for each in ours] == [(each.user_id, each.id) for each in theirs]
        for one, other in zip(ours, theirs, strict=True):
            self.same(one, other)

    @invariant()
    def users_have_the_same_state(self) -> None:
        if not hasattr(self, "services"):
            return
        for user in ("ada", "bob"):
            ours = self.run(self.services[0].get_user_state(app_name=self.app, user_id=user))
            assert ours == self.run(self.theirs.get_user_state(app_name=self.app, user_id=user))

    def same(self, ours: Session, theirs: Session) -> None:
        assert (ours.id, ours.user_id, ours.app_name) == (theirs.id, theirs.user_id, theirs.app_name)
        assert ours.state == theirs.state
        assert ours.events == theirs.events
        if theirs.last_update_time < 1.5e9:  # the time of an event, not of this run
            assert ours.last_update_time == theirs.last_update_time

    def teardown(self) -> None:
        if hasattr(self, "services"):
            for service in self.services:
                self.run(service.close())
            self.run(self.database.close())
        self.loop.close()


def test_both_services_hold_the_same(database_url: str):
    class OnUrl(Sessions):
        url = database_url

    run_state_machine_as_test(
        OnUrl,
        settings=settings(
            max_examples=examples(8, 40),
            stateful_step_count=examples(20, 50),
            suppress_health_check=list(HealthCheck),
        ),
    )
