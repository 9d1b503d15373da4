"""Every public method that works on sessions, called by a second tenant with all it knows of the first one.

It finds nothing, it changes nothing, and nothing it is told, an error's or a log's text included, says what belongs to
the first tenant.
"""

import asyncio
import importlib
import inspect
import logging
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, is_typeddict
from uuid import UUID, uuid4

import pytest
from sqlalchemy.exc import SQLAlchemyError

import agent_service
from agent_service.context.session import SessionContextStore
from agent_service.core.errors import AgentServiceError, SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.core.logging import logger
from agent_service.infrastructure.database.append.tenant_writer import TenantWriter
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.sessions import SessionContexts
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.openai_agents import DatabaseSession
from agent_service.tenants import TenantCache
from tests.canary.attacks import BY_ID, CONTEXTS, CREATE, OTHERWISE, STORE, UPDATE, Any_, new, write
from tests.canary.conftest import House
from tests.canary.estate import (
    CLIENT_IDS,
    EXTERNAL,
    TITLE,
    USER,
    Estate,
    everything_shown,
    exported,
    leaked,
    message,
    settle,
    spelled,
    stored,
)

FIRST, SECOND = "acme", "acme2"


class Siege:
    """What a second tenant tries, and what came of it."""

    def __init__(self, house: House, theirs: Estate, log: pytest.LogCaptureFixture) -> None:
        self.house = house
        self.theirs = theirs
        self.faults: list[str] = []
        self._log = log
        self._rows: list[dict[str, Any]] = []

    async def look(self) -> None:
        """Note how the first tenant's rows are now."""
        self._rows = await stored(self.house.owner, self.theirs.tenant)

    async def attempt(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, look: bool = True) -> str:
        """Call something as the second tenant in a transaction of its own, and return what it was told."""

        async def in_transaction() -> Any:
            async with self.house.service.session() as db:
                return await call(SessionRepository(db, SECOND), *args)

        return await self.observe(name, in_transaction, look=look)

    async def observe(self, name: str, call: Callable[..., Awaitable[Any]], *args: Any, look: bool = True) -> str:
        """Call something, and note what it gives away and, with ``look``, what it changes."""
        self._log.clear()
        try:
            async with asyncio.timeout(30):
                told: Any = await call(*args)
        except AgentServiceError as exc:
            told = exc
        except Exception as exc:  # noqa: BLE001 - none but ours is promised
            self.faults.append(f"{name}: raises {exc!r:.300}")
            told = exc
        logged = [record.getMessage() for record in self._log.records]
        self._note_leaks(f"{name} says", told)
        self._note_leaks(f"{name} logs", logged)
        if look:
            await self.compare(name)
        return spelled(told) if isinstance(told, BaseException) else ""

    def _note_leaks(self, what: str, values: Any) -> None:
        if leaks := leaked(values):
            self.faults.append(f"{what} {leaks} in {spelled(values):.300}")

    async def compare(self, name: str) -> None:
        """Note what of the first tenant's rows changed, and what of it the second one's rows hold."""
        self._note_leaks(f"{name} stores", await stored(self.house.owner, SECOND))
        now = await stored(self.house.owner, self.theirs.tenant)
        if now != self._rows:
            changed = [(before, after) for before, after in zip(self._rows, now, strict=False) if before != after]
            self.faults.append(f"{name}: changes rows: {changed or (len(self._rows), len(now))!r:.600}")
            self._rows = now


@pytest.fixture
async def siege(house: House, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Siege]:
    """Two tenants that use the same names for everything; afterwards the first has all it had, and can erase it."""
    caplog.set_level(logging.DEBUG, logger.name)
    theirs = await settle(house.service, house.owner, FIRST)
    async with house.service.session() as db:
        repo = SessionRepository(db, SECOND)
        own = await repo.create(new(title=TITLE, external_id=EXTERNAL))
        for client_id in CLIENT_IDS:
            await repo.add_message_to_session(own.id, message("mine"), client_id=client_id)
        await repo.fork(own.id, 1)
    siege = Siege(house, theirs, caplog)
    await siege.look()
    yield siege
    await siege.compare("in the end")
    async with house.service.session() as db:
        siege._note_leaks("reading afterwards says", await everything_shown(db, SECOND))
    assert siege.faults == []
    assert await exported(house.service, FIRST) == theirs.lines
    mine = await exported(house.service, SECOND)
    async with house.service.session() as db:
        assert await SessionRepository(db, FIRST).delete(theirs.session, hard=True)
    async with house.service.session() as db:
        assert await SessionRepository(db, FIRST).erase_user(USER) == len(theirs.ids) - 1
    assert await stored(house.owner, FIRST) == []
    assert await exported(house.service, SECOND) == mine


