"""For how long a response is fresh, and what clients may ask for: RFC 9111, sections 3, 4.2, 5.1 and 5.2."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response

from agent_service.core.settings import reset_settings
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache import InMemoryCache, close_cache
from agent_service.integrations.fastapi import cache_response
from agent_service.integrations.fastapi.responses.directives import directives, seconds_of
from agent_service.testing.clock import FakeClock
from tests.integrations.fastapi.responses.conftest import Counted

LONG_AGO = "Thu, 01 Jan 1998 00:00:00 GMT"


def date(seconds: int) -> str:
    return format_datetime(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (200, {}, 60),
        (200, {"Cache-Control": "max-age=10"}, 10),
        (200, {"Cache-Control": "MAX-AGE=10"}, 10),
        (200, {"Cache-Control": 'max-age="10"'}, 10),
        (200, {"Cache-Control": "max-age=10, s-maxage=20"}, 20),
        (200, {"Cache-Control": "public"}, 60),
        (200, {"Cache-Control": "max-age=0"}, 0),
        (200, {"Cache-Control": "max-age=ten"}, 0),
        (200, {"Cache-Control": "max-age=10, max-age=99"}, 10),
        (200, {"Cache-Control": "no-cache"}, 0),
        (200, {"Cache-Control": 'no-cache="x-a"'}, 0),
        (200, {"Cache-Control": 'x="no-store", max-age=10'}, 10),
        (200, {"Cache-Control": "max-age=30", "Age": "20"}, 10),
        (200, {"Cache-Control": "max-age=30", "Age": "30"}, 0),
        (200, {"Expires": date(20), "Date": date(0)}, 20),
        (200, {"Expires": date(0), "Date": date(20)}, 0),
        (200, {"Expires": "0"}, 0),
        (200, {"Expires": LONG_AGO}, 0),
        (200, {"Cache-Control": "max-age=10", "Expires": "0"}, 10),
        (203, {}, 60),
        (204, {}, 60),
        (301, {"Location": "/b"}, 60),
        (308, {"Location": "/b"}, 60),
        (201, {}, 0),
        (206, {"Cache-Control": "max-age=10"}, 0),
        (302, {"Location": "/b"}, 0),
        (302, {"Location": "/b", "Cache-Control": "max-age=10"}, 10),
        (400, {}, 0),
        (404, {}, 0),
        (404, {"Cache-Control": "max-age=10"}, 10),
        (410, {}, 0),
        (500, {}, 0),
        (503, {"Retry-After": "9"}, 0),
        (503, {"Cache-Control": "max-age=10"}, 10),
    ],
    ids=lambda each: " ".join(f"{name}: {value}" for name, value in each.items()) if isinstance(each, dict) else None,
)
async def test_a_response_is_served_for_as_long_as_it_is_fresh_and_no_longer(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, status: int, headers: dict[str, str], seconds: int
):
    clock = FakeClock()

    @app.get("/", dependencies=[Depends(cache_response(60, cache=InMemoryCache(clock=clock)))])
    async def read() -> Response:
        return Response(None if status == 204 else f"call {counted()}", status, headers)

    if status == 204:
        counted.calls = 1
    first = await client.get("/")
    assert first.status_code == status
    if not seconds:
        assert "hit" not in (await client.get("/")).headers["cache-status"]
        return

    clock.advance(seconds - 1)
    last = await client.get("/")
    assert (last.text, last.status_code) == (first.text, status)
    assert last.headers["cache-status"] == "agent-service; hit; ttl=1"
    assert last.headers["age"] == str(int(headers.get("Age", "0")) + seconds - 1)
    clock.advance(1)
    assert "hit" not in (await client.get("/")).headers["cache-status"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "max-age=60"),
        ({"ttl": timedelta(minutes=2)}, "max-age=120"),
        ({"ttl": NEVER}, "max-age=31536000"),
        ({"public": True}, "public, max-age=60"),
        ({"identity": lambda request: "a"}, "private, max-age=60"),
        ({"max_age": 0}, "max-age=0"),
        ({"max_age": 10, "s_maxage": 600}, "max-age=10, s-maxage=600"),
        ({"stale_for": 300}, "max-age=60, stale-if-error=300"),
        ({"stale_for": 300, "soft_timeout": 0}, "max-age=60, stale-while-revalidate=300, stale-if-error=300"),
        ({"soft_timeout": 0.1}, "max-age=60"),
    ],
)
async def test_clients_are_told_what_the_options_say(
    app: FastAPI, client: httpx.AsyncClient, options: dict[str, Any], expected: str
):
    @app.get("/", dependencies=[Depends(cache_response(**{"ttl": 60, "cache": InMemoryCache(), **options}))])
    async def read() -> str:
        return "content"

    assert [(await client.get("/")).headers["cache-control"] for _ in range(2)] == [expected] * 2


async def test_clients_are_told_what_the_route_says_where_it_says_something(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60, public=True, cache=InMemoryCache()))])
    async def read(response: Response) -> str:
        response.headers["Cache-Control"] = "max-age=5, immutable"
        return "content"

    assert [(await client.get("/")).headers["cache-control"] for _ in range(2)] == ["max-age=5, immutable"] * 2


async def test_the_default_ttl_is_that_of_the_cache(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(cache=InMemoryCache(default_ttl=42)))])
    async def read() -> str:
        return "content"

    assert (await client.get("/")).headers["cache-control"] == "max-age=42"


async def test_a_route_keeps_nothing_of_the_settings_that_it_was_made_under(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    @app.get("/", dependencies=[Depends(cache_response())])
    async def read() -> str:
        return "content"

    told = []
    for seconds in ("7", "42"):
        monkeypatch.setenv("CACHE_DEFAULT_TTL", seconds)
        reset_settings()
        told.append((await client.get("/")).headers["cache-control"])
        await close_cache()

    assert told == ["max-age=7", "max-age=42"]


@pytest.mark.parametrize(
    ("wish", "numbers"),
    [
        ({"Cache-Control": "no-cache"}, [2, 2]),
        ({"Pragma": "no-cache"}, [2, 2]),
        ({"Pragma": "no-cache", "Cache-Control": "max-age=100"}, [1, 1]),
        ({"Cache-Control": "max-age=0"}, [2, 2]),
        ({"Cache-Control": "max-age=9"}, [2, 2]),
        ({"Cache-Control": "max-age=10"}, [1, 1]),
        ({"Cache-Control": "min-fresh=50"}, [1, 1]),
        ({"Cache-Control": "min-fresh=51"}, [2, 2]),
        ({"Cache-Control": "max-stale=5"}, [1, 1]),
        ({"Cache-Control": "no-store"}, [2, 1]),
        ({"Cache-Control": "only-if-cached"}, [1, 1]),
        ({"Cache-Control": "max-age=x"}, [2, 2]),
    ],
)
@pytest.mark.parametrize("allowed", [True, False], ids=["may", "may not"])
async def test_clients_may_force_a_load_where_the_route_lets_them(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, wish: dict[str, str], numbers: list[int], allowed: bool
):
    clock = FakeClock()
    cache = cache_response(60, client_reload=allowed, cache=InMemoryCache(clock=clock))

    @app.get("/", dependencies=[Depends(cache)])
    async def read() -> int:
        return counted()

    await client.get("/")
    clock.advance(10)
    answers = [(await client.get("/", headers=each)).json() for each in (wish, {})]

    assert answers == (numbers if allowed else [1, 1])


async def test_only_if_cached_loads_nothing(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/", dependencies=[Depends(cache_response(60, cache=InMemoryCache(), failure_backoff=60))])
    async def read() -> int:
        return counted()

    missing = await client.get("/", headers={"Cache-Control": "only-if-cached"})
    await client.get("/")
    found = await client.get("/", headers={"Cache-Control": "only-if-cached"})

    assert (missing.status_code, missing.content) == (504, b"")
    assert missing.headers["cache-status"] == "agent-service; fwd=uri-miss; detail=only-if-cached"
    assert found.json() == counted.calls == 1


@pytest.mark.parametrize(
    ("stated", "served"),
    [
        ("max-age=60", True),
        ("max-age=60, must-revalidate", False),
        ("max-age=60, proxy-revalidate", False),
        ("s-maxage=60", False),
    ],
)
async def test_a_stale_response_is_served_unless_the_route_forbids_it(
    app: FastAPI, client: httpx.AsyncClient, stated: str, served: bool
):
    clock, fails = FakeClock(), False

    @app.get("/", dependencies=[Depends(cache_response(60, stale_for=300, cache=InMemoryCache(clock=clock)))])
    async def read(response: Response) -> str:
        if fails:
            raise HTTPException(503)
        response.headers["Cache-Control"] = stated
        return "content"

    await client.get("/")
    fails = True
    clock.advance(100)
    response = await client.get("/")

    assert response.status_code == (200 if served else 503)
    if served:
        assert response.headers["cache-status"] == "agent-service; hit; ttl=-40; detail=error"
        assert response.headers["age"] == "100"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("", {}),
        ("max-age=5", {"max-age": "5"}),
        ("No-Store , max-age = 5", {"no-store": "", "max-age": "5"}),
        ('private="a, b", no-cache', {"private": "a, b", "no-cache": ""}),
        ('x="a\\"b", y', {"x": 'a\\"b', "y": ""}),
        (",, max-age=5,,public,", {"max-age": "5", "public": ""}),
        ("max-age=1, max-age=2", {"max-age": "1"}),
        ('max-age=1, x="never closed, no-store', {"max-age": "1", "": 'x="never closed, no-store'}),
        ("max-age=1; private", {"": "max-age=1; private"}),
        ("max-age=1 ,, \t", {"max-age": "1"}),
    ],
)
def test_directives_are_read(field: str, expected: dict[str, str]):
    assert directives(field) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("007", 7), ("-1", 0), ("1.5", 0), ("", 0), ("٣", 0), ("9" * 5000, 2**31)]
)
def test_seconds_are_digits(text: str, expected: int):
    assert seconds_of({"max-age": text}, "max-age") == expected
    assert seconds_of({}, "max-age") is None


@pytest.mark.parametrize("field", ["a,," * 30_000, ", " * 50_000, '"' * 100_000, 'a="' * 30_000, "a=" * 50_000])
def test_a_hostile_cache_control_is_read_in_the_time_that_its_length_takes(field: str):
    directives(field)
