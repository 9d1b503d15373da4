"""How a response is loaded: once for all who ask, stale where it may be, from memory while Redis is down."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response

from agent_service.core.errors import LoadTimeoutError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import InMemoryCache, close_cache, get_cache
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.integrations.fastapi import cache_response
from agent_service.integrations.fastapi.responses.dependency import NAMESPACE
from agent_service.testing.clock import FakeClock
from tests.integrations.fastapi.responses.conftest import Counted
from tests.servers.redis import RedisServer
from tests.support.forked import CHECKOUT, together
from tests.support.waiting import until


async def test_fifty_requests_at_once_make_one_load(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, anywhere: str
):
    gate = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        number = counted()
        await gate.wait()
        return number

    waiting = [asyncio.create_task(client.get("/")) for _ in range(50)]
    await until(lambda: counted.calls == 1)
    gate.set()
    responses = [await each for each in waiting]

    assert {each.json() for each in responses} == {1}
    collapsed = [each for each in responses if each.headers["cache-status"] == "agent-service; fwd=uri-miss; collapsed"]
    assert len(collapsed) >= 1
    assert len([each for each in responses if each.headers["cache-status"] == "agent-service; fwd=uri-miss"]) == 1


async def test_the_first_caller_may_leave_without_hurting_the_others(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, anywhere: str
):
    gate = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        number = counted()
        await gate.wait()
        return number

    first = asyncio.create_task(client.get("/"))
    await until(lambda: counted.calls == 1)
    second = asyncio.create_task(client.get("/"))
    (flight,) = (await open_cache(NAMESPACE)).flights._flights.values()
    await until(lambda: flight.waiters == 2)
    first.cancel()
    await asyncio.wait({first})
    gate.set()

    assert (await second).json() == 1


async def test_a_load_that_nobody_waits_for_is_cancelled(app: FastAPI, client: httpx.AsyncClient, memory: None):
    ended = asyncio.Event()
    started = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 1

    only = asyncio.create_task(client.get("/"))
    await started.wait()
    only.cancel()

    await asyncio.wait_for(ended.wait(), 60)


async def test_twenty_callers_of_a_failing_route_make_one_load(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, memory: None
):
    gate = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        counted()
        await gate.wait()
        raise HTTPException(503, "down", {"Retry-After": "7"})

    waiting = [asyncio.create_task(client.get("/")) for _ in range(20)]
    await until(lambda: counted.calls == 1)
    gate.set()
    responses = [await each for each in waiting]

    assert counted.calls == 1
    assert {(each.status_code, each.json()["detail"], each.headers["retry-after"]) for each in responses} == {
        (503, "down", "7")
    }


async def test_what_a_route_raises_reaches_the_application(app: FastAPI, client: httpx.AsyncClient, memory: None):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        raise LookupError("a fault of the route")

    with pytest.raises(LookupError, match="a fault of the route"):
        await client.get("/")


async def test_handlers_of_the_application_see_what_a_route_raises(
    app: FastAPI, client: httpx.AsyncClient, memory: None
):
    @app.exception_handler(LookupError)
    async def handle(request: object, exc: Exception) -> Response:
        return Response(str(exc), 404)

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        raise LookupError("not here")

    response = await client.get("/")
    assert (response.status_code, response.text) == (404, "not here")


@pytest.mark.parametrize("failure", [HTTPException(503), LookupError("a fault")])
async def test_a_stale_response_takes_the_place_of_a_failed_load(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, failure: Exception
):
    clock = FakeClock()
    cache = cache_response(60, stale_for=300, failure_backoff=5, cache=InMemoryCache(clock=clock))

    @app.get("/", dependencies=[Depends(cache)])
    async def read() -> int:
        if counted() > 1:
            raise failure
        return 1

    await client.get("/")
    clock.advance(61)
    stale = [await client.get("/") for _ in range(2)]

    assert [each.json() for each in stale] == [1, 1]
    assert [each.headers["cache-status"].rpartition("detail=")[2] for each in stale] == ["error", "backoff"]
    assert counted.calls == 2  # the second one is told by the back-off


async def test_a_client_error_replaces_a_stale_response(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    """What was found to be gone is gone."""
    clock = FakeClock()

    @app.get("/", dependencies=[Depends(cache_response(60, stale_for=300, cache=InMemoryCache(clock=clock)))])
    async def read() -> int:
        if counted() > 1:
            raise HTTPException(404)
        return 1

    await client.get("/")
    clock.advance(61)

    assert (await client.get("/")).status_code == 404


async def test_a_stale_response_is_served_at_once_while_it_is_loaded_again(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    clock, gate = FakeClock(), asyncio.Event()
    cache = cache_response(60, stale_for=300, soft_timeout=0, cache=InMemoryCache(clock=clock))

    @app.get("/", dependencies=[Depends(cache)])
    async def read() -> int:
        number = counted()
        if number > 1:
            await gate.wait()
        return number

    await client.get("/")
    clock.advance(61)
    stale = await client.get("/")
    gate.set()

    assert stale.json() == 1
    assert stale.headers["cache-status"] == "agent-service; hit; ttl=-1; detail=timeout"

    async def refreshed() -> bool:
        return bool((await client.get("/")).json() == 2)

    await until(refreshed)
    assert counted.calls == 2


@pytest.mark.parametrize("options", [{"stale_for": 300, "soft_timeout": 0}, {"refresh_at": 0.1}])
@pytest.mark.parametrize(
    "later", [Response("mine", headers={"Cache-Control": "private"}), Response("gone", 404)], ids=["private", "gone"]
)
async def test_what_a_load_in_the_background_finds_to_be_no_longer_for_all_is_removed(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, options: dict[str, Any], later: Response
):
    clock = FakeClock()

    @app.get("/", dependencies=[Depends(cache_response(60, cache=InMemoryCache(clock=clock), **options))])
    async def read() -> Response:
        return Response("for all") if counted() == 1 else later

    await client.get("/")
    clock.advance(61 if "stale_for" in options else 30)
    assert (await client.get("/")).text == "for all"
    await until(lambda: counted.calls == 2)

    async def removed() -> bool:
        return (await client.get("/")).content == later.body

    await until(removed)


async def test_a_load_longer_than_the_hard_timeout_is_given_up(app: FastAPI, client: httpx.AsyncClient, memory: None):
    @app.get("/", dependencies=[Depends(cache_response(60, hard_timeout=0.01))])
    async def read() -> int:
        await asyncio.Event().wait()
        return 1

    with pytest.raises(LoadTimeoutError):
        await client.get("/")


async def test_what_was_invalidated_while_it_was_loaded_is_not_served_afterwards(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, anywhere: str
):
    gate = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60, tags=["page"]))])
    async def read() -> int:
        number = counted()
        await gate.wait()
        return number

    first = asyncio.create_task(client.get("/"))
    await until(lambda: counted.calls == 1)
    await (await get_cache(NAMESPACE)).invalidate_tags(["page"])
    gate.set()

    assert (await first).json() == 1
    assert (await client.get("/")).json() == 2


@pytest.mark.parametrize("damage", [b"", b"\x01\x00[1]", b"no entry", b'\x01\x00{"$tuple":[1,2]}'])
async def test_what_others_wrote_into_redis_is_a_miss(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, own_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch, damage: bytes,
):  # fmt: skip
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    reset_settings()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        return counted()

    assert (await client.get("/")).json() == 1
    (key,) = [each for each in own_redis.cli("KEYS", "*") if b"http://" in each]
    own_redis.cli("SET", key, damage, "PX", "60000")

    assert [(await client.get("/")).json() for _ in range(2)] == [2, 2]
    await close_cache()


async def test_what_another_value_of_the_namespace_holds_is_a_miss(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, anywhere: str
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        return counted()

    await client.get("/")
    cache = await get_cache(NAMESPACE)
    (key,) = [each async for each in cache.scan()]
    rest = (b"", "", "", 1.0, True, 0.0)
    for foreign in (
        "text", 7, (1, 200, (), b"x", "", "", 60.0, True), (2, 200, (), *rest), (1, "200", (), *rest),
        (1, 200, ("€", "x"), *rest), (1, 200, ("odd",), *rest), (1, 200, (b"a", "b"), *rest),
    ):  # fmt: skip
        await cache.set(key, foreign)
        calls = counted.calls
        assert (await client.get("/")).json() == calls + 1


async def test_while_redis_is_down_memory_serves_and_no_request_fails(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    reset_settings()

    @app.get("/", dependencies=[Depends(cache_response(60, tags=["page"]))])
    async def read() -> int:
        return counted()

    assert [(await client.get("/")).json() for _ in range(2)] == [1, 1]
    own_redis.kill()
    responses = [await client.get("/") for _ in range(20)]
    assert {each.status_code for each in responses} == {200}
    assert {each.json() for each in responses[1:]} == {2}
    await (await get_cache(NAMESPACE)).invalidate_tags(["page"])
    assert (await client.get("/")).json() == 3
    own_redis.restart()
    await close_cache()


async def test_a_cold_start_of_two_processes_makes_one_load_where_the_lock_is_distributed(own_redis: RedisServer):
    async with together(2, "tests.integrations.fastapi.responses.process", own_redis.url, "25") as processes:
        answers = [await each.line() for each in processes]
        assert [await each.wait() for each in processes] == [0, 0]

    assert own_redis.cli("GET", "loads") == b"1"
    assert answers[0] == answers[1] != ""


def test_the_entity_tag_is_the_same_in_every_process_and_after_a_restart():
    """Whatever the seed of Python's hashes is; fastapi-cache2 makes another one in each process."""
    tags = {
        subprocess.run(
            [sys.executable, "-m", "tests.integrations.fastapi.responses.process", "", "1"],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONHASHSEED": seed, "HOME": str(Path.cwd())},
            check=True,
            capture_output=True,
            text=True,
            input="",
        ).stdout.splitlines()[-1]
        for seed in ("1", "2")
    }

    assert len(tags) == 1
    assert tags.pop().startswith('"')
