"""A memory of the sessions that were added to it. On both engines."""

from datetime import datetime
from typing import Any

import pytest
from google.adk.events.event import Event
from google.adk.memory import InMemoryMemoryService
from google.adk.sessions.session import Session
from google.genai import types

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkMemoryService, AdkSessionService
from agent_service.integrations.adk.words import matched, words_of
from tests.integrations.adk.said import APP, USER, read, said


@pytest.fixture
def memory(database: DatabaseManager) -> AdkMemoryService:
    return AdkMemoryService(database)


async def told(service: AdkSessionService, *sayings: str, user: str = USER, app: str = APP) -> Session:
    session = await service.create_session(app_name=app, user_id=user)
    for saying in sayings:
        await service.append_event(session, said(saying))
    return session


async def found(memory: AdkMemoryService, query: str, user: str = USER, app: str = APP) -> list[str]:
    response = await memory.search_memory(app_name=app, user_id=user, query=query)
    return [part.text or "" for entry in response.memories for part in entry.content.parts or ()]


async def test_only_what_was_added_is_remembered(service: AdkSessionService, memory: AdkMemoryService):
    session = await told(service, "The ferry leaves at 9")
    await told(service, "A ferry that nobody added")
    assert await found(memory, "ferry") == []

    await memory.add_session_to_memory(session)
    await service.append_event(session, said("The next ferry at 10"))
    assert await found(memory, "ferry") == ["The ferry leaves at 9"]

    await memory.add_session_to_memory(session)
    assert await found(memory, "ferry") == ["The next ferry at 10", "The ferry leaves at 9"]
    await memory.add_session_to_memory(session)
    assert len(await found(memory, "ferry")) == 2


async def test_an_older_copy_adds_what_it_knows(service: AdkSessionService, memory: AdkMemoryService):
    session = await told(service, "The ferry leaves at 9")
    copy = session.model_copy(deep=True)
    await service.append_event(session, said("The next ferry at 10"))

    await memory.add_session_to_memory(copy)

    assert await found(memory, "ferry") == ["The ferry leaves at 9"]


async def test_most_words_come_first_and_ten_at_most(service: AdkSessionService, memory: AdkMemoryService):
    sayings = [f"Ferry number {number}" for number in range(12)]
    session = await told(service, "The last ferry to Voss", *sayings, "A train to Voss")
    await memory.add_session_to_memory(session)

    texts = await found(memory, "When does the last ferry leave for Voss?")

    assert texts[0] == "The last ferry to Voss"
    assert len(texts) == 10
    assert await found(memory, "a unicorn") == []


async def test_entries_say_who_said_it_and_when(service: AdkSessionService, memory: AdkMemoryService):
    session = await service.create_session(app_name=APP, user_id=USER)
    event = said("The ferry leaves at 9", author="clerk", timestamp=1_700_000_000.5)
    await service.append_event(session, event)
    await memory.add_session_to_memory(session)

    (entry,) = (await memory.search_memory(app_name=APP, user_id=USER, query="FERRY")).memories

    assert (entry.id, entry.author, entry.content) == (event.id, "clerk", event.content)
    assert entry.timestamp is not None
    assert datetime.fromisoformat(entry.timestamp).timestamp() == 1_700_000_000.5


async def test_memories_belong_to_an_app_a_user_and_a_tenant(
    service: AdkSessionService, memory: AdkMemoryService, database: DatabaseManager
):
    for user, app in ((USER, APP), ("bob", APP), (USER, "sales")):
        await memory.add_session_to_memory(await told(service, f"The ferry of {user} and {app}", user=user, app=app))

    assert await found(memory, "ferry") == ["The ferry of ada and support"]
    assert await found(memory, "ferry", user="bob") == ["The ferry of bob and support"]
    assert await found(memory, "ferry", app="sales") == ["The ferry of ada and sales"]
    assert await found(AdkMemoryService(database, tenant_id="acme"), "ferry") == []


