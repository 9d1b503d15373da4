"""Pools carry the context of whoever hands in the work."""

import asyncio
import threading
from concurrent.futures import Future
from contextvars import ContextVar

import pytest

from agent_service.runtime import AgentRuntime
from agent_service.tenants.current import current_shared_state, shared_state_scope

request: ContextVar[str] = ContextVar("request", default="none")

POOLS = ["pool_user", "pool_tool", "pool_agent"]


def user_seen_in_the_thread() -> str:
    return current_shared_state.get().user_id


@pytest.mark.parametrize("pool", POOLS)
async def test_work_sees_the_shared_state_bound_where_it_was_handed_in(runtime: AgentRuntime, pool: str):
    executor = getattr(runtime, pool)

    with shared_state_scope("acme", "alice"):
        submitted = executor.submit(user_seen_in_the_thread)
        mapped = executor.map(lambda _: user_seen_in_the_thread(), range(8))
        awaited = runtime.loop.run_in_executor(executor, user_seen_in_the_thread)
    with shared_state_scope("acme", "bob"):
        other = executor.submit(user_seen_in_the_thread)

    assert await asyncio.wrap_future(submitted) == "alice"
    assert await asyncio.to_thread(list, mapped) == ["alice"] * 8
    assert await awaited == "alice"
    assert await asyncio.wrap_future(other) == "bob"


@pytest.mark.parametrize("pool", POOLS)
async def test_a_hundred_requests_at_once_each_see_their_own_state(runtime: AgentRuntime, pool: str):
    async def serve(user_id: str) -> str:
        with shared_state_scope("acme", user_id):
            return await asyncio.create_task(in_a_child_task())

    async def in_a_child_task() -> str:
        return await runtime.loop.run_in_executor(getattr(runtime, pool), user_seen_in_the_thread)

    users = [f"user-{number}" for number in range(100)]

    assert await asyncio.gather(*(serve(each) for each in users)) == users


async def test_what_work_sets_nobody_else_sees(runtime: AgentRuntime):
    def set_and_get(value: str) -> tuple[str, str]:
        before = request.get()
        request.set(value)
        return before, request.get()

    seen = list(
        await asyncio.gather(
            *(runtime.loop.run_in_executor(runtime.pool_agent, set_and_get, f"r{n}") for n in range(50))
        )
    )

    assert seen == [("none", f"r{n}") for n in range(50)]
    assert request.get() == "none"


async def test_arguments_results_and_errors_pass_through(runtime: AgentRuntime):
    def divide(a: int, *, by: int) -> float:
        return a / by

    assert await asyncio.wrap_future(runtime.pool_user.submit(divide, 6, by=4)) == 1.5
    with pytest.raises(ZeroDivisionError):
        await asyncio.wrap_future(runtime.pool_user.submit(divide, 6, by=0))


async def test_metrics_count_busy_threads_and_queued_work(runtime: AgentRuntime):
    go = threading.Event()
    workers = runtime.config.workers_agent
    work: list[Future[bool]] = [runtime.pool_agent.submit(go.wait) for _ in range(workers + 5)]
    while sum(each.running() for each in work) < workers:
        await asyncio.sleep(0.001)

    busy = runtime.metrics()["pools"]["agent"]
    go.set()
    await asyncio.gather(*(asyncio.wrap_future(each) for each in work))

    assert busy == {"workers": workers, "busy": workers, "queued": 5}
    assert runtime.metrics()["pools"]["agent"] == {"workers": workers, "busy": 0, "queued": 0}
