"""Rate limits of requests: what is let through, and what clients are told."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import InMemoryCache, close_cache
from agent_service.infrastructure.limits import RateLimiter
from agent_service.integrations.fastapi import CachedRoute, RateLimitHeaders, cache_response, client_ip, rate_limit
from agent_service.integrations.fastapi.problems import add_problem_handlers
from agent_service.testing.clock import FakeClock
from tests.integrations.fastapi.responses.conftest import client_of
from tests.servers.redis import RedisServer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> InMemoryCache[Any]:
    return InMemoryCache(clock=clock)


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(RateLimitHeaders)
    app.router.route_class = CachedRoute
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def user_of(request: Request) -> str:
    return request.headers.get("x-user", "nobody")


async def tokens_of(request: Request) -> int:
    return int(request.query_params.get("tokens", "1"))


async def test_a_request_too_many_is_answered_with_a_problem(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any], clock: FakeClock
):
    limiter = RateLimiter("chat", "2/minute", "100/day", cache=cache)

    @app.get("/", dependencies=[Depends(rate_limit(limiter))])
    async def read() -> str:
        return "content"

    first, second, third = [await client.get("/") for _ in range(3)]

    assert [each.status_code for each in (first, second, third)] == [200, 200, 429]
    assert first.headers["ratelimit-policy"] == '"chat-60s";q=2;w=60, "chat-86400s";q=100;w=86400'
    assert first.headers["ratelimit"].startswith('"chat-60s";r=1;t=6')
    assert third.headers["ratelimit"].startswith('"chat-60s";r=0;t=6')
    assert '"chat-86400s";r=98' in third.headers["ratelimit"]
    assert third.headers["content-type"] == "application/problem+json"
    seconds = int(third.headers["retry-after"])
    assert 60 <= seconds <= 61
    assert third.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": f"The limit of chat is reached; try again in {seconds} seconds.",
    }
    assert "retry-after" not in first.headers
    clock.advance(seconds)
    assert (await client.get("/")).status_code == 200


async def test_keys_and_weights_are_functions_of_the_request(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter = RateLimiter("tokens", "100/minute", cache=cache)

    @app.get("/", dependencies=[Depends(rate_limit(limiter, key=user_of, weight=tokens_of))])
    async def read() -> str:
        return "content"

    async def ask(user: str, tokens: int) -> int:
        return (await client.get(f"/?tokens={tokens}", headers={"x-user": user})).status_code

    assert [await ask("ann", 60), await ask("ann", 60), await ask("bob", 60), await ask("ann", 40)] == [
        200, 429, 200, 200,
    ]  # fmt: skip


async def test_a_weight_that_no_waiting_helps_is_a_422_that_says_so(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter = RateLimiter("tokens", "100/minute", cache=cache)

    @app.get("/", dependencies=[Depends(rate_limit(limiter, weight=tokens_of))])
    async def read() -> str:
        return "content"

    response = await client.get("/?tokens=101")

    assert response.status_code == 422
    assert "weight must be at most 100" in response.json()["detail"]
    assert "retry-after" not in response.headers


async def test_what_a_route_returns_or_streams_by_itself_has_the_headers(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter, other = RateLimiter("a", "9/minute", cache=cache), RateLimiter("b", "9/hour", cache=cache)

    @app.get("/response", dependencies=[Depends(rate_limit(limiter)), Depends(rate_limit(other))])
    async def response() -> Response:
        return Response("content")

    @app.get("/stream", dependencies=[Depends(rate_limit(limiter))])
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            yield "piece"

        return StreamingResponse(pieces())

    @app.get("/free")
    async def free() -> str:
        return "content"

    both, one, none = [await client.get(path) for path in ("/response", "/stream", "/free")]

    assert both.headers["ratelimit-policy"] == '"a-60s";q=9;w=60, "b-3600s";q=9;w=3600'
    assert one.headers["ratelimit"].startswith('"a-60s";r=7')
    assert "ratelimit" not in none.headers


async def test_what_the_cache_answers_counts_and_a_load_counts_once(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter = RateLimiter("chat", "3/minute", cache=cache)
    cached = cache_response(60, cache=InMemoryCache())

    @app.get("/", dependencies=[Depends(rate_limit(limiter)), Depends(cached)])
    async def read() -> str:
        return "content"

    responses = [await client.get("/") for _ in range(4)]

    assert [each.status_code for each in responses] == [200, 200, 200, 429]
    assert [each.headers["ratelimit"].split(";")[1] for each in responses] == ["r=2", "r=1", "r=0", "r=0"]
    assert "hit" in responses[2].headers["cache-status"]


async def test_one_limiter_is_asked_for_several_keys_of_a_request(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter = RateLimiter("chat", "3/minute", cache=cache)
    limits = [Depends(rate_limit(limiter, key=key)) for key in (client_ip, user_of)]

    @app.get("/", dependencies=[*limits, Depends(cache_response(60, cache=InMemoryCache()))])
    async def read() -> str:
        return "content"

    responses = [await client.get("/", headers={"X-User": user}) for user in ("ann", "ann", "bob", "cid")]

    assert [each.status_code for each in responses] == [200, 200, 200, 429]  # all come from one address
    assert [each.headers["ratelimit"].split(";")[1] for each in responses] == ["r=2", "r=1", "r=0", "r=0"]


async def test_a_key_that_is_no_text_is_the_fault_of_the_service(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter = RateLimiter("chat", "3/minute", cache=cache)
    app.add_api_route("/", user_of, dependencies=[Depends(rate_limit(limiter, key=lambda request: None))])  # type: ignore[arg-type, return-value]

    with pytest.raises(ConfigurationError, match="key= of a limit by chat must return a str, got NoneType"):
        await client.get("/")


async def test_a_limit_without_the_middleware_says_what_is_missing(cache: InMemoryCache[Any]):
    app = FastAPI()

    @app.get("/", dependencies=[Depends(rate_limit(RateLimiter("chat", "1/minute", cache=cache)))])
    async def read() -> str:
        return "content"

    async with client_of(app) as client:
        with pytest.raises(ConfigurationError, match=r"app\.add_middleware\(RateLimitHeaders\)"):
            await client.get("/")


async def test_a_mounted_application_shares_the_decisions_of_a_request(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    inner = FastAPI()
    inner.add_middleware(RateLimitHeaders)

    @inner.get("/", dependencies=[Depends(rate_limit(RateLimiter("chat", "9/minute", cache=cache)))])
    async def read() -> str:
        return "content"

    app.mount("/inner", inner)
    response = await client.get("/inner/")

    assert response.headers.get_list("ratelimit-policy") == ['"chat-60s";q=9;w=60']


async def test_without_an_address_there_is_no_limit_by_address(app: FastAPI, cache: InMemoryCache[Any]):
    app.add_api_route("/", user_of, dependencies=[Depends(rate_limit(RateLimiter("chat", "9/minute", cache=cache)))])
    request = Request({"type": "http", "client": None, "headers": []})

    with pytest.raises(ConfigurationError, match="another key="):
        client_ip(request)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weight": 0}, "weight must be an int from 1 to 9"),
        ({"weight": 10}, "weight must be an int from 1 to 9"),
        ({"weight": True}, "weight must be an int"),
        ({"key": "user"}, "key must be a function"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_where_it_is_written(options: dict[str, Any], match: str):
    with pytest.raises(ConfigurationError, match=match):
        rate_limit(RateLimiter("chat", "9/minute"), **options)
    with pytest.raises(ConfigurationError, match="must be a RateLimiter"):
        rate_limit("9/minute")  # type: ignore[arg-type] # what it is about


async def test_no_request_fails_while_redis_is_down(
    app: FastAPI, client: httpx.AsyncClient, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    reset_settings()

    @app.get("/", dependencies=[Depends(rate_limit(RateLimiter("chat", "5/hour")))])
    async def read() -> str:
        return "content"

    before = [(await client.get("/")).status_code for _ in range(6)]
    own_redis.kill()
    meanwhile = [(await client.get("/")).status_code for _ in range(6)]
    await close_cache()

    assert before == meanwhile == [200] * 5 + [429]


async def test_a_limit_that_an_endpoint_requires_itself_is_answered_with_a_problem(
    app: FastAPI, client: httpx.AsyncClient, cache: InMemoryCache[Any]
):
    limiter = RateLimiter("tokens", "10/minute", cache=cache)

    @app.get("/{weight}")
    async def spend(weight: int) -> str:
        await limiter.require("ann", weight)
        return "spent"

    spent, too_much, never = [await client.get(f"/{weight}") for weight in (10, 1, 11)]

    assert [each.status_code for each in (spent, too_much, never)] == [200, 429, 422]
    assert 60 <= int(too_much.headers["retry-after"]) <= 61
    assert too_much.json()["type"] == "urn:agent-service:rate-limit"
    assert never.json()["errors"][0]["field"] == "weight"
