"""Invalidating and refreshing what decorated functions cached."""

import asyncio

import pytest

from agent_service.infrastructure.cache import (
    cache_invalidate,
    cached,
    get_cache,
)

pytestmark = pytest.mark.usefixtures("anywhere")


async def test_fifty_concurrent_cold_calls_make_one_load():
    calls = []

    @cached()
    async def f(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0.02)
        return n

    assert await asyncio.gather(*(f(1) for _ in range(50))) == [1] * 50
    assert calls == [1]


async def test_invalidate_refresh_and_cache_key():
    calls = []

    @cached(key_prefix="p")
    async def f(n: int, m: int = 2) -> int:
        calls.append(n)
        return len(calls)

    assert await f(1) == 1
    assert f.cache_key(1) == f.cache_key(n=1, m=2)
    assert f.cache_key(1).startswith("p:f:")
    assert await f.refresh(1) == 2
    assert await f(1) == 2
    assert await f.invalidate(1) is True
    assert await f.invalidate(1) is False
    assert await f(1) == 3
    cache = await get_cache()
    assert await cache.get(f.cache_key(1)) == 3


async def test_a_refresh_overtakes_a_load_that_began_before():
    started = asyncio.Event()
    finish = asyncio.Event()
    answers = ["old", "new"]

    @cached()
    async def f() -> str:
        answer = answers.pop(0)
        if answer == "old":
            started.set()
            await finish.wait()
        return answer

    early = asyncio.create_task(f())
    await started.wait()
    assert await f.refresh() == "new"
    finish.set()

    assert await early == "old"
    assert await f() == "new"


async def test_the_pattern_of_the_documents_invalidates_one_function():
    calls = []

    @cached(key_prefix="users")
    async def get_user(user_id: str) -> str:
        calls.append(user_id)
        return user_id

    @cached(key_prefix="users")
    async def get_name(user_id: str) -> str:
        calls.append("name")
        return user_id

    @cache_invalidate(key_pattern="users:get_user:*")
    async def update_user(user_id: str) -> str:
        return "done"

    await get_user("1")
    await get_name("1")
    assert await update_user("1") == "done"
    await get_user("1")
    await get_name("1")

    assert calls == ["1", "name", "1"]


async def test_a_failed_mutation_invalidates_nothing():
    cache = await get_cache()
    await cache.set("users:1", "kept")

    @cache_invalidate("users:*")
    async def update() -> None:
        raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError):
        await update()
    assert await cache.get("users:1") == "kept"


async def test_fields_of_a_pattern_are_filled_in_and_match_only_themselves():
    cache = await get_cache("ns")
    await cache.set_many({"users:*:a": 1, "users:1:a": 1, "users:2:a": 1, "key:*": 1, "key:1": 1})

    @cache_invalidate("users:{user_id}:*", "ns", keys=["key:{user_id}"])
    async def update(user_id: str) -> None: ...

    await update("*")
    assert {key async for key in cache.scan()} == {"users:1:a", "users:2:a", "key:1"}
    await update("1")
    assert {key async for key in cache.scan()} == {"users:2:a"}


async def test_an_invalidation_goes_on_when_its_caller_is_cancelled():
    cache = await get_cache("cancelled")
    await cache.set("a", 1)
    task: asyncio.Task[None]

    @cache_invalidate("*", "cancelled")
    async def update() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: loop.call_soon(task.cancel))  # when the invalidation has just begun

    task = asyncio.create_task(update())
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(60):
        while await cache.exists("a"):
            await asyncio.sleep(0.01)
