"""Who may do what: the application's ``authorize`` decides about every request."""

from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.routing import APIRoute
from fastapi.security import OAuth2PasswordBearer, SecurityScopes

from agent_service.core.errors import ConfigurationError, SessionValueError
from agent_service.infrastructure.database.models.session import Session
from agent_service.integrations.fastapi.sessions import Caller, Operation, sessions_router
from tests.integrations.fastapi.rest.conftest import As, application, authorize, begin

REQUESTS: dict[str, list[tuple[str, str, Any]]] = {
    "sessions:create": [("POST", "/sessions", {})],
    "sessions:list": [("GET", "/sessions", None), ("GET", "/sessions/pages", None)],
    "sessions:search": [("GET", "/sessions/search?q=x", None), ("GET", "/sessions/search/messages?q=x", None)],
    "sessions:stats": [("GET", "/sessions/stats", None), ("GET", "/sessions/stats/agent", None)],
    "sessions:export": [("GET", "/sessions/export", None)],
    "sessions:erase": [("DELETE", "/sessions?user_id=ada", None)],
    "sessions:read": [
        ("GET", "{path}", None), ("GET", "{path}/messages", None), ("GET", "{path}/context", None),
        ("GET", "{path}/metadata", None), ("GET", "/sessions/by-external-id?external_id=thread", None),
    ],
    "sessions:append": [
        ("POST", "{path}/messages", {"role": "user"}),
        ("POST", "{path}/messages/batch", {"messages": [{"message": {"role": "user"}}]}),
    ],
    "sessions:stream": [("GET", "{path}/events", None)],
    "sessions:fork": [("POST", "{path}/fork", {"seq": 0})],
    "sessions:update": [
        ("PATCH", "{path}", {"title": "x"}), ("PUT", "{path}/context", {}), ("PATCH", "{path}/context", {}),
        ("PUT", "{path}/metadata", {}), ("PATCH", "{path}/metadata", {}),
    ],
    "sessions:delete": [
        ("DELETE", "{path}/messages/last", None), ("POST", "{path}/restore", None), ("DELETE", "{path}", None),
        ("DELETE", "{path}?hard=true", None),
    ],
}  # fmt: skip
"""A request to each route, by the operation that it is."""
ALL = [(operation, *each) for operation, requests in REQUESTS.items() for each in requests]


async def send(client: httpx.AsyncClient, method: str, url: str, body: Any, path: str) -> httpx.Response:
    return await client.request(method, url.format(path=path), json=body)


async def everything(client: httpx.AsyncClient) -> str:
    """Return all that is stored of a user, without the moments that hiding and restoring change."""
    return (await client.get("/sessions/export")).text


def test_the_requests_of_these_tests_reach_every_route() -> None:
    routes = {
        (method, route.path)
        for route in sessions_router(authorize=authorize).routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    assert len(routes) == len({(method, url.split("?")[0]) for _, method, url, _ in ALL})
    assert REQUESTS.keys() == {each.value for each in Operation}


@pytest.mark.parametrize("given", [None, "authorize", 7])
def test_a_router_without_an_authorize_is_not_made(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="authorize must be a FastAPI dependency"):
        sessions_router(authorize=given)


def test_authorize_cannot_be_left_out() -> None:
    with pytest.raises(TypeError, match="authorize"):
        sessions_router()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options", [{"max_body_size": 0}, {"max_body_size": True}, {"heartbeat": 0}, {"heartbeat": "1"}, {"heartbeat": 1e9}]
)
def test_options_that_cannot_be_used_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        sessions_router(**{"authorize": authorize} | options)


async def test_a_caller_that_nobody_knows_is_told_nothing(as_: As, ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "hello", external_id="thread")
    before = await everything(ada)
    stranger = as_(None)

    for _, method, url, body in ALL:
        answer = await send(stranger, method, url, body, path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), url
        assert answer.headers["content-type"] == "application/problem+json"
    assert await everything(ada) == before


@pytest.mark.parametrize("operation", REQUESTS)
async def test_an_operation_that_is_refused_does_nothing(as_: As, ada: httpx.AsyncClient, operation: str) -> None:
    path = await begin(ada, "hello", external_id="thread")
    before = await everything(ada)

    for method, url, body in REQUESTS[operation]:
        answer = await send(as_("ada", denied=operation), method, url, body, path)
        assert (answer.status_code, answer.json()["detail"]) == (403, f"not {operation}")
    assert await everything(ada) == before


async def test_the_session_of_another_user_does_not_exist(as_: As, ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "hello", external_id="thread")
    hidden = await begin(ada, "hidden")
    await ada.delete(hidden)
    before = await everything(ada)
    bob = as_("bob")

    for _, method, url, body in ALL:
        for each in (path, hidden) if "{path}" in url or "external" in url else ():
            answer = await send(bob, method, url, body, each)
            assert answer.status_code == 404, (method, url)
            assert "ada" not in answer.text
    assert await everything(ada) == before


async def test_lists_show_only_the_callers_own(as_: As, ada: httpx.AsyncClient) -> None:
    await begin(ada, "secret", title="secret")
    bob = as_("bob")
    await begin(bob)

    shown = [
        await bob.get(url)
        for url in (
            "/sessions", "/sessions/pages", "/sessions/search?q=secret", "/sessions/search/messages?q=secret",
            "/sessions/stats", "/sessions/stats/agent", "/sessions/export",
        )
    ]  # fmt: skip

    assert [each.status_code for each in shown] == [200] * 7
    assert not any("secret" in each.text or '"ada"' in each.text for each in shown)
    assert shown[1].json()["total"] == shown[4].json()["total_sessions"] == 1


