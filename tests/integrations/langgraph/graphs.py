"""Graphs of many kinds, and what can be seen of their runs: the same for every checkpointer that works."""

import operator
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt

Saver = BaseCheckpointSaver[str]
Scenario = Callable[[Saver, str], Awaitable[Any]]


def config(thread_id: str) -> Any:
    """Return the config of a thread."""
    return {"configurable": {"thread_id": thread_id}}


def shown(value: Any) -> Any:
    """Return what is the same in every run: without ids that each run makes."""
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items() if name not in {"id", "ns", "checkpoint_id", "ts"}}
    if isinstance(value, list | tuple):
        return [shown(each) for each in value]
    if hasattr(value, "model_dump"):
        return shown(value.model_dump())
    return value.value if type(value).__name__ == "Interrupt" else value


async def history(graph: Any, thread_id: str) -> list[Any]:
    """Return what can be seen of a thread's past."""
    return [
        (shown(each.values), each.next, each.metadata["source"], each.metadata["step"], shown(each.interrupts))
        async for each in graph.aget_state_history(config(thread_id))
    ]


class Talk(TypedDict):
    """Messages, and what tools found."""

    messages: Annotated[list[AnyMessage], add_messages]
    found: Annotated[list[str], operator.add]


def _model(state: Talk) -> dict[str, Any]:
    last = state["messages"][-1]
    if isinstance(last, HumanMessage):
        calls = [{"name": "timetable", "args": {"to": place}, "id": f"call {place}"} for place in ("Bergen", "Oslo")]
        return {"messages": [AIMessage("", tool_calls=calls, id=f"asks {len(state['messages'])}")]}
    return {"messages": [AIMessage(f"Found {len(state['found'])}.", id=f"says {len(state['messages'])}")]}


def _to_tools(state: Talk) -> list[Send] | str:
    last = state["messages"][-1]
    return [Send("tool", call) for call in last.tool_calls] if isinstance(last, AIMessage) and last.tool_calls else END


def _tool(call: Any) -> dict[str, Any]:
    answer = ToolMessage(f"16:05 to {call['args']['to']}", tool_call_id=call["id"], id=f"of {call['id']}")
    return {"messages": [answer], "found": [call["args"]["to"]]}