@pytest.mark.parametrize("house", ["sqlite", "postgres"], indirect=True)
async def test_a_foreign_id_is_like_one_that_never_was(siege: Siege) -> None:
    for name, calls in BY_ID.items():
        for number, call in enumerate(calls):
            nobody = uuid4()
            nothing = await siege.attempt(name, call, nobody, look=False)
            for id_ in siege.theirs.ids if number == 0 else siege.theirs.ids[:1]:
                told = await siege.attempt(name, call, id_, look=False)
                if told.replace(str(id_), str(nobody)) != nothing:
                    siege.faults.append(f"{name}[{number}]: {told!r:.200} instead of {nothing!r:.200}")
        await siege.compare(name)


async def test_no_session_is_made_or_changed_so_that_it_reaches_across(siege: Siege) -> None:
    for name, attacks in (("create", CREATE), ("update", UPDATE)):
        for number, attack in enumerate(attacks):
            await siege.attempt(f"{name}[{number}]", attack, siege.theirs)


@pytest.mark.parametrize("house", ["sqlite", "row security"], indirect=True)
async def test_an_import_of_their_export_makes_sessions_of_its_own(siege: Siege) -> None:
    for number, call in enumerate(OTHERWISE["import_user"]):
        told = await siege.attempt(f"import_user[{number}]", call, siege.theirs)
        assert "Conflict" not in told


@pytest.mark.parametrize("house", ["sqlite", "postgres"], indirect=True)
async def test_the_same_ids_live_apart_in_two_tenants(siege: Siege) -> None:
    async def twins(repo: SessionRepository) -> None:
        for id_ in siege.theirs.ids:
            await repo.create(new(id=id_, title=TITLE))
            await repo.add_messages_to_session(id_, [message("twin")] * 3, client_ids=CLIENT_IDS)

    assert await siege.attempt("create", twins) == ""
    for name in sorted(BY_ID, key=lambda name: name == "delete"):
        for call in BY_ID[name]:
            for id_ in siege.theirs.ids[:2]:
                await siege.attempt(name, call, id_, look=False)
        await siege.compare(name)
    for id_ in siege.theirs.ids:
        await siege.observe("append", write, siege.house.service, SECOND, id_, [*CLIENT_IDS, None])


async def test_a_writer_appends_to_the_tenants_own_sessions_only(siege: Siege) -> None:
    for id_ in (*siege.theirs.ids, uuid4()):
        answers: list[Any] = []

        async def append(id_: UUID = id_, answers: list[Any] = answers) -> list[Any]:
            answers += await write(siege.house.service, SECOND, id_, [*CLIENT_IDS, None, "new"])
            return answers

        await siege.observe("append", append)
        assert [type(each) for each in answers] == [SessionNotFoundError] * 17
        assert {str(each).replace(str(id_), "") for each in answers} == {str(answers[0]).replace(str(id_), "")}


async def test_lists_sums_contexts_and_batches_are_the_tenants_own(siege: Siege) -> None:
    for name, calls in OTHERWISE.items():
        if name not in {"import_user", "erase_user"}:
            for call in calls:
                await siege.attempt(name, call, siege.theirs)
    await _change_contexts(siege)
    await _append_together(siege)
    for call in OTHERWISE["erase_user"]:
        await siege.attempt("erase_user", call, siege.theirs)


async def _append_together(siege: Siege) -> None:
    async with siege.house.service.session() as db:
        own = (await SessionRepository(db, SECOND).create(new())).id

    async def together() -> list[Any]:
        async with SessionWriter(siege.house.service, tenant_id=FIRST) as writer:
            appends = [
                writer.append(id_, message("written"), client_id=client_id, tenant_id=SECOND)
                for id_ in (own, *siege.theirs.ids)
                for client_id in (*CLIENT_IDS, None)
            ]
            return [*await asyncio.gather(*appends, return_exceptions=True), writer.metrics()]

    await siege.observe("append", together)
    async with siege.house.service.session() as db:
        assert [each.content for each in await SessionRepository(db, SECOND).get_messages(own)] == ["written"] * 4


async def _change_contexts(siege: Siege) -> None:
    store = SessionContextStore(siege.house.service.session, tenant_id=SECOND)
    contexts = SessionContexts(siege.house.service.session, SECOND)
    for id_ in siege.theirs.ids:
        for name, calls in STORE.items():
            for call in calls:
                await siege.observe(f"store.{name}", call, store, id_, look=False)
        for name, changes in CONTEXTS.items():
            for change in changes:
                await siege.observe(f"contexts.{name}", change, contexts, id_, look=False)


@pytest.mark.parametrize("house", ["sqlite", "postgres"], indirect=True)
async def test_both_tenants_may_share_a_session_of_the_database(siege: Siege) -> None:
    """The objects that one tenant loaded are not the other's, though SQLAlchemy keeps them side by side."""
    async with siege.house.service.session() as db:
        first, second = SessionRepository(db, FIRST), SessionRepository(db, SECOND)
        loaded = await first.get_session_with_messages(siege.theirs.session)
        before = spelled(loaded)
        calls = [(name, call) for name, each in BY_ID.items() for call in each]
        for name, call in calls:
            try:
                told = await call(second, siege.theirs.session)
            except AgentServiceError as exc:
                told = exc
            assert leaked(told) == [], name
            assert spelled(loaded) == before, name
        for attack in [*CREATE, *UPDATE]:
            try:
                async with db.begin_nested():
                    await attack(second, siege.theirs)
            except (AgentServiceError, SQLAlchemyError):  # a flush of the caller's own raises what SQLAlchemy raises
                continue
            finally:
                assert spelled(loaded) == before
        with pytest.raises(SessionNotFoundError):
            await second.update(loaded)  # type: ignore[arg-type]
        with pytest.raises((SessionValueError, SessionConflictError)):
            await second.create(loaded)  # type: ignore[arg-type]
        assert spelled(loaded) == before


