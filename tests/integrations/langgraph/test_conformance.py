"""LangGraph's own suite for checkpointers, with every capability that it knows."""

from collections.abc import AsyncGenerator

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from agent_service.integrations.langgraph.saver import AgentServiceSaver


async def test_every_capability_of_the_suite_passes(saver: AgentServiceSaver) -> None:
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        yield saver

    report = await validate(checkpointer_test(name="AgentServiceSaver")(factory))

    failures = {name: each.failures for name, each in report.results.items() if each.failures}
    assert not failures
    assert {name for name, each in report.results.items() if each.passed} == {each.value for each in Capability}
    assert len(report.results) == 8
