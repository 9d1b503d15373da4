"""ADK's Runner with a scripted model: what is stored here is what its service in memory holds. On both engines."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.adk.agents import run_config
from google.adk.apps import App
from google.adk.apps.app import EventsCompactionConfig, ResumabilityConfig
from google.adk.events.event import Event
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, InMemorySessionService
from google.adk.tools.load_memory_tool import load_memory_tool
from google.genai import types

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkMemoryService, AdkSessionService
from tests.integrations.adk.said import APP, USER, texts
from tests.integrations.adk.scripted import ScriptedLlm, agent, calls, text

pytestmark = pytest.mark.filterwarnings(r"ignore:\[EXPERIMENTAL\]:UserWarning")

Scenario = Callable[[BaseSessionService], Awaitable[Any]]


@asynccontextmanager
async def running(service: BaseSessionService, root: Any, **app: Any) -> AsyncIterator[Runner]:
    await service.create_session(app_name=APP, user_id=USER, session_id="s1", state={"user:lang": "en"})
    async with Runner(app=App(name=APP, root_agent=root, **app), session_service=service) as runner:
        yield runner


async def turn(runner: Runner, said: str | types.Content, **options: Any) -> list[Event]:
    message = types.UserContent(said) if isinstance(said, str) else said
    given = runner.run_async(user_id=USER, session_id="s1", new_message=message, **options)
    return [event async for event in given]


async def with_tools(service: BaseSessionService) -> None:
    root = agent(calls(("timetable", {"to": "Bergen"})), text("At 16:05."), output_key="answer")
    async with running(service, root) as runner:
        await turn(runner, "When does it leave?")


async def with_parallel_tools(service: BaseSessionService) -> None:
    towns = ["Bergen", "Oslo", "Voss"]
    root = agent(calls(*(("timetable", {"to": town}) for town in towns)), text("All at 16:05."))
    async with running(service, root) as runner:
        await turn(runner, "When do they leave?")


async def interrupted_by_a_person(service: BaseSessionService) -> None:
    """The invocation pauses at a long-running tool; another runner goes on, with what is stored."""
    app = {"resumability_config": ResumabilityConfig(is_resumable=True)}
    root = agent(calls(("approve", {"ticket": "t1"})))
    async with running(service, root, **app) as runner:
        events = await turn(runner, "May I?")
    (call,) = [event for event in events if event.long_running_tool_ids]
    (call_id,) = list(call.long_running_tool_ids or ())
    answer = types.FunctionResponse(id=call_id, name="approve", response={"status": "approved"})
    async with Runner(app=App(name=APP, root_agent=agent(text("You may.")), **app), session_service=service) as later:
        message = types.Content(role="user", parts=[types.Part(function_response=answer)])
        await turn(later, message, invocation_id=call.invocation_id)


async def streamed(service: BaseSessionService) -> None:
    root = agent([text("At "), text("16"), text(":05.")])
    async with running(service, root) as runner:
        config = run_config.RunConfig.model_validate({"streaming_mode": "sse"})
        events = await turn(runner, "When?", run_config=config)
        assert [event.partial for event in events] == [True, True, True, None]


async def handed_off(service: BaseSessionService) -> None:
    """The root transfers to a sub-agent, which also answers the next message."""
    clerk = agent(text("Clerk here."), text("Still here."), name="clerk", description="Sells tickets")
    root = agent(calls(("transfer_to_agent", {"agent_name": "clerk"})), sub_agents=[clerk])
    async with running(service, root) as runner:
        await turn(runner, "A ticket, please")
        await turn(runner, "Are you there?")


async def rewound(service: BaseSessionService) -> None:
    """State goes back, what was said stays stored, and the model does not see it any more."""
    root = agent(text("One."), calls(("timetable", {"to": "Bergen"})), text("Two."), text("Three."))
    async with running(service, root) as runner:
        await turn(runner, "first")
        events = await turn(runner, "second")
        await runner.rewind_async(user_id=USER, session_id="s1", rewind_before_invocation_id=events[0].invocation_id)
        await turn(runner, "third")
        model = root.model
        assert isinstance(model, ScriptedLlm)
        seen = [part.text for content in model.asked[-1].contents for part in content.parts or ()]
        assert seen == ["first", "One.", "third"]


async def compacted(service: BaseSessionService) -> None:
    """After two invocations the model is asked for a summary, and sees that in place of what it sums up."""
    root = agent(text("One."), text("Two."), text("A summary."), text("Three."))
    config = EventsCompactionConfig(compaction_interval=2, overlap_size=0)
    async with running(service, root, events_compaction_config=config) as runner:
        for said in ("first", "second", "third"):
            await turn(runner, said)
        model = root.model
        assert isinstance(model, ScriptedLlm)
        seen = [part.text for content in model.asked[-1].contents for part in content.parts or ()]
        assert "A summary." in "".join(filter(None, seen))
        assert "first" not in seen


SCENARIOS = [
    with_tools, with_parallel_tools, interrupted_by_a_person, streamed, handed_off, rewound, compacted,
]  # fmt: skip


async def outcome(service: BaseSessionService) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """What a service holds, without the names and moments that no two runs share."""
    session = await service.get_session(app_name=APP, user_id=USER, session_id="s1")
    assert session is not None
    invocations: dict[str, int] = {}

    def plain(event: Event) -> dict[str, Any]:
        dumped: dict[str, Any] = event.model_dump(mode="json", exclude={"id", "timestamp", "invocation_id"})
        actions = dumped["actions"]
        if actions.get("compaction"):
            actions["compaction"] = actions["compaction"]["compacted_content"]
        rewound_before = actions.pop("rewind_before_invocation_id", None)
        number = invocations.setdefault(event.invocation_id, len(invocations))
        return {**dumped, "invocation": number, "rewound": invocations.get(rewound_before or "")}

    events = [plain(event) for event in session.events]
    assert session.last_update_time == session.events[-1].timestamp
    return events, session.state, await service.get_user_state(app_name=APP, user_id=USER)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
async def test_a_run_leaves_what_it_leaves_in_memory(service: AdkSessionService, scenario: Scenario):
    reference = InMemorySessionService()
    await scenario(reference)

    await scenario(service)

    expected = await outcome(reference)
    assert await outcome(service) == expected
    assert not any(event["partial"] for event in expected[0])


async def test_agents_remember_sessions_that_were_added(service: AdkSessionService, database: DatabaseManager):
    memory = AdkMemoryService(database)
    async with Runner(
        app=App(name=APP, root_agent=agent(text("The ferry leaves at 9."))),
        session_service=service, memory_service=memory, auto_create_session=True,
    ) as first:  # fmt: skip
        await turn(first, "When is the ferry?")
    session = await service.get_session(app_name=APP, user_id=USER, session_id="s1")
    assert session is not None
    await memory.add_session_to_memory(session)

    root = agent(calls(("load_memory", {"query": "ferry"})), text("At 9."), tools=[load_memory_tool])
    async with Runner(
        app=App(name=APP, root_agent=root), session_service=service, memory_service=memory, auto_create_session=True
    ) as second:
        given = second.run_async(user_id=USER, session_id="s2", new_message=types.UserContent("The ferry?"))
        events = [event async for event in given]

    found = events[1].get_function_responses()[0].response
    assert found is not None
    assert "The ferry leaves at 9." in str(found)
    assert "The ferry?" not in str(found)  # this conversation is no part of the memory yet
    assert texts(session) == ["When is the ferry?", "The ferry leaves at 9."]