async def tools(saver: Saver, thread_id: str) -> Any:
    """Two turns of an agent, each with two tool calls side by side."""
    builder: Any = StateGraph(Talk)
    builder.add_node("model", _model)
    builder.add_node("tool", _tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges("model", _to_tools, ["tool", END])
    builder.add_edge("tool", "model")
    graph = builder.compile(checkpointer=saver)
    seen = []
    for turn in range(2):
        given = {"messages": [HumanMessage("When does it leave?", id=f"turn {turn}")]}
        stream = graph.astream(given, config(thread_id), stream_mode=["updates", "values", "checkpoints"])
        seen.append(
            sorted(str(shown(each)) for each in [(mode, data) async for mode, data in stream if mode == "values"])
        )
    return seen, await history(graph, thread_id)


class Steps(TypedDict):
    """What nodes did."""

    log: Annotated[list[str], operator.add]


def _noting(name: str) -> Callable[[Steps], Steps]:
    return lambda _: {"log": [name]}


def _ask(_: Steps) -> Steps:
    first = interrupt("first?")
    second = interrupt("second?")
    return {"log": [f"{first} {second}"]}


async def asking(saver: Saver, thread_id: str) -> Any:
    """A node that asks twice beside one that does not, each answer in a run of its own."""
    builder: Any = StateGraph(Steps)
    for name, node in (("before", _noting("before")), ("ask", _ask), ("beside", _noting("beside"))):
        builder.add_node(name, node)
    builder.add_edge(START, "before")
    builder.add_edge("before", "ask")
    builder.add_edge("before", "beside")
    graph = builder.compile(checkpointer=saver)
    seen = [shown(await graph.ainvoke({"log": ["in"]}, config(thread_id)))]
    for answer in ("one", "two"):
        state = await graph.aget_state(config(thread_id))
        seen.append((sorted(state.next), shown(state.interrupts)))
        seen.append(shown(await graph.ainvoke(Command(resume=answer), config(thread_id))))
    return seen, await history(graph, thread_id)


async def subgraphs(saver: Saver, thread_id: str) -> Any:
    """A subgraph that keeps a state of its own, and asks."""
    inner: Any = StateGraph(Steps)
    inner.add_node("ask", lambda state: {"log": [f"{interrupt('inner?')} after {len(state['log'])}"]})
    inner.add_edge(START, "ask")
    outer: Any = StateGraph(Steps)
    outer.add_node("first", _noting("first"))
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_edge(START, "first")
    outer.add_edge("first", "inner")
    graph = outer.compile(checkpointer=saver)
    seen: list[Any] = []
    for turn in range(2):
        stream = graph.astream({"log": [f"in {turn}"]}, config(thread_id), stream_mode="values", subgraphs=True)
        seen.append([(len(path), shown(data)) async for path, data in stream])
        state = await graph.aget_state(config(thread_id), subgraphs=True)
        seen.append((state.next, [shown(task.state.values) for task in state.tasks if task.state]))
        seen.append(shown(await graph.ainvoke(Command(resume=f"answer {turn}"), config(thread_id))))
    return seen, await history(graph, thread_id)


def _chain(saver: Saver, names: Sequence[str] = ("a", "b", "c")) -> Any:
    builder: Any = StateGraph(Steps)
    for before, name in zip((START, *names), names, strict=False):
        builder.add_node(name, _noting(name))
        builder.add_edge(before, name)
    return builder.compile(checkpointer=saver)


async def time_travel(saver: Saver, thread_id: str) -> Any:
    """A run again from a checkpoint of the past, and one from a state that was changed there."""
    graph = _chain(saver)
    seen = [shown(await graph.ainvoke({"log": ["in"]}, config(thread_id)))]
    past = [each async for each in graph.aget_state_history(config(thread_id))]
    before_b = next(each for each in past if each.next == ("b",))
    seen.append(shown(await graph.ainvoke(None, before_b.config)))
    forked = await graph.aupdate_state(before_b.config, {"log": ["changed"]}, as_node="a")
    seen.append(shown((await graph.aget_state(forked)).values))
    seen.append(shown(await graph.ainvoke(None, forked)))
    await graph.aupdate_state(config(thread_id), {"log": ["edited"]})
    seen.append(shown((await graph.aget_state(config(thread_id))).values))
    return seen, await history(graph, thread_id)


def _append(state: list[str] | None, writes: Sequence[list[str]]) -> list[str]:
    return [*(state or ()), *chain.from_iterable(writes)]


class Journal(TypedDict):
    """A log whose value is rebuilt from what was written to it."""

    log: Annotated[list[str], DeltaChannel(_append, snapshot_frequency=3)]
    rounds: int


def journal(saver: Saver) -> Any:
    """Return a graph whose branches write to a DeltaChannel side by side, in each of several rounds.

    The branches do not wait for each other by a barrier: with durability "async" the framework changes the set of a
    barrier before it is saved, so that what a saver on disk is given differs.
    """
    builder: Any = StateGraph(Journal)
    builder.add_node("start", lambda state: {"rounds": state.get("rounds", 0) + 1})
    for name in ("left", "right"):
        builder.add_node(name, lambda state, name=name: {"log": [f"{name} {state['rounds']}"]})
        builder.add_edge("start", name)
        builder.add_edge(name, "end")
    builder.add_node("end", lambda state: {"log": [f"end {state['rounds']}"]})
    builder.add_edge(START, "start")
    builder.add_conditional_edges("end", lambda state: "start" if state["rounds"] % 3 else END, ["start", END])
    return builder.compile(checkpointer=saver)


def durably(durability: Any) -> Scenario:
    """Return the scenario of DeltaChannels, with a durability."""

    async def deltas(saver: Saver, thread_id: str) -> Any:
        graph = journal(saver)
        seen: list[Any] = []
        for turn in range(2):
            given = {"log": [f"in {turn}"]}
            seen.append(shown(await graph.ainvoke(given, config(thread_id), durability=durability)))
        past = [each async for each in graph.aget_state_history(config(thread_id))]
        forked = await graph.aupdate_state(past[len(past) // 2].config, {"log": ["changed"]}, as_node="end")
        seen.append(shown((await graph.aget_state(forked)).values))
        seen.append(shown(await graph.ainvoke(None, forked, durability=durability)))
        return seen, await history(graph, thread_id)

    return deltas


SCENARIOS: dict[str, Scenario] = {
    "tools": tools,
    "asking": asking,
    "subgraphs": subgraphs,
    "time travel": time_travel,
    **{f"deltas, {durability}": durably(durability) for durability in ("sync", "async", "exit")},
}
