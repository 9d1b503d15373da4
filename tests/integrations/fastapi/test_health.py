"""Health: three questions, and what each tells to whom."""

import asyncio
from functools import partial
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database import DatabaseManager
from agent_service.integrations.fastapi import AgentService, health_router
from tests.integrations.fastapi.serving import client_of, served
from tests.servers.ports import free_port
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.waiting import ticking, until


def with_health(service: AgentService, **options: Any) -> FastAPI:
    app = served(service)
    app.include_router(health_router(**options))
    return app


def everybody(_request: Request) -> bool:
    return True


async def ready(client: httpx.AsyncClient) -> tuple[int, str, dict[str, str]]:
    """Return the status code, the status, and that of each part."""
    response = await client.get("/health/ready")
    answer = response.json()
    return response.status_code, answer["status"], {name: each["status"] for name, each in answer["parts"].items()}


async def test_a_service_that_is_well_tells_the_latency_of_each_part(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()
    service = AgentService(database=database_url, cleanup=True)
    async with client_of(with_health(service, details=everybody)) as client:
        response = await client.get("/health/ready")

    parts = response.json()["parts"]
    assert (response.status_code, response.json()["status"], response.headers["cache-control"]) == (
        200,
        "up",
        "no-store",
    )
    assert {name: each["status"] for name, each in parts.items()} == dict.fromkeys(
        ("cache", "database", "background.cleanup"), "up"
    )
    assert all(parts[name]["latency_ms"] > 0 for name in ("cache", "database"))


async def test_redis_that_dies_is_degraded_and_comes_back(
    own_redis: RedisServer, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    reset_settings()
    async with client_of(with_health(AgentService(database=sqlite_url), details=everybody)) as client:
        before = await ready(client)
        own_redis.kill()
        during = await ready(client)
        own_redis.restart()

        async def is_up() -> bool:
            return (await ready(client))[1] == "up"

        await until(is_up)

    assert before == (200, "up", {"cache": "up", "database": "up"})
    assert during == (200, "degraded", {"cache": "degraded", "database": "up"})


async def test_a_database_that_cannot_be_reached_is_down_and_no_secret_is_told() -> None:
    url = f"postgresql+asyncpg://ada:hunter2@127.0.0.1:{free_port()}/app"
    async with client_of(with_health(AgentService(database=url), details=everybody)) as client:
        response = await client.get("/health/ready")

    assert (response.status_code, response.json()["status"]) == (503, "down")
    assert "cannot connect to" in response.json()["parts"]["database"]["reason"]
    assert "hunter2" not in response.text


async def test_a_database_that_is_not_migrated_is_down_until_it_is(empty_postgres_url: str) -> None:
    service = AgentService(database=empty_postgres_url)
    async with client_of(with_health(service, details=everybody)) as client:
        before = await client.get("/health/ready")
        await service.database.upgrade()
        after = await ready(client)

    assert (before.status_code, before.json()["parts"]["database"]["status"]) == (503, "down")
    assert "agent-service db upgrade" in before.json()["parts"]["database"]["reason"]
    assert after == (200, "up", {"cache": "up", "database": "up"})


async def test_servers_that_do_not_answer_take_two_seconds_together(
    postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TcpProxy(postgres_url) as postgres, TcpProxy(redis_url) as redis:
        monkeypatch.setenv("REDIS_URL", redis.url)
        monkeypatch.setenv("REDIS_TIMEOUT", "60")
        reset_settings()
        async with client_of(with_health(AgentService(database=postgres.url), details=everybody)) as client:
            postgres.stall()
            redis.stall()
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with ticking() as ticks:
                answers = await asyncio.gather(*(client.get("/health/ready") for _ in range(20)))
            took = loop.time() - began
            live = await client.get("/health/live")
            postgres.resume()
            redis.resume()

    parts = answers[0].json()["parts"]
    assert {answer.status_code for answer in answers} == {503}
    assert {name: each["status"] for name, each in parts.items()} == {"cache": "degraded", "database": "down"}
    assert parts["database"]["reason"] == "no answer within 2 s"
    assert live.status_code == 200
    assert took > 1.9
    assert ticks.seconds < 5  # each of the two alone, and each of the 20, would add 2


async def test_twenty_probes_at_once_ask_once(postgres_url: str) -> None:
    async with (
        TcpProxy(postgres_url) as proxy,
        client_of(with_health(AgentService(database=proxy.url))) as client,
    ):
        before = proxy.accepted
        proxy.drop()
        await asyncio.gather(*(client.get("/health/ready") for _ in range(20)))

        assert proxy.accepted - before <= 2


async def test_a_database_whose_connections_are_all_in_use_is_degraded_not_down(postgres_url: str) -> None:
    database = DatabaseManager(postgres_url, pool_size=1, max_overflow=0)
    app = with_health(AgentService(database=database), details=everybody)
    async with client_of(app) as client, database.engine.connect():
        response = await client.get("/health/ready")
    await database.close()

    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["parts"]["database"]["reason"] == "all 1 connections are in use"


async def test_background_work_that_fails_degrades_the_service() -> None:
    async def work() -> None:
        raise LookupError

    service = AgentService(database=False, background=[work])
    async with client_of(with_health(service, details=everybody)) as client:
        await until(lambda: service.parts.background[0].failing)
        code, status, _ = await ready(client)

    assert (code, status) == (200, "degraded")


async def test_work_never_hides_the_state_of_what_has_the_same_name(sqlite_url: str) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def work(what: str) -> None:
        if what == "fail":
            raise ValueError(what)
        await wait()

    wait.__qualname__ = work.__qualname__ = "work"
    service = AgentService(database=sqlite_url, background=[partial(work, "fail"), partial(work, "run"), wait])
    async with client_of(with_health(service, details=everybody)) as client:
        await until(lambda: any(each.failing for each in service.parts.background))
        answer = await ready(client)

    states = {"background.work": "degraded", "background.work 2": "up", "background.work 3": "up"}
    assert answer == (200, "degraded", {"cache": "up", "database": "up"} | states)


async def test_a_service_that_ends_is_not_ready_but_lives() -> None:
    service = AgentService(database=False)
    app = with_health(service)
    async with client_of(app) as client:
        started = await client.get("/health/startup")
        service.stopping.set()
        codes = [(await client.get(f"/health/{name}")).status_code for name in ("ready", "live", "startup")]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        after = [(await client.get(f"/health/{name}")).status_code for name in ("ready", "live", "startup")]

    assert (started.status_code, codes, after) == (200, [503, 200, 200], [503, 200, 503])


async def test_only_whom_the_service_trusts_sees_details() -> None:
    async def from_here(request: Request) -> bool:
        return request.headers.get("probe") == "secret"

    async with client_of(with_health(AgentService(database=False), details=from_here)) as client:
        stranger = await client.get("/health/ready")
        trusted = await client.get("/health/ready", headers={"probe": "secret"})

    assert stranger.json() == {"status": "up"}
    assert trusted.json()["parts"].keys() == {"cache"}


async def test_health_answers_head_and_is_in_no_openapi() -> None:
    app = with_health(AgentService(database=False))
    async with client_of(app) as client:
        codes = [(await client.head(f"/health/{name}")).status_code for name in ("live", "ready", "startup")]

    assert (codes, app.openapi()["paths"]) == ([200, 200, 200], {})