async def test_a_deleted_session_is_forgotten(service: AdkSessionService, memory: AdkMemoryService):
    session = await told(service, "The ferry leaves at 9")
    await memory.add_session_to_memory(session)

    await service.delete_session(app_name=APP, user_id=USER, session_id=session.id)

    assert await found(memory, "ferry") == []


async def test_what_tools_do_is_no_memory(service: AdkSessionService, memory: AdkMemoryService):
    session = await told(service, "The ferry leaves at 9")
    call = types.Part(function_call=types.FunctionCall(id="c", name="ferry", args={"ferry": "ferry"}))
    await service.append_event(session, Event(author="agent", content=types.Content(role="model", parts=[call])))
    await memory.add_session_to_memory(session)

    assert await found(memory, "ferry") == ["The ferry leaves at 9"]


@pytest.mark.parametrize("moment", [1_800_000_000_000.0, 1e20, -1e20])
async def test_a_moment_outside_of_the_calendar_is_left_out(
    service: AdkSessionService, memory: AdkMemoryService, moment: float
):
    session = await told(service, "The ferry leaves at 9")
    await service.append_event(session, said("The last ferry leaves at 19", timestamp=moment))
    await memory.add_session_to_memory(session)

    entries = (await memory.search_memory(app_name=APP, user_id=USER, query="last ferry")).memories
    assert [each.timestamp is None for each in entries] == [True, False]


@pytest.mark.parametrize("nobody", [None, 5, "", "x" * 256, "a\x00", "\ud800"])
async def test_what_names_nobody_has_no_memories_and_no_sessions(
    service: AdkSessionService, memory: AdkMemoryService, nobody: Any
):
    await memory.add_session_to_memory(await told(service, "The ferry leaves at 9"))

    for names in ({"app_name": nobody, "user_id": USER}, {"app_name": APP, "user_id": nobody}):
        assert (await memory.search_memory(**names, query="ferry")).memories == []
        if nobody is not None:  # for ADK that is every user
            assert (await service.list_sessions(**names)).sessions == []


async def test_what_is_not_stored_here_cannot_be_added(memory: AdkMemoryService):
    with pytest.raises(SessionNotFoundError, match="same database"):
        await memory.add_session_to_memory(Session(id="s1", app_name=APP, user_id=USER))
    with pytest.raises(SessionValueError, match="query must be a string"):
        await memory.search_memory(app_name=APP, user_id=USER, query=b"ferry")  # type: ignore[arg-type]


@pytest.mark.parametrize("query", ["%", "_", "'", '"', "", "  ", "?!", "\x00", "a\x00b", "(", "AND OR NOT", "\\"])
async def test_any_query_may_be_asked(service: AdkSessionService, memory: AdkMemoryService, query: str):
    await memory.add_session_to_memory(await told(service, "The ferry leaves at 9"))

    assert await found(memory, query) == []


@pytest.mark.parametrize(
    "query",
    [
        "Python",
        "thon",
        "café",
        "caf",
        "私",
        "東京",
        "flights to 東京",
        "the Python",
        "PYTHON ferry",
        "it",
        "ferry ferries",
    ],
)
async def test_words_are_found_as_adk_finds_them(service: AdkSessionService, memory: AdkMemoryService, query: str):
    """The texts that ADK's own memory finds, for words that both look for."""
    sayings = ["私はPythonを使う", "I like Python", "A café by the ferry", "東京へのflight", "Let it be", "pythonic"]
    session = await told(service, *sayings)
    reference = InMemoryMemoryService()
    await reference.add_session_to_memory(await read(service, session))
    await memory.add_session_to_memory(session)

    expected = await reference.search_memory(app_name=APP, user_id=USER, query=query)

    telling = [
        part.text or ""
        for entry in expected.memories
        for part in entry.content.parts or ()
        if matched(words_of(query), (part.text or "").lower())
    ]
    assert sorted(await found(memory, query)) == sorted(telling)


def test_short_words_count_where_there_are_no_longer_ones():
    assert words_of("When is it?") == ["when"]
    assert words_of("Is it?") == ["is", "it"]
    assert words_of("a 東") == ["東"]
    assert len(words_of(" ".join(f"word{number}" for number in range(100)))) == 12