async def test_another_user_can_be_named_by_those_who_may(as_: As, ada: httpx.AsyncClient) -> None:
    await begin(ada, "secret")
    urls = [url for name in ("list", "search", "stats", "export") for _, url, _ in REQUESTS[f"sessions:{name}"]]
    named = [f"{url}{'&' if '?' in url else '?'}user_id=ada" for url in urls]

    for client, status in ((as_("bob"), 403), (as_("bob", staff="1"), 200), (ada, 200)):
        assert [(await client.get(url)).status_code for url in named] == [status] * len(named)
        made = await client.post("/sessions", json={"user_id": "ada"})
        assert made.status_code == (403 if status == 403 else 201)
    assert (await as_("bob").delete("/sessions?user_id=ada")).status_code == 403
    assert (await as_("bob", staff="1").delete("/sessions?user_id=ada")).json() == {"sessions": 3}


async def test_a_user_whose_id_is_a_uuid_is_the_same_user(as_: As) -> None:
    user = as_(str(UUID(int=5)))

    path = await begin(user, "hello")

    assert (await user.get(path)).json()["user_id"] == str(UUID(int=5))
    assert len((await user.get(f"/sessions?user_id={UUID(int=5)}")).json()["items"]) == 1


async def test_nothing_of_one_tenant_is_seen_by_another(as_: As) -> None:
    first, second = as_("ada", tenant="acme", staff="1"), as_("ada", tenant="acme2", staff="1")
    path = await begin(first, "secret", external_id="thread", title="secret")
    before = await everything(first)

    for _, method, url, body in ALL:
        answer = await send(second, method, url, body, path)
        assert "secret" not in answer.text
        assert answer.status_code == 404 or "{path}" not in url
    assert await everything(first) == before
    # Nor is an id or external id taken: two tenants may use the same.
    assert (await second.post("/sessions", json={"id": path[-36:], "external_id": "thread"})).status_code == 201


async def test_a_caller_of_another_tenant_than_the_requests_is_refused(database_url: str) -> None:
    async def forgetful(x_user: Annotated[str, Header()]) -> Caller:
        return Caller(user_id=x_user)

    app, service = application(database_url, authorize=forgetful)

    async with service.lifespan(app), clients(app) as client:
        answer = await client.get("/sessions", headers={"x-user": "ada", "x-tenant": "acme"})

    assert answer.status_code == 403


@dataclass(frozen=True, kw_only=True)
class Guest(Caller):
    """Sees what is shared with it, may add to it, and nothing else; of its own, only what is no secret."""

    def may(self, operation: Operation, session: Session) -> bool:
        shared = self.user_id in session.session_metadata.get("shared_with", ())
        if shared and operation in {Operation.READ, Operation.APPEND}:
            return True
        return super().may(operation, session) and session.title != "secret"


async def test_an_application_decides_about_single_sessions(database_url: str) -> None:
    async def guest(x_user: Annotated[str, Header()]) -> Caller:
        return Guest(user_id=x_user)

    app, service = application(database_url, authorize=guest)

    async with service.lifespan(app), clients(app) as client:
        ada, bob = {"x-user": "ada"}, {"x-user": "bob"}
        shared = await client.post("/sessions", json={"metadata": {"shared_with": ["bob"]}}, headers=ada)
        secret = await client.post("/sessions", json={"title": "secret"}, headers=ada)
        path = shared.headers["location"]
        read = await client.get(path, headers=bob)
        said = await client.post(f"{path}/messages", json={"role": "user"}, headers=bob)
        changed = await client.patch(path, json={"title": "mine"}, headers=bob)
        removed = await client.delete(path, headers=bob)
        listed = [(await client.get(url, headers=ada)).json() for url in ("/sessions", "/sessions/pages")]
        own_secret = await client.get(secret.headers["location"], headers=ada)

    assert [each.status_code for each in (read, said, changed, removed, own_secret)] == [200, 201, 403, 403, 404]
    assert "sessions:update" in changed.json()["detail"]
    assert [[each["id"] for each in page["items"]] for page in listed] == [[path[-36:]]] * 2


async def test_authorize_is_a_dependency_like_any_other(database_url: str) -> None:
    scheme = OAuth2PasswordBearer("token")

    async def by_token(scopes: SecurityScopes, token: Annotated[str, Depends(scheme)]) -> Caller:
        return Caller(user_id=f"{token} {scopes.scope_str}")

    app, service = application(database_url, shared=False, authorize=by_token)

    async with service.lifespan(app), clients(app) as client:
        token = {"authorization": "Bearer ada"}
        made = await client.post("/sessions", json={}, headers=token)
        anonymous = await client.post("/sessions", json={})
        app.dependency_overrides[by_token] = lambda: Caller(user_id="tester")
        replaced = await client.post("/sessions", json={})

    assert made.json()["user_id"] == "ada sessions:create"
    assert anonymous.status_code == 401
    assert replaced.json()["user_id"] == "tester"
    operation = app.openapi()["paths"]["/sessions"]["post"]
    assert operation["security"] == [{"OAuth2PasswordBearer": ["sessions:create"]}]


async def test_an_authorize_that_returns_no_caller_lets_nobody_in(database_url: str) -> None:
    app, service = application(database_url, authorize=lambda: True)

    async with service.lifespan(app), clients(app) as client:
        with pytest.raises(ConfigurationError, match="authorize must return a Caller, it returned bool"):
            await client.get("/sessions")


@pytest.mark.parametrize("given", [{"user_id": ""}, {"user_id": None}, {"user_id": "a", "tenant_id": 5}])
def test_a_caller_that_no_session_can_have_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SessionValueError, match=r"user_id|tenant_id"):
        Caller(**given)


def clients(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
