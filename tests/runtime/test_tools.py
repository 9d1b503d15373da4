"""Synchronous tools that read and write the shared state of their request."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, Field

from agent_service.core.errors import BridgeError, BridgeTimeoutError, RuntimeStateError
from agent_service.runtime import AgentRuntime, AsyncToolMixin
from agent_service.tenants.current import shared_state_scope


class BaseTool(BaseModel):
    """What tool frameworks look like: a pydantic model with a ``run``."""

    def run(self) -> Any:
        raise NotImplementedError


class EmailValidatorTool(AsyncToolMixin, BaseTool):
    email: str = Field(..., description="Email to validate")

    def run(self) -> str:
        self.set_state_field("tool_history", "last_tool", "email_validator")
        is_valid = "@" in self.email
        self.set_state_field("validation_results", self.email, is_valid)
        return f"Email {self.email} is {'valid' if is_valid else 'invalid'}"


class Tool(AsyncToolMixin):
    """A tool of no framework."""


async def test_a_pydantic_tool_writes_the_state_of_its_request(runtime: AgentRuntime):
    async def serve(user_id: str) -> str:
        with shared_state_scope("acme", user_id) as state:
            answer = await runtime.loop.run_in_executor(
                runtime.pool_tool, EmailValidatorTool(email=f"{user_id}@example.com").run
            )
            assert await state.get("validation_results") == {f"{user_id}@example.com": True}
            return answer

    users = [f"user{number}" for number in range(40)]
    answers = await asyncio.gather(*(serve(each) for each in users))

    assert answers == [f"Email {each}@example.com is valid" for each in users]
    assert set(EmailValidatorTool.model_fields) == {"email"}


async def test_every_wrapper_does_what_its_coroutine_does(runtime: AgentRuntime):
    def work() -> list[Any]:
        tool = Tool()
        return [
            tool.get_state("conversation"),
            tool.set_state("conversation", {"step": 1, "tags": ["a"]}),
            tool.set_state_field("conversation", "step", 2),
            tool.get_state_field("conversation", "step"),
            tool.get_state_field("conversation", "missing"),
            tool.get_state("conversation"),
            tool.run_async(tool.shared_state.list_states()),
        ]

    with shared_state_scope("acme", "alice"):
        seen = await runtime.loop.run_in_executor(runtime.pool_tool, work)

    assert seen == [{}, True, True, 2, None, {"step": 2, "tags": ["a"]}, ["conversation"]]


@pytest.mark.parametrize(
    "call",
    [
        lambda tool: tool.get_state("s"),
        lambda tool: tool.set_state("s", {}),
        lambda tool: tool.get_state_field("s", "f"),
        lambda tool: tool.set_state_field("s", "f", 1),
        lambda tool: tool.run_async(asyncio.sleep(0)),
    ],
)
async def test_on_the_loop_thread_each_raises_at_once(runtime: AgentRuntime, call: Any):
    with shared_state_scope("acme", "alice"), pytest.raises(BridgeError, match="await it instead"):
        call(Tool())


async def test_a_timeout_cancels_the_coroutine(runtime: AgentRuntime):
    cancelled = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(BridgeTimeoutError):
        await runtime.loop.run_in_executor(runtime.pool_tool, lambda: Tool().run_async(forever(), timeout=0.05))
    await asyncio.wait_for(cancelled.wait(), 30)


async def test_without_a_bound_state_it_says_how_to_bind_one(runtime: AgentRuntime):
    with pytest.raises(LookupError, match="shared_state_scope"):
        await runtime.loop.run_in_executor(runtime.pool_tool, lambda: Tool().get_state("s"))


def test_without_a_runtime_it_says_how_to_create_one():
    with shared_state_scope("acme", "alice"), pytest.raises(RuntimeStateError, match="create"):
        Tool().get_state("s")
