"""A compiled graph that remembers with the store, and whose nodes are cached."""

import asyncio
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import CachePolicy
from typing_extensions import TypedDict

from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceCache, AgentServiceStore


class State(TypedDict):
    """What a person says, and what was answered."""

    user: str
    said: str
    answer: str


calls: list[str] = []


async def remember(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
    assert runtime.store is not None
    await runtime.store.aput(("memories", state["user"]), state["said"], {"text": state["said"]})
    return {}


def recall(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
    """Run in a thread beside the loop, so it calls the store synchronously."""
    assert runtime.store is not None
    found = runtime.store.search(("memories", state["user"]), query="pizza")
    return {"answer": ", ".join(each.value["text"] for each in found)}


def think(state: State) -> dict[str, Any]:
    calls.append(state["said"])
    return {"answer": state["said"].upper()}


def remembering() -> StateGraph[State]:
    graph = StateGraph(State)
    graph.add_node("remember", remember)
    graph.add_node("recall", recall)
    graph.add_edge(START, "remember")
    graph.add_edge("remember", "recall")
    graph.add_edge("recall", END)
    return graph


def thinking(ttl: int | None = None) -> StateGraph[State]:
    graph = StateGraph(State)
    graph.add_node("think", think, cache_policy=CachePolicy(ttl=ttl))
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    return graph


async def test_a_graph_remembers_across_runs_and_users_see_their_own(database: DatabaseManager) -> None:
    store = AgentServiceStore(database)
    graph = remembering().compile(store=store)

    await graph.ainvoke(State(user="ada", said="I like pizza", answer=""))
    await graph.ainvoke(State(user="bob", said="I hate pizza", answer=""))
    done = await asyncio.gather(*(graph.ainvoke(State(user="ada", said=f"fact {n}", answer="")) for n in range(10)))

    assert {each["answer"] for each in done} == {"I like pizza"}
    assert await store.alist_namespaces(prefix=("memories",)) == [("memories", "ada"), ("memories", "bob")]
    await store.aclose()


async def test_a_node_runs_once_for_each_input_until_its_cache_is_cleared() -> None:
    calls.clear()
    cache: AgentServiceCache[Any] = AgentServiceCache(InMemoryCache())
    graph = thinking().compile(cache=cache)
    begin = State(user="ada", said="hi", answer="")

    first, second = [await graph.ainvoke(begin) for _ in range(2)]
    assert first["answer"] == second["answer"] == "HI"
    assert calls == ["hi"]
    await graph.aclear_cache()
    await graph.ainvoke(begin)
    assert calls == ["hi", "hi"]


def test_a_graph_without_a_loop_uses_the_cache_too() -> None:
    calls.clear()
    cache: AgentServiceCache[Any] = AgentServiceCache()
    graph = thinking(ttl=60).compile(cache=cache)

    for _ in range(2):
        assert graph.invoke(State(user="ada", said="hi", answer=""))["answer"] == "HI"
    assert calls == ["hi"]
    graph.clear_cache()
    graph.invoke(State(user="ada", said="hi", answer=""))
    assert calls == ["hi", "hi"]
    cache.close()
