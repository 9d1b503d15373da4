"""The fourth document's examples of context and runtime run and do what the document says."""

import asyncio
import os
import sys
from types import ModuleType
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, Field

from agent_service.runtime import AgentRuntime, GlobalSymphony
from agent_service.tenants.current import RedisSharedState, _current_ss, shared_state_scope
from tests.house.document_e import EXAMPLES
from tests.house.snippets import run_block


async def run(title: str, **names: Any) -> dict[str, Any]:
    await run_block(EXAMPLES[title], names, filename=f"<{title}>")
    return names


async def test_tools_of_both_kinds_find_the_state_of_the_request(runtime: AgentRuntime):
    seen: dict[str, Any] = {}

    async def process_user_message(message: str) -> None:
        await names["SomeAsyncTool"]().execute()
        seen["after the async tool"] = await _current_ss.get().get("tool_state")
        seen["returned"] = await runtime.loop.run_in_executor(runtime.pool_tool, names["SomeSyncTool"]().run)

    names = await run("context-aware shared state", process_user_message=process_user_message)
    await names["handle_user_request"]("acme", "ann", "hello")

    assert seen == {"after the async tool": {"last_tool": "SomeAsyncTool"}, "returned": True}
    assert await RedisSharedState("acme", "ann").get("tool_state") == {"last_tool": "SomeSyncTool"}
    with pytest.raises(LookupError):
        _current_ss.get()


async def test_the_fastapi_example_serves_chats_with_their_users_state(redis_url: str):
    async def process_with_tools(message: str) -> str:
        runtime = GlobalSymphony.get()

        def tool() -> str:
            state = _current_ss.get()
            return f"{state.user_id}: {runtime.bridge.run(state.get_field('conversation', 'last_message'))}"

        return await runtime.loop.run_in_executor(runtime.pool_tool, tool)

    code = EXAMPLES["fastapi integration"].replace("redis://localhost:6379/0", redis_url)
    names: dict[str, Any] = {
        "os": os,
        "process_with_tools": process_with_tools,
        "extract_tenant_from_request": lambda request: request.headers.get("x-tenant"),
        "extract_user_from_request": lambda request: request.headers.get("x-user"),
    }
    await run_block(code, names, filename="<fastapi integration>")
    app = names["app"]

    async with (
        names["lifespan"](app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        headers = [{"x-tenant": "acme", "x-user": f"user{number}"} for number in range(20)]
        answers = await asyncio.gather(*(client.post("/chat?message=hello", headers=each) for each in headers))

    assert [each.json() for each in answers] == [{"response": f"user{number}: hello"} for number in range(20)]


async def test_the_agency_swarm_example_validates_and_remembers(runtime: AgentRuntime, monkeypatch: pytest.MonkeyPatch):
    class BaseTool(BaseModel):
        """The part of agency-swarm's that the example stands on: a pydantic model."""

    framework = ModuleType("agency_swarm.tools")
    framework.BaseTool = BaseTool  # type: ignore[attr-defined] # a module made here
    monkeypatch.setitem(sys.modules, "agency_swarm", ModuleType("agency_swarm"))
    monkeypatch.setitem(sys.modules, "agency_swarm.tools", framework)
    names = await run("agency-swarm tool integration", RedisSharedState=RedisSharedState, Any=Any, Field=Field)

    with shared_state_scope("acme", "ann") as state:
        tool = names["EmailValidatorTool"](email="ann@example.com")
        answer = await runtime.loop.run_in_executor(runtime.pool_tool, tool.run)
        none = await runtime.loop.run_in_executor(runtime.pool_tool, tool.get_state, "none")

        assert answer == "Email ann@example.com is valid"
        assert none == {}
        assert await state.get("tool_history") == {"last_tool": "email_validator"}
        assert await state.get("validation_results") == {"ann@example.com": True}


async def test_what_replaced_the_task_queue_works_in_a_thread(runtime: AgentRuntime):
    async def some_coroutine() -> str:
        return "done"

    def thread() -> Any:
        names = {"GlobalSymphony": GlobalSymphony, "asyncio": asyncio, "some_coroutine": some_coroutine}
        exec(EXAMPLES["after the migration"], names)
        return names["result"]

    assert await runtime.loop.run_in_executor(runtime.pool_agent, thread) == "done"


async def test_the_state_bound_by_hand_is_the_tools_state():
    async def call_tools() -> str:
        return _current_ss.get().user_id

    names = await run(
        "shared state after the migration",
        _current_ss=_current_ss,
        RedisSharedState=RedisSharedState,
        call_tools=call_tools,
    )

    assert names["result"] == "user123"


async def test_the_import_patterns_work():
    names = await run("import patterns")

    assert names["GlobalSymphony"] is AgentRuntime
