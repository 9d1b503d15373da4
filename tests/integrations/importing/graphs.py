"""Threads in LangGraph's own savers, made by graphs that run, and what those savers say of them."""

import operator
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict
from uuid import UUID

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Command, Send, interrupt

__all__ = ["Part", "fill_threads", "saver_of", "tuples_of"]


@dataclass
class Part:
    """A class of the graph's own."""

    name: str
    size: int


class State(TypedDict, total=False):
    """State with values of every kind."""

    messages: Annotated[list[AnyMessage], add_messages]
    parts: Annotated[list[Any], operator.add]
    who: str
    count: int
    done: bool
    nothing: None


class Inner(TypedDict):
    """State of a subgraph."""

    count: int


def think(state: State) -> dict[str, Any]:
    """Answer with values that are no JSON."""
    parts = [
        Part("wheel", 3),
        UUID(int=7),
        datetime(2026, 1, 2, tzinfo=UTC),
        {"a", "b", "c", "d"},
        frozenset(range(4)),
        frozenset("abcd"),
        b"\x00\xff",
        1.5,
        None,
    ]
    return {"messages": [AIMessage("At 16:05.", id=f"a{len(state['messages'])}")], "parts": parts, "done": False}


def send(state: State) -> list[Send]:
    """Have several tasks work at once."""
    return [Send("work", {"count": number}) for number in range(3)]


def work(state: Inner) -> dict[str, Any]:
    """Write one part."""
    return {"parts": [state["count"]]}


def ask(state: State) -> dict[str, Any]:
    """Interrupt, and use the answer."""
    return {"who": interrupt({"question": "who?"}), "done": True}


def graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """Return a graph with parallel tasks, a subgraph and an interrupt."""
    inner = StateGraph(Inner)
    inner.add_node("add", lambda state: {"count": state["count"] + 1})
    inner.add_edge(START, "add")
    inner.add_edge("add", END)
    outer = StateGraph(State)
    outer.add_node("think", think)
    outer.add_node("work", work)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_node("ask", ask)
    outer.add_edge(START, "think")
    outer.add_conditional_edges("think", send, ["work"])
    outer.add_edge("work", "inner")
    outer.add_edge("inner", "ask")
    outer.add_edge("ask", END)
    return outer.compile(checkpointer=saver)


@asynccontextmanager
async def saver_of(url: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    """LangGraph's own saver for the engine of a URL."""
    if url.startswith("postgresql"):
        async with AsyncPostgresSaver.from_conn_string(url.replace("+asyncpg", "")) as postgres:
            await postgres.setup()
            yield postgres
    else:
        async with AsyncSqliteSaver.from_conn_string(url.partition("///")[2]) as sqlite:
            await sqlite.setup()
            yield sqlite


async def fill_threads(url: str, threads: Iterable[str], *, turns: int = 1) -> None:
    """Run the graph: each turn is interrupted, and every second thread is resumed, forked and changed."""
    async with saver_of(url) as saver:
        compiled = graph(saver)
        for place, thread in enumerate(threads):
            config: Any = {"configurable": {"thread_id": thread, "user_id": "ada"}}
            for number in range(turns):
                question = HumanMessage(f"Question {number}", id=f"q{number}")
                await compiled.ainvoke({"messages": [question], "count": number}, config)
                if place % 2 == 0:
                    await compiled.ainvoke(Command(resume="ada"), config)
                    history = [each async for each in compiled.aget_state_history(config)]
                    await compiled.aupdate_state(history[2].config, {"who": "bob"}, as_node="work")


async def tuples_of(saver: BaseCheckpointSaver[Any], threads: Iterable[str]) -> dict[str, list[CheckpointTuple]]:
    """Return all checkpoints of threads, of all namespaces, as a saver gives them, each also asked for by its id."""
    found = {}
    for thread in threads:
        listed = [each async for each in saver.alist({"configurable": {"thread_id": thread}})]
        for each in listed:
            assert await saver.aget_tuple(each.config) == each
        found[thread] = sorted(
            listed,
            key=lambda each: (
                each.config["configurable"]["checkpoint_ns"],
                each.config["configurable"]["checkpoint_id"],
            ),
        )
    return found
