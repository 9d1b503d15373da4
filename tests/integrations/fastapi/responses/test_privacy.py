"""Whose response a request may get: credentials, cookies, identities, and what a route declares to read."""

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi.security import APIKeyHeader, APIKeyQuery, HTTPBearer
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from agent_service.core.errors import CacheValueError
from agent_service.infrastructure.cache import get_cache
from agent_service.integrations.fastapi import AgentService, CachedRoute, Tenant, User, cache_response
from agent_service.integrations.fastapi.responses.dependency import NAMESPACE
from tests.integrations.fastapi.responses.conftest import Counted, client_of
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("anywhere")

BYPASS = "agent-service; fwd=bypass; detail=credentials"


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer a"}, {"Cookie": "session=a"}, {"Proxy-Authorization": "Basic a"}, {"cookie": ""}],
    ids=["authorization", "cookie", "proxy", "empty cookie"],
)
async def test_a_request_with_credentials_is_neither_answered_nor_stored(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, headers: dict[str, str]
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        return counted()

    first = await client.get("/", headers=headers)
    public = await client.get("/")
    second = await client.get("/", headers=headers)

    assert [each.json() for each in (first, public, second)] == [1, 2, 3]
    assert [first.headers["cache-status"], second.headers["cache-status"]] == [BYPASS] * 2
    assert public.headers["vary"] == "authorization, cookie"  # for caches on the way


async def test_the_header_of_an_api_key_scheme_is_a_credential(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    scheme = APIKeyHeader(name="X-Api-Key", auto_error=False)

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(key: Annotated[str | None, Security(scheme)]) -> str:
        return f"{key} {counted()}"

    texts = [(await client.get("/", headers={"X-Api-Key": key})).json() for key in ("a", "b", "a")]
    public = [await client.get("/") for _ in range(2)]

    assert texts == ["a 1", "b 2", "a 3"]
    assert [each.json() for each in public] == ["None 4"] * 2
    assert public[0].headers["vary"] == "authorization, cookie, x-api-key"


@pytest.mark.parametrize("level", ["application", "inclusion", "router", "route"])
async def test_what_is_declared_around_a_route_counts_as_what_it_declares(counted: Counted, level: str):
    """Wherever a guard stands, it may hand on what it has found out, as in the state of the request."""

    def guard(
        request: Request,
        key: Annotated[str | None, Security(APIKeyHeader(name="X-Key", auto_error=False))],
        plan: Annotated[str, Header(alias="X-Plan")] = "free",
    ) -> None:
        counted()
        request.state.seen = f"{key} {plan}"

    guards = {
        each: [Depends(guard)] if each == level else [] for each in ("application", "inclusion", "router", "route")
    }
    app = FastAPI(dependencies=guards["application"])
    router = APIRouter(route_class=CachedRoute, dependencies=guards["router"])

    @router.get("/{name}", dependencies=[*guards["route"], Depends(cache_response(60, tags=["of:{tenant}"]))])
    async def read(request: Request, tenant: str, name: str) -> str:
        return f"{request.state.seen} {tenant} {name}"

    app.include_router(router, prefix="/{tenant}", dependencies=guards["inclusion"])
    requests: list[dict[str, str]] = [{"X-Key": "a"}, {"X-Key": "b"}, {"X-Plan": "paid"}, {}, {"X-Plan": "paid"}]
    async with client_of(app) as client:
        responses = [await client.get("/acme/x", headers=each) for each in requests]
        await (await get_cache(NAMESPACE)).invalidate_tags(["of:acme"])
        again = await client.get("/acme/x")

    assert [each.json() for each in responses] == [
        f"{seen} acme x" for seen in ("a free", "b free", "None paid", "None free", "None paid")
    ]
    assert [each.headers["cache-status"] for each in responses[:2]] == [BYPASS] * 2
    assert responses[-1].headers["vary"] == "authorization, cookie, x-key, x-plan"
    assert again.headers["cache-status"] == "agent-service; fwd=uri-miss"


async def test_the_parameter_of_an_api_key_scheme_is_a_credential(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(key: Annotated[str | None, Security(APIKeyQuery(name="api_key", auto_error=False))]) -> str:
        return f"{key} {counted()}"

    assert [(await client.get("/?api_key=a")).json() for _ in range(2)] == ["a 1", "a 2"]
    assert [(await client.get("/?x=1")).json() for _ in range(2)] == ["None 3"] * 2


async def test_a_header_that_the_route_declares_tells_requests_apart(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    def locale(accept_language: Annotated[str, Header()] = "en") -> str:
        return accept_language

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(
        language: Annotated[str, Depends(locale)],
        x_theme: Annotated[str, Header()] = "light",
        level: Annotated[str, Header(alias="X_Level")] = "1",
    ) -> str:
        return f"{language} {x_theme} {level} {counted()}"

    requests: list[dict[str, str]] = [
        {}, {"Accept-Language": "de"}, {"X-Theme": "dark"}, {"X_Level": "2"}, {"User-Agent": "other"},
        {"Accept-Language": "de"},
    ]  # fmt: skip
    texts = [(await client.get("/", headers=each)).json() for each in requests]

    assert texts == ["en light 1 1", "de light 1 2", "en dark 1 3", "en light 2 4", "en light 1 1", "de light 1 2"]
    vary = (await client.get("/")).headers["vary"]
    assert vary == "accept-language, authorization, cookie, x-theme, x_level"


async def test_the_headers_of_a_model_tell_requests_apart(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    class Preferences(BaseModel):
        x_theme: str = "light"
        x_size: str = "1"

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(preferences: Annotated[Preferences, Header()]) -> str:
        return f"{preferences.x_theme} {preferences.x_size} {counted()}"

    requests: list[dict[str, str]] = [{}, {"X-Theme": "dark"}, {"X-Size": "2"}, {"X-Theme": "dark"}]
    texts = [(await client.get("/", headers=each)).json() for each in requests]

    assert texts == ["light 1 1", "dark 1 2", "light 2 3", "dark 1 2"]


async def test_a_cookie_that_the_route_declares_never_reaches_another_caller(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(theme: Annotated[str, Cookie()] = "light") -> str:
        return theme

    assert (await client.get("/", headers={"Cookie": "theme=dark"})).json() == "dark"
    assert (await client.get("/")).json() == "light"
    assert (await client.get("/", headers={"Cookie": "theme=dark"})).json() == "dark"


async def test_an_identity_has_responses_of_its_own(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    async def user_of(request: Request) -> str:
        token = request.headers.get("authorization", "")
        if not token:
            raise HTTPException(401)
        return token.removeprefix("Bearer ")

    @app.get("/me", dependencies=[Depends(cache_response(60, identity=user_of))])
    async def me(request: Request) -> str:
        return f"{await user_of(request)} {counted()}"

    def as_user(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {name}", "Cookie": "a=1"}

    responses = [await client.get("/me", headers=as_user(name)) for name in ("ann", "bob", "ann", "bob")]
    nobody = await client.get("/me")

    assert [each.json() for each in responses] == ["ann 1", "bob 2", "ann 1", "bob 2"]
    assert {each.headers["cache-control"] for each in responses} == {"private, max-age=60"}
    assert responses[0].headers["vary"] == "authorization, cookie"
    assert nobody.status_code == 401
    assert counted.calls == 2


async def test_an_identity_keeps_private_responses(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/", dependencies=[Depends(cache_response(60, identity=lambda request: request.headers["x-user"]))])
    async def read(response: Response) -> int:
        response.headers["Cache-Control"] = "private, max-age=30"
        return counted()

    numbers = [(await client.get("/", headers={"x-user": name})).json() for name in ("a", "b", "a")]

    assert numbers == [1, 2, 1]


@pytest.mark.parametrize("identity", ["", None, 7])
async def test_an_identity_of_nobody_is_refused(app: FastAPI, client: httpx.AsyncClient, identity: Any):
    @app.get("/", dependencies=[Depends(cache_response(60, identity=lambda request: identity))])
    async def read() -> int:
        return 1

    with pytest.raises(CacheValueError, match="identity= must return a text"):
        await client.get("/")


async def test_what_is_public_is_the_same_for_all_who_pass_what_stands_before_it(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    bearer = HTTPBearer(auto_error=True)

    @app.get("/", dependencies=[Depends(bearer), Depends(cache_response(60, public=True, s_maxage=600))])
    async def read() -> int:
        return counted()

    ann, bob = [await client.get("/", headers={"Authorization": f"Bearer {name}"}) for name in ("ann", "bob")]

    assert ann.json() == bob.json() == 1
    assert bob.headers["cache-control"] == "public, max-age=60, s-maxage=600"
    assert "vary" not in bob.headers
    assert (await client.get("/")).status_code in {401, 403}


async def test_a_header_read_before_a_public_response_does_not_tell_requests_apart(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    def require_key(x_key: Annotated[str, Header()]) -> None:
        if x_key not in {"a", "b"}:
            raise HTTPException(403)

    for path, public in (("/public", True), ("/keyed", False)):

        @app.get(path, dependencies=[Depends(require_key), Depends(cache_response(60, public=public))])
        async def read() -> int:
            return counted()

    async def ask(path: str, key: str) -> int:
        response = await client.get(path, headers={"X-Key": key})
        return int(response.json()) if response.status_code == 200 else response.status_code

    assert [await ask("/public", key) for key in "abac"] == [1, 1, 1, 403]
    assert [await ask("/keyed", key) for key in "abac"] == [2, 3, 2, 403]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Set-Cookie": "session=1"}, "set-cookie"),
        ({"Cache-Control": "private, max-age=60"}, "private"),
        ({"Cache-Control": 'private="x-user", max-age=60'}, "private"),
        ({"Cache-Control": "no-store"}, "no-store"),
        ({"Cache-Control": "max-age=60; private"}, "unreadable"),
        ({"Cache-Control": 'x="never closed, no-store'}, "unreadable"),
        ({"Cache-Control": "max-age=60, NO-STORE"}, "no-store"),
        ({"Vary": "*"}, "vary"),
        ({"Vary": "X-Unknown"}, "vary"),
    ],
)
async def test_what_is_for_one_caller_is_given_to_that_one_only_and_whole(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, headers: dict[str, str], reason: str
):
    """Also where others wait for the same load: each of them gets a response of its own."""
    gate = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60, stale_for=60))])
    async def read() -> Response:
        number = counted()
        await gate.wait()
        return Response(f"for call {number}", headers=headers)

    waiting = [asyncio.create_task(client.get("/")) for _ in range(5)]
    await until(lambda: counted.calls == 1)
    gate.set()
    responses = [await each for each in waiting]
    client.cookies.clear()
    responses.append(await client.get("/"))

    assert len({each.text for each in responses}) == 6
    for each in responses:
        assert {name.title(): each.headers[name] for name in headers} == headers
        assert "etag" not in each.headers
        assert each.headers["cache-status"] == f"agent-service; fwd=uri-miss; detail={reason}"


async def test_a_header_named_in_vary_tells_requests_apart(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/", dependencies=[Depends(cache_response(60, vary=["Accept-Language", "X-Plan"]))])
    async def read(request: Request, response: Response) -> str:
        response.headers["Vary"] = "accept-language"
        return f"{request.headers.get('accept-language')} {counted()}"

    async def ask(*pairs: tuple[str, str]) -> str:
        return str((await client.get("/", headers=list(pairs))).json())

    assert await ask() == "None 1"
    assert await ask(("Accept-Language", "")) == " 2"  # empty is not missing
    assert await ask(("Accept-Language", "de")) == "de 3"
    assert await ask(("Accept-Language", "de"), ("X-Plan", "1")) == "de 4"
    assert await ask(("Accept-Language", "de, 1")) == "de, 1 5"
    assert await ask(("Accept-Language", "de")) == "de 3"
    assert await ask() == "None 1"
    assert (await client.get("/")).headers["vary"] == "accept-language, authorization, cookie, x-plan"


async def test_hosts_schemes_paths_and_queries_are_told_apart(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/{path:path}", dependencies=[Depends(cache_response(60))])
    async def read(path: str) -> int:
        return counted()

    urls = [
        "http://api.test/a", "https://api.test/a", "http://other.test/a", "http://api.test/a?b", "http://api.test/a%3Fb",
        "http://api.test/a?b=1&c=2", "http://api.test/a?c=2&b=1", 'http://api.test/a","b',
    ]  # fmt: skip
    numbers = [(await client.get(each)).json() for each in urls * 2]

    assert numbers == [*range(1, 9)] * 2
    assert (await client.get("/a", headers={"Host": "API.Test"})).json() == 1


async def test_only_the_named_query_parameters_count_and_no_other_reaches_the_load(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/", dependencies=[Depends(cache_response(60, query=["page", "tag"]))])
    async def read(request: Request, page: int = 1) -> str:
        return f"{request.url.query} {counted()}"

    queries = ["utm=x&page=2", "page=2&utm=y", "page=2&page=3", "page=3&page=2", "tag=b&page=2&tag=a", "", "utm=z"]
    texts = [(await client.get(f"/?{each}")).json() for each in queries]

    assert texts == [
        "page=2 1", "page=2 1", "page=2&page=3 2", "page=3&page=2 3", "page=2&tag=b&tag=a 4", " 5", " 5",
    ]  # fmt: skip


async def test_what_a_session_of_starlette_holds_is_for_its_caller(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    """Its middleware stands around the routes, so no route sees the cookie that it sets."""
    app.add_middleware(SessionMiddleware, secret_key="secret")

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(request: Request) -> str:
        return str(request.session.setdefault("token", f"token {counted()}"))

    first = await client.get("/")
    client.cookies.clear()
    second = await client.get("/")

    assert [first.json(), second.json()] == ["token 1", "token 2"]
    assert "session" in first.cookies
    assert "session" in second.cookies


async def test_a_user_that_a_middleware_found_has_credentials(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    class ByName(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
            name = conn.headers.get("x-user")
            return None if name is None else (AuthCredentials(), SimpleUser(name))

    app.add_middleware(AuthenticationMiddleware, backend=ByName())

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(request: Request) -> str:
        return f"{request.user.display_name} {counted()}"

    texts = [(await client.get("/", headers=each)).json() for each in ({"x-user": "ann"}, {}, {"x-user": "bob"}, {})]

    assert texts == ["ann 1", " 2", "bob 3", " 2"]


async def test_headers_are_told_apart_by_the_names_that_are_read(app: FastAPI, client: httpx.AsyncClient):
    class Read(BaseModel):
        plan: str = Field("", validation_alias="x-plan")
        by_name: str = Field("", alias="x-other")
        model_config = ConfigDict(populate_by_name=True)

    @app.get("/field", dependencies=[Depends(cache_response(60))])
    async def field(
        plan: Annotated[str, Header(validation_alias="X-Plan")] = "",
        choice: Annotated[str, Header(validation_alias=AliasChoices("X-Old", "X-New"))] = "",
    ) -> str:
        return plan + choice

    @app.get("/model", dependencies=[Depends(cache_response(60))])
    async def model(read: Annotated[Read, Header()]) -> str:
        return read.plan + read.by_name

    async def texts(path: str, name: str) -> list[str]:
        return [(await client.get(path, headers={name: value})).json() for value in "ab"]

    asked = [("/field", "X-Plan"), ("/field", "X-New"), ("/model", "X-Plan"), ("/model", "By-Name")]
    assert [await texts(path, name) for path, name in asked] == [["a", "b"]] * 4


async def test_an_identity_does_not_tell_what_the_response_varies_by(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60, identity=lambda request: "an organisation"))])
    async def read(request: Request, response: Response) -> str:
        response.headers["vary"] = "Cookie"
        return request.headers["cookie"]

    responses = [await client.get("/", headers={"Cookie": f"user={name}"}) for name in ("ann", "bob")]

    assert [each.json() for each in responses] == ["user=ann", "user=bob"]
    assert responses[0].headers["cache-status"] == "agent-service; fwd=uri-miss; detail=vary"


@pytest.mark.parametrize("depends_on", [Tenant, User], ids=["tenant", "user"])
async def test_what_is_for_a_tenant_or_user_of_the_service_is_not_shared(
    app: FastAPI, client: httpx.AsyncClient, depends_on: Any
):
    def header(connection: HTTPConnection) -> str:
        return connection.headers["x-for"]

    AgentService(database=False, tenant=header, user=header).install(app)

    async def greeting(whose: depends_on) -> str:
        return f"Hello {whose}"

    @app.get("/passes", dependencies=[Depends(cache_response(60))])
    async def passes(text: Annotated[str, Depends(greeting)]) -> str:
        return text

    @app.get("/keeps", dependencies=[Depends(cache_response(60, identity=header))])
    async def keeps(text: Annotated[str, Depends(greeting)]) -> str:
        return text

    async def ask(path: str, name: str) -> httpx.Response:
        return await client.get(path, headers={"X-For": name})

    passed, kept = [[await ask(path, name) for name in ("ann", "bob", "ann")] for path in ("/passes", "/keeps")]

    assert [each.json() for each in passed] == [each.json() for each in kept] == ["Hello ann", "Hello bob", "Hello ann"]
    assert {each.headers["cache-status"] for each in passed} == {"agent-service; fwd=bypass; detail=tenant"}
    assert "hit" in kept[2].headers["cache-status"]


async def test_where_there_is_one_tenant_what_is_for_it_is_shared(app: FastAPI, client: httpx.AsyncClient):
    AgentService(database=False).install(app)

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(tenant: Tenant) -> str:
        return f"of {tenant!r}"

    responses = [await client.get("/") for _ in range(2)]

    assert [each.json() for each in responses] == ["of ''"] * 2
    assert "hit" in responses[1].headers["cache-status"]