@pytest.mark.parametrize("house", ["sqlite", "postgres"], indirect=True)
async def test_a_session_that_is_its_own_ancestor_cannot_be_made(house: House) -> None:
    id_ = uuid4()
    own_parent: list[Any_] = [
        lambda repo, _: repo.create(new(id=id_, parent_session_id=id_, fork_seq=1, last_seq=1)),
        lambda repo, _: _circle(repo),
    ]
    for attack in own_parent:
        async with house.service.session() as db:
            repo = SessionRepository(db, SECOND)
            with pytest.raises(SessionValueError, match="parent_session_id"):
                await attack(repo, None)  # type: ignore[arg-type]
            await db.rollback()
            async with asyncio.timeout(30):
                await everything_shown(db, SECOND)


async def _circle(repo: SessionRepository) -> None:
    one = await repo.create(new())
    await repo.add_message_to_session(one.id, message("x"))
    two = await repo.fork(one.id, 1)
    one.parent_session_id, one.fork_seq = two.id, 1
    await repo.update(one)
    await repo._db.flush()


DRIVEN: dict[type, set[str]] = {
    SessionRepository: {*BY_ID, *OTHERWISE, "create", "update"},
    SessionWriter: {"append", "append_many", "close", "for_tenant", "metrics"},
    TenantWriter: {"append", "append_many"},
    SessionContextStore: {*STORE, "aclose"},
    SessionContexts: set(CONTEXTS),
}


@pytest.mark.parametrize("owner", DRIVEN, ids=lambda owner: owner.__name__)
def test_every_public_method_is_driven_here(owner: type) -> None:
    methods = {name for name, _ in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}

    assert [f"no drive for {owner.__name__}.{name}" for name in sorted(methods - DRIVEN[owner])] == []
    assert DRIVEN[owner] <= methods


NOT_DRIVEN = {
    "Batch": "what one statement appends, made by the repository and the writer",
    "Line": "what waits of a tenant, inside of the writer",
    "SessionKey": "a parameter of statements",
    "Trigger": "an answer",
    "DeadTrigger": "an answer",
    "Branch": "a parameter of statements",
    "Listing": "what a saver reads a listing with",
    "AgentService": "asks the application for the tenant of a request",
    "Append": "stores events, inside of AdkSessionService",
    "Owner": "an answer",
    "Owners": "returns the tenant of a run",
}
DRIVEN_ELSEWHERE = {
    "AdkMemoryService": "tests/integrations/adk/test_memory.py",
    "AdkSessionService": "tests/integrations/adk/test_contract.py",
    "Options": "tests/integrations/importing/test_tenants.py",
    "AgentServiceSaver": "tests/integrations/langgraph/test_saver.py",
    "TriggerRunner": "tests/tenants/test_canary.py",
    "ConversationTable": "tests/integrations/pydantic_ai/test_store.py",
    "DatabaseConversationStore": "tests/integrations/pydantic_ai/test_store.py",
    **dict.fromkeys(
        (each.__name__ for each in DatabaseSession.__mro__), "tests/integrations/openai_agents/test_tenants.py"
    ),
    "Caller": "tests/integrations/fastapi/rest/test_access.py",
    "AgentServiceStore": "tests/integrations/langgraph/test_store_tenants.py",
    "ItemTransactions": "tests/integrations/langgraph/test_store_tenants.py",
}


def test_every_class_that_works_for_a_tenant_is_known_here() -> None:
    known = {*NOT_DRIVEN, *DRIVEN_ELSEWHERE, *(owner.__name__ for owner in DRIVEN)}
    found = {
        each.__name__
        for each in _classes()
        if not each.__name__.startswith("_")
        and TenantCache not in each.__mro__  # driven in tests/tenants/test_canary.py, found there in the same way
        and not any(each in owner.__mro__ for owner in DRIVEN)
        and any(name in {"tenant", "tenants", "tenant_id"} for name in _parameters(each))
    }

    assert [f"no drive for {name}" for name in sorted(found - known)] == []


def _classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(agent_service.__path__, "agent_service."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for _, each in inspect.getmembers(loaded, inspect.isclass):
            if each.__module__ == module.name and not is_typeddict(each):
                yield each


def _parameters(owner: type) -> list[str]:
    try:
        return list(inspect.signature(owner).parameters)
    except (TypeError, ValueError):
        return []
