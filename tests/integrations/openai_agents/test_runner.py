"""Whole runs of the SDK with a scripted model: the same items as in the SDK's own session, on both engines."""

from dataclasses import dataclass
from typing import Any

import pytest
from agents import (
    Agent,
    InputGuardrailTripwireTriggered,
    ModelRetrySettings,
    ModelSettings,
    RunConfig,
    Runner,
    RunState,
    Session,
    SessionSettings,
    SQLiteSession,
    function_tool,
    handoff,
    input_guardrail,
)
from agents.guardrail import GuardrailFunctionOutput
from agents.run_internal.session_persistence import rewind_session_items
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.usage import Usage
from openai.types.responses.response_reasoning_item import ResponseReasoningItem, Summary

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.openai_agents import DatabaseSession, list_sessions
from tests.integrations.openai_agents.conftest import NewSession
from tests.integrations.openai_agents.samples import reply, said

QUIET = RunConfig(tracing_disabled=True)


@function_tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"snow in {city}"


@function_tool(needs_approval=True)
def delete_all() -> str:
    """Delete everything."""
    return "deleted"


@function_tool
def broken() -> str:
    """Fail."""
    raise ValueError("the tool failed")


def thinking(id_: str) -> ResponseReasoningItem:
    return ResponseReasoningItem(id=id_, type="reasoning", summary=[Summary(text="hm", type="summary_text")])


def calling(number: int, name: str = "weather", arguments: Any = None) -> Any:
    given = {"city": f"town {number}"} if arguments is None else arguments
    return function_call(name, given, call_id=f"call_{number}", item_id=f"fc_{number}")


def saying(text: str, number: int = 0) -> Any:
    return assistant_message(text, item_id=f"msg_{text}_{number}")


def agent_of(*steps: Any, **options: Any) -> Agent[Any]:
    tools = [weather, delete_all, broken]
    return Agent(**{"name": "assistant", "model": ScriptedModel(steps), "tools": tools, **options})


async def _two_turns(session: Session) -> None:
    agent = agent_of([saying("hello")], [saying("bye")])
    await Runner.run(agent, "Hi", session=session, run_config=QUIET)
    await Runner.run(agent, [said("one"), said("two")], session=session, run_config=QUIET)
    assert len(agent.model.last_call.input) == 4  # type: ignore[union-attr]


async def _tools(session: Session) -> None:
    agent = agent_of([thinking("rs_1"), calling(1)], [calling(2, "broken", {})], [saying("it snows")])
    await Runner.run(agent, "Weather?", session=session, run_config=QUIET)


async def _parallel_tools(session: Session) -> None:
    agent = agent_of([thinking("rs_1"), calling(1), calling(2), calling(3)], [saying("it snows")])
    await Runner.run(agent, "Weather?", session=session, run_config=QUIET)


async def _streaming(session: Session) -> None:
    agent = agent_of([thinking("rs_1"), calling(1), calling(2)], [saying("it snows")])
    result = Runner.run_streamed(agent, "Weather?", session=session, run_config=QUIET)
    assert [event async for event in result.stream_events()]


async def _approval(session: Session) -> None:
    agent = agent_of([calling(1, "delete_all", {}), calling(2)], [calling(3, "delete_all", {})], [saying("done")])
    result = await Runner.run(agent, "Delete", session=session, run_config=QUIET)
    while result.interruptions:
        state = await RunState.from_string(agent, result.to_state().to_string())
        for interruption in state.get_interruptions():
            state.approve(interruption) if len(await session.get_items()) < 5 else state.reject(interruption)
        result = await Runner.run(agent, state, session=session, run_config=QUIET)
    assert result.final_output == "done"


async def _handoff(session: Session) -> None:
    specialist = agent_of([calling(2)], [saying("it snows")], name="specialist")
    transfer = function_call("transfer_to_specialist", {}, call_id="call_t", item_id="fc_t")
    agent = agent_of([transfer], handoffs=[handoff(specialist)])
    await Runner.run(agent, "Weather?", session=session, run_config=QUIET)


async def _failing_model(session: Session) -> None:
    agent = agent_of([calling(1)], ValueError("no more tokens"), [saying("it snows")])
    with pytest.raises(ValueError, match="no more"):
        await Runner.run(agent, "Weather?", session=session, run_config=QUIET)
    await Runner.run(agent, "Again", session=session, run_config=QUIET)


async def _retrying(session: Session) -> None:
    failing = ModelStep.raise_error(ConnectionError("reset"))
    retry = ModelRetrySettings(max_retries=1, policy=lambda _: True, backoff={"initial_delay": 0})
    agent = agent_of([saying("hello")], failing, [saying("it snows")], model_settings=ModelSettings(retry=retry))
    await Runner.run(agent, "Hi", session=session, run_config=QUIET)
    await Runner.run(agent, "Weather?", session=session, run_config=QUIET)


