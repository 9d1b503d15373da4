"""What handlers ask for in their signatures."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.requests import HTTPConnection

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import ICache, InMemoryCache, cache_invalidate, cached
from agent_service.infrastructure.database import DatabaseManager
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.fastapi import (
    AgentService,
    CacheNamed,
    DbSession,
    Runtime,
    Service,
    Sessions,
    Shared,
    Tenant,
    User,
    Writer,
    cache,
    health_router,
)
from agent_service.integrations.fastapi.dependencies.database import db_session, session_writer, sessions
from agent_service.integrations.fastapi.dependencies.state import agent_runtime, shared_state
from agent_service.integrations.fastapi.dependencies.tenancy import tenant_of, user_of
from agent_service.integrations.fastapi.sessions import Caller, sessions_router
from agent_service.runtime import AgentRuntime
from agent_service.tenants import RedisSharedState, current_shared_state
from tests.integrations.fastapi.serving import client_of, served


def from_header(connection: HTTPConnection) -> str:
    if "tenant" not in connection.headers:
        raise HTTPException(401, "say who you are")
    return connection.headers["tenant"]


async def ada(_connection: HTTPConnection) -> str:
    return "ada"


@pytest.fixture
def service(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AgentService:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    reset_settings()
    return AgentService(writer=True, runtime=True, tenant=from_header, user=ada)


@pytest.fixture
def app(service: AgentService) -> FastAPI:
    return served(service)


def giving(value: Any) -> Callable[[], Any]:
    return lambda: value


async def stored(service: AgentService, tenant: str = "acme") -> int:
    async with service.database.session() as db:
        return len(await SessionRepository(db, tenant).get_user_sessions("ada"))


async def test_a_handler_gets_each_part_of_its_service(app: FastAPI, service: AgentService) -> None:
    @app.get("/")
    async def handler(
        db: DbSession,
        repo: Sessions,
        writer: Writer,
        tenant: Tenant,
        user: User,
        shared: Shared,
        runtime: Runtime,
        itself: Service,
        users: Annotated[ICache[str], cache("users")],
    ) -> dict[str, Any]:
        session = await repo.create(Session(user_id=user))
        await db.commit()
        await shared.set("tools", {"last": "email"})
        await users.set("ada", "Ada")
        bound = current_shared_state.get() is shared
        in_pool = await asyncio.get_running_loop().run_in_executor(runtime.pool_tool, current_shared_state.get)
        return {
            "tenants": [tenant, repo.tenant_id, shared.tenant],
            "shared": [bound, in_pool is shared, await shared.get("tools")],
            "is": [writer is itself.writer, itself is service, await users.get("ada")],
            "stored": session.tenant_id,
        }

    async with client_of(app) as client:
        answer = (await client.get("/", headers={"tenant": "acme"})).json()

    assert answer == {
        "tenants": ["acme", "acme", "acme"],
        "shared": [True, True, {"last": "email"}],
        "is": [True, True, "Ada"],
        "stored": "acme",
    }


async def test_a_resolver_may_refuse_a_request(app: FastAPI) -> None:
    @app.get("/")
    async def handler(repo: Sessions) -> None: ...

    async with client_of(app) as client:
        response = await client.get("/")

    assert (response.status_code, response.json()["detail"]) == (401, "say who you are")


async def test_a_transaction_is_committed_before_the_answer_is_sent(app: FastAPI, service: AgentService) -> None:
    seen: list[int] = []

    @app.post("/")
    async def handler(repo: Sessions) -> str:
        return str((await repo.create(Session(user_id="ada"))).id)

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        async def look_and_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen.append(await stored(service))
            await send(message)

        await app(scope, receive, look_and_send)

    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(watching)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers={"tenant": "acme"}) as client:
            await client.post("/")

    assert seen == [1]


@pytest.mark.parametrize("failing", ["raises", "refuses", "answers what it may not"])
async def test_a_transaction_of_a_handler_that_fails_is_rolled_back(
    app: FastAPI, service: AgentService, failing: str
) -> None:
    @app.post("/")
    async def handler(repo: Sessions) -> int:
        await repo.create(Session(user_id="ada"))
        if failing == "raises":
            raise LookupError
        if failing == "refuses":
            raise HTTPException(409)
        return "no number"  # type: ignore[return-value]

    async with client_of(app) as client:
        response = await client.post("/", headers={"tenant": "acme"})
        left = await stored(service)

    assert (response.status_code, left) == (409 if failing == "refuses" else 500, 0)


class TestCommit:
    """On PostgreSQL, where a commit can fail."""

    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    async def test_a_commit_that_fails_is_no_success(self, app: FastAPI, service: AgentService) -> None:
        @app.post("/")
        async def handler(db: DbSession, repo: Sessions) -> str:
            await repo.create(Session(user_id="ada"))
            pid = (await db.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with service.database.session() as other:
                await other.execute(text(f"SELECT pg_terminate_backend({pid})"))
            return "done"

        async with client_of(app) as client:
            response = await client.post("/", headers={"tenant": "acme"})
            left = await stored(service)

        assert (response.status_code, response.headers["retry-after"], left) == (503, "1", 0)
        assert response.headers["content-type"] == "application/problem+json"


async def test_each_dependency_can_be_overridden(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = AgentService(cache=False, database=False)
    app = served(service)
    database = DatabaseManager(sqlite_url)
    users: InMemoryCache[str] = InMemoryCache(namespace="users")

    @app.get("/")
    async def handler(
        db: DbSession,
        repo: Sessions,
        writer: Writer,
        tenant: Tenant,
        user: User,
        shared: Shared,
        runtime: Runtime,
        names: Annotated[ICache[str], cache("users")],
    ) -> list[bool]:
        return [
            db is given[db_session],
            repo is given[sessions],
            writer is given[session_writer],
            tenant == "acme",
            user == "ada",
            shared is given[shared_state],
            runtime is given[agent_runtime],
            names is users,
        ]

    async with database.session() as db:
        given: dict[Callable[..., Any], Any] = {
            db_session: db,
            sessions: SessionRepository(db, "acme"),
            session_writer: SessionWriter(database),
            tenant_of: "acme",
            user_of: "ada",
            shared_state: RedisSharedState("acme", "ada"),
            agent_runtime: AgentRuntime(database=database),
            CacheNamed("users"): users,
        }
        for dependency, value in given.items():
            app.dependency_overrides[dependency] = giving(value)
        async with client_of(app) as client:
            response = await client.get("/")
    await database.close()

    assert response.json() == [True] * 8


async def test_a_tenant_may_come_from_a_dependency_with_dependencies(app: FastAPI) -> None:
    def token(authorization: Annotated[str, Header()]) -> str:
        return authorization.removeprefix("Bearer ")

    def tenant(who: Annotated[str, Depends(token)]) -> str:
        return who

    @app.get("/")
    async def handler(repo: Sessions) -> str:
        return repo.tenant_id

    app.dependency_overrides[tenant_of] = tenant
    async with client_of(app) as client:
        response = await client.get("/", headers={"authorization": "Bearer acme"})

    assert response.json() == "acme"


@pytest.mark.parametrize(
    ("service", "headers"),
    [
        (AgentService(database=False), {}),
        (AgentService(database=False, user=lambda _: "", tenant=lambda _: "acme"), {}),
        (AgentService(database=False, user=lambda _: "ada"), {}),
        (AgentService(database=False, user=lambda _: 7), {}),  # type: ignore[arg-type, return-value]
    ],
    ids=["no user", "empty user", "empty tenant", "number"],
)
async def test_shared_state_of_nobody_is_a_fault_of_the_service(service: AgentService, headers: dict[str, str]) -> None:
    app = served(service)

    @app.get("/")
    async def handler(shared: Shared) -> None: ...

    async with client_of(app) as client:
        response = await client.get("/")

    assert (response.status_code, response.json()["detail"]) == (500, "The service failed; its log says more.")


async def test_two_applications_in_one_process_do_not_meet(sqlite_url: str, postgres_url: str) -> None:
    async def handler(repo: Sessions) -> int:
        await repo.create(Session(user_id="ada"))
        return len(await repo.get_user_sessions("ada"))

    apps = [served(AgentService(database=url)) for url in (sqlite_url, postgres_url)]
    for app in apps:
        app.post("/")(handler)
    async with client_of(apps[0]) as first, client_of(apps[1]) as second:
        counts = [(await client.post("/")).json() for client in (first, first, second)]

    assert counts == [1, 2, 1]


async def test_an_application_that_is_mounted_uses_the_service_that_was_installed_in_it(app: FastAPI) -> None:
    inner = FastAPI()

    @inner.get("/")
    async def handler(repo: Sessions) -> str:
        return repo.tenant_id

    other = FastAPI()
    other.add_api_route("/", handler)
    app.mount("/inner", inner)
    app.mount("/other", other)
    app.state.agent_service.install(inner)
    async with client_of(app) as client:
        installed = await client.get("/inner/", headers={"tenant": "acme"})
        forgotten = await client.get("/other/", headers={"tenant": "acme"})

    assert (installed.json(), forgotten.status_code) == ("acme", 500)


async def test_a_cached_handler_keeps_its_signature_and_its_dependencies() -> None:
    service = AgentService(database=False)
    app = served(service)
    calls: list[tuple[str, int]] = []

    def page(limit: int = 10) -> int:
        return limit

    @app.get("/users/{name}")
    @cached(ttl=60, key_prefix="users", namespace="answers")
    async def read(name: str, limit: Annotated[int, Depends(page)]) -> dict[str, int]:
        calls.append((name, limit))
        return {name: limit}

    @app.delete("/users/{name}")
    @cache_invalidate("users:*", namespace="answers")
    async def delete(name: str, request: Request) -> str:
        return request.method

    async with client_of(app) as client:
        answers = [(await client.get(f"/users/ada?limit={limit}")).json() for limit in (1, 1, 2)]
        bad = await client.get("/users/ada?limit=many")
        method = (await client.delete("/users/ada")).json()
        answers.append((await client.get("/users/ada?limit=1")).json())
        schema = (await client.get("/openapi.json")).json()

    assert answers == [{"ada": 1}, {"ada": 1}, {"ada": 2}, {"ada": 1}]
    assert calls == [("ada", 1), ("ada", 2), ("ada", 1)]
    assert (bad.status_code, method) == (422, "DELETE")
    parameters = schema["paths"]["/users/{name}"]["get"]["parameters"]
    assert [(each["in"], each["name"], each["schema"]["type"]) for each in parameters] == [
        ("path", "name", "string"),
        ("query", "limit", "integer"),
    ]


def test_no_dependency_of_the_package_costs_a_thread() -> None:
    async def authorize() -> Caller:
        return Caller(user_id="ada")

    async def handler(
        itself: Service,
        sessions: Sessions,
        writer: Writer,
        shared: Shared,
        runtime: Runtime,
        names: Annotated[Any, cache()],
    ) -> None: ...

    app = FastAPI()
    app.get("/")(handler)
    routes = [*app.routes, *sessions_router(authorize=authorize).routes, *health_router().routes]

    def solved(dependant: Dependant) -> list[Any]:
        return [dependant.call, *(call for each in dependant.dependencies for call in solved(each))]

    calls = {call for route in routes if isinstance(route, APIRoute) for call in solved(route.dependant)}
    ours = {each for each in calls if getattr(each, "__module__", type(each).__module__).startswith("agent_service")}
    plain = [each for each in ours if not _is_awaited(each)]

    assert len(ours) > 40
    assert plain == []


def _is_awaited(call: Any) -> bool:
    function = call if inspect.isfunction(call) else type(call).__call__
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
