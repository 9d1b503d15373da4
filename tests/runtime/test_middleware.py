"""The middleware binds each request's shared state, whatever the framework, and leaves streams alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from agent_service.runtime import AgentRuntime, SharedStateMiddleware
from agent_service.tenants.current import current_shared_state


def owner_in_headers(scope: Any) -> tuple[str, str] | None:
    headers = dict(scope["headers"])
    if b"x-user" not in headers:
        return None
    return headers.get(b"x-tenant", b"acme").decode(), headers[b"x-user"].decode()


async def owner_looked_up(scope: Any) -> tuple[str, str] | None:
    await asyncio.sleep(0)
    return owner_in_headers(scope)


def bound_user() -> str | None:
    state = current_shared_state.get(None)
    return state.user_id if state is not None else None


def app_with(resolver: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SharedStateMiddleware, resolver=resolver)

    @app.get("/who")
    async def who() -> str | None:
        await asyncio.sleep(0)
        return bound_user()

    @app.get("/who-in-a-thread")
    def who_in_a_thread() -> str | None:
        return bound_user()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for number in range(3):
                yield f"{number}:{bound_user()};"

        return StreamingResponse(body())

    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("resolver", [owner_in_headers, owner_looked_up])
@pytest.mark.parametrize("path", ["/who", "/who-in-a-thread"])
async def test_a_hundred_requests_at_once_each_see_their_own_state(resolver: Any, path: str):
    async with client_of(app_with(resolver)) as client:
        users = [f"user-{number}" for number in range(100)]
        answers = await asyncio.gather(*(client.get(path, headers={"x-user": user}) for user in users))

    assert [each.json() for each in answers] == users
    assert bound_user() is None


async def test_a_request_of_nobody_binds_nothing():
    async with client_of(app_with(owner_in_headers)) as client:
        assert (await client.get("/who")).json() is None


async def test_a_stream_sees_the_state_to_its_last_chunk():
    async with client_of(app_with(owner_in_headers)) as client:
        answer = await client.get("/stream", headers={"x-user": "alice"})

    assert answer.text == "0:alice;1:alice;2:alice;"


@pytest.mark.parametrize(("kind", "user"), [("http", "bob"), ("websocket", "bob"), ("lifespan", None)])
async def test_requests_and_web_sockets_see_a_state_and_lifespan_passes(kind: str, user: str | None):
    seen: list[str | None] = []

    async def app(*_: Any) -> None:
        seen.append(bound_user())

    async def nothing(*_: Any) -> Any:
        return None

    scope = {"type": kind} if kind == "lifespan" else {"type": kind, "headers": [(b"x-user", b"bob")]}
    await SharedStateMiddleware(app, owner_in_headers)(scope, nothing, nothing)

    assert seen == [user]


async def test_chunks_are_sent_when_they_are_made():
    sent: list[bytes] = []
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        return {"type": "http.request"}

    wrapped = SharedStateMiddleware(app, owner_in_headers)
    serving = asyncio.create_task(wrapped({"type": "http", "headers": [(b"x-user", b"alice")]}, receive, send))
    await asyncio.sleep(0.01)
    before = list(sent)
    go.set()
    await serving

    assert before == [b"", b"first"]
    assert sent == [b"", b"first", b"last"]


async def test_what_the_endpoint_raises_passes_and_the_binding_ends():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError(bound_user())

    async def nothing(*_: Any) -> Any:
        return None

    with pytest.raises(LookupError, match="alice"):
        await SharedStateMiddleware(app, owner_in_headers)(
            {"type": "http", "headers": [(b"x-user", b"alice")]}, nothing, nothing
        )
    assert bound_user() is None


async def test_an_owner_that_cannot_be_one_is_refused(runtime: AgentRuntime):
    async with client_of(app_with(owner_in_headers)) as client:
        with pytest.raises(ValueError, match="user_id"):
            await client.get("/who", headers={"x-user": ""})