async def _guardrail(session: Session) -> None:
    @input_guardrail(run_in_parallel=False)
    async def refuse(_context: Any, _agent: Any, _given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    agent = agent_of([saying("never")], input_guardrails=[refuse])
    with pytest.raises(InputGuardrailTripwireTriggered):
        await Runner.run(agent, "Bad words", session=session, run_config=QUIET)


async def _limit_and_callback(session: Session) -> None:
    agent = agent_of([calling(1)], [saying("a")], [saying("b")], [saying("c")])
    await Runner.run(agent, "Hi", session=session, run_config=QUIET)
    limited = RunConfig(tracing_disabled=True, session_settings=SessionSettings(limit=2))
    await Runner.run(agent, "Next", session=session, run_config=limited)
    assert [item.get("content") for item in agent.model.last_call.input][-1] == "Next"  # type: ignore[union-attr]
    merged = RunConfig(tracing_disabled=True, session_input_callback=lambda history, new: history[-1:] + new)
    await Runner.run(agent, [said("Last")], session=session, run_config=merged)
    assert len(agent.model.last_call.input) == 2  # type: ignore[union-attr]


RUNS = [
    _two_turns, _tools, _parallel_tools, _streaming, _approval, _handoff, _failing_model, _retrying, _guardrail,
    _limit_and_callback,
]  # fmt: skip


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__.strip("_"))
async def test_a_run_leaves_what_it_leaves_in_the_sdks_own_session(
    new: NewSession, database: DatabaseManager, run: Any
) -> None:
    theirs = SQLiteSession("chat")
    await run(theirs)
    expected = await theirs.get_items()
    theirs.close()

    await run(new())

    assert expected or run is _guardrail
    assert await new().get_items() == expected
    async with SessionWriter(database) as writer:
        await run(new("by a writer", writer=writer))
    assert await new("by a writer").get_items() == expected


async def test_an_answer_that_waits_for_approval_is_no_whole_turn_yet(new: NewSession) -> None:
    agent = agent_of([thinking("rs_1"), calling(1, "delete_all", {})], [saying("done")])
    session = new()
    result = await Runner.run(agent, "Delete", session=session, run_config=QUIET)

    assert await session.get_items(whole_turns=True) == [said("Delete")]
    assert [item.get("type") for item in await session.get_items()] == [None, "reasoning", "function_call"]
    state = result.to_state()
    state.approve(state.get_interruptions()[0])
    await Runner.run(agent, state, session=session, run_config=QUIET)
    assert await session.get_items(whole_turns=True) == await session.get_items()


async def test_the_runner_takes_back_by_pop_what_it_has_to_send_again(new: NewSession) -> None:
    session, sent = new(), [said("Weather?"), said("Now!")]
    await session.add_items([said("Hi"), reply("hello", "msg_1"), *sent])

    await rewind_session_items(session, sent)
    assert await session.get_items() == [said("Hi"), reply("hello", "msg_1")]

    await session.add_items([*sent, said("of somebody else")])
    await rewind_session_items(session, sent)
    assert await session.get_items(3) == [*sent, said("of somebody else")]


@dataclass
class Asking:
    """What a service gives its runs as their context."""

    tenant: str
    user: str


async def test_tenant_and_user_come_from_the_context_of_the_run(database: DatabaseManager) -> None:
    session = DatabaseSession(
        "chat", user_id=lambda each: each.user, tenant_id=lambda each: each.tenant, database=database
    )
    agent = agent_of([saying("a")], [calling(1)], [saying("b")])
    await Runner.run(agent, "Hi", context=Asking("acme", "ada"), session=session, run_config=QUIET)
    await Runner.run(agent, "Ho", context=Asking("other", "bob"), session=session, run_config=QUIET)

    acme = DatabaseSession("chat", user_id="ada", tenant_id="acme", database=database)
    other = DatabaseSession("chat", user_id="bob", tenant_id="other", database=database)
    assert next(item.get("content") for item in await acme.get_items()) == "Hi"
    assert [item.get("type") for item in await other.get_items()] == [
        None, "function_call", "function_call_output", "message",
    ]  # fmt: skip
    assert (await list_sessions("ada", database=database)).items == []
    with pytest.raises(SessionValueError, match="user_id comes from the context of a run, and this call has none"):
        await session.get_items()


async def test_a_context_that_names_nobody_is_refused_before_anything_is_stored(database: DatabaseManager) -> None:
    session = DatabaseSession("chat", user_id=lambda each: each["user"], database=database)

    with pytest.raises(SessionValueError, match="user_id must have 1 to 255 characters"):
        await Runner.run(agent_of([saying("a")]), "Hi", context={"user": ""}, session=session, run_config=QUIET)

    assert (await list_sessions("ada", database=database)).items == []


async def test_usage_of_a_run_is_noted_once_however_often_it_is_recorded(new: NewSession) -> None:
    session = new()
    usage = Usage(requests=1, input_tokens=10, output_tokens=3, total_tokens=13)
    usage.input_tokens_details.cached_tokens = 4
    usage.output_tokens_details.reasoning_tokens = 2
    steps = [
        ModelStep(output=[calling(1, "delete_all", {})], usage=usage, response_id="resp_1"),
        ModelStep(output=[saying("done")], usage=usage, response_id="resp_2"),
        ModelStep(output=[saying("bye")], usage=usage, response_id="resp_3"),
    ]
    agent = agent_of(*steps)
    result = await Runner.run(agent, "Delete", session=session, run_config=QUIET)
    first = await session.record_usage(result)
    assert (first.turn, first.usage.requests, first.usage.total_tokens) == ("resp_1", 1, 13)
    state = result.to_state()
    state.approve(state.get_interruptions()[0])
    for _ in range(2):
        result = await Runner.run(agent, state, session=session, run_config=QUIET) if _ == 0 else result
        second = await session.record_usage(result)
    third = await session.record_usage(await Runner.run(agent, "Bye", session=session, run_config=QUIET))

    noted = await new().usage()
    assert [(each.turn, each.usage.requests) for each in noted.turns] == [("resp_1", 2), ("resp_3", 1)]
    assert [each.seq for each in noted.turns] == [second.seq, third.seq] == [4, 6]
    total = noted.total
    assert (total.requests, total.input_tokens, total.cached_tokens) == (3, 30, 12)
    assert (total.output_tokens, total.reasoning_tokens, total.total_tokens) == (9, 6, 39)
