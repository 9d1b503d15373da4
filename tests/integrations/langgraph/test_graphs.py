"""Compiled graphs run as they do with LangGraph's saver in memory, step by step."""

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from agent_service.integrations.langgraph.saver import AgentServiceSaver
from tests.integrations.langgraph.graphs import SCENARIOS, config, journal, shown


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_graph_runs_as_with_a_saver_in_memory(saver: AgentServiceSaver, name: str) -> None:
    expected = await SCENARIOS[name](InMemorySaver(), "thread")

    assert await SCENARIOS[name](saver, "thread") == expected


async def test_a_pruned_thread_keeps_what_its_delta_channels_are_rebuilt_from(saver: AgentServiceSaver) -> None:
    graph = journal(saver)
    for turn in range(2):
        await graph.ainvoke({"log": [f"in {turn}"]}, config("thread"))
    before = shown((await graph.aget_state(config("thread"))).values)
    count = len([each async for each in saver.alist(config("thread"))])

    await saver.aprune(["thread"])

    left = [each async for each in saver.alist(config("thread"))]
    assert 1 < len(left) < count / 2
    assert shown((await graph.aget_state(config("thread"))).values) == before
    after = await graph.ainvoke({"log": ["next"]}, config("thread"))
    assert after["log"][: len(before["log"])] == before["log"]


async def test_a_copy_and_its_source_go_their_own_ways(saver: AgentServiceSaver) -> None:
    graph = journal(saver)
    await graph.ainvoke({"log": ["in"]}, config("source"))

    await saver.acopy_thread("source", "copy")
    await graph.ainvoke({"log": ["on in the source"]}, config("source"))
    await graph.ainvoke({"log": ["on in the copy"]}, config("copy"))
    await saver.acopy_thread("copy", "copy of the copy")
    await saver.adelete_thread("source")

    copied = (await graph.aget_state(config("copy"))).values["log"]
    assert "on in the copy" in copied
    assert "on in the source" not in copied
    assert (await graph.aget_state(config("copy of the copy"))).values["log"] == copied
    await saver.aprune(["copy"])
    assert (await graph.aget_state(config("copy"))).values["log"] == copied
    assert (await graph.aget_state(config("copy of the copy"))).values["log"] == copied
