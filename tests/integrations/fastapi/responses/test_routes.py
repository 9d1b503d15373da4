"""A cached route: what runs on a hit and on a miss."""

import asyncio
import pathlib
from collections.abc import AsyncIterator
from datetime import date
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, StringConstraints

from agent_service.core.errors import CacheKeyError, CacheValueError, ConfigurationError
from agent_service.infrastructure.cache import cache_invalidate, get_cache
from agent_service.integrations.fastapi import CachedRoute, cache_response
from agent_service.integrations.fastapi.responses.dependency import NAMESPACE
from tests.integrations.fastapi.responses.conftest import Counted, client_of
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("anywhere")


class Item(BaseModel):
    number: int
    call: int


async def test_the_second_request_is_answered_by_the_cache(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/items/{number}", dependencies=[Depends(cache_response(60))])
    async def item(number: int) -> Item:
        return Item(number=number, call=counted())

    first = await client.get("/items/1")
    second = await client.get("/items/1")
    other = await client.get("/items/2")

    assert first.json() == second.json() == {"number": 1, "call": 1}
    assert other.json() == {"number": 2, "call": 2}
    assert first.headers["cache-control"] == second.headers["cache-control"] == "max-age=60"
    assert first.headers["etag"] == second.headers["etag"] != other.headers["etag"]
    assert (first.headers["cache-status"], "age" in first.headers) == ("agent-service; fwd=uri-miss", False)
    assert second.headers["cache-status"].startswith("agent-service; hit; ttl=")
    assert second.headers["age"] == "0"
    assert second.headers["content-type"] == "application/json"
    assert second.headers["content-length"] == str(len(second.content))


async def test_an_included_router_is_cached_and_keeps_its_prefix_and_overrides(counted: Counted):
    def greeting() -> str:
        return "hello"

    router = APIRouter(route_class=CachedRoute)

    @router.get("/{name}", dependencies=[Depends(cache_response(60))])
    async def greet(name: str, word: Annotated[str, Depends(greeting)]) -> str:
        return f"{word} {name} {counted()}"

    app = FastAPI()
    app.include_router(router, prefix="/greetings")
    app.dependency_overrides[greeting] = lambda: "goodbye"

    async with client_of(app) as client:
        texts = [(await client.get("/greetings/ann")).json() for _ in range(2)]

    assert texts == ["goodbye ann 1"] * 2


async def test_what_stands_before_the_cache_runs_for_every_request(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    seen: list[str] = []
    allowed = {"x-key": "valid"}

    async def require_key(request: Request) -> AsyncIterator[None]:
        if request.headers.get("x-key") != "valid":
            raise HTTPException(403)
        seen.append("before")
        try:
            yield
        except BaseException:
            seen.append("failed")
            raise
        seen.append("ended")

    def after() -> None:
        seen.append("after")

    @app.get("/", dependencies=[Depends(require_key), Depends(cache_response(60)), Depends(after)])
    async def read() -> int:
        return counted()

    assert (await client.get("/")).status_code == 403
    assert (await client.get("/", headers=allowed)).json() == 1
    seen.clear()
    assert (await client.get("/", headers=allowed)).json() == 1
    assert (await client.get("/")).status_code == 403
    assert seen == ["before", "ended"]


async def test_a_route_that_the_cache_cannot_answer_says_so(counted: Counted):
    app = FastAPI()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        return counted()

    async with client_of(app) as client:
        with pytest.raises(ConfigurationError, match="route_class=CachedRoute"):
            await client.get("/")


async def test_the_signature_and_the_schema_of_an_endpoint_stay_as_they_are(app: FastAPI):
    @app.get("/items/{number}", dependencies=[Depends(cache_response(60))])
    async def item(number: int, page: int = 1) -> Item:
        return Item(number=number, call=page)

    assert await item(1, page=2) == Item(number=1, call=2)
    parameters = app.openapi()["paths"]["/items/{number}"]["get"]["parameters"]
    assert [each["name"] for each in parameters] == ["number", "page"]


async def test_other_methods_pass_the_cache_by(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.api_route("/", methods=["GET", "POST", "DELETE"], dependencies=[Depends(cache_response(60))])
    async def run() -> int:
        return counted()

    for method in ("POST", "POST", "DELETE", "GET", "GET", "POST"):
        response = await client.request(method, "/")
        assert method == "GET" or response.headers["cache-status"] == "agent-service; fwd=method"

    assert counted.calls == 5


async def test_head_is_answered_from_the_entry_of_get_and_makes_it(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.api_route("/", methods=["GET", "HEAD"], dependencies=[Depends(cache_response(60))])
    async def read(request: Request) -> str:
        return f"content {counted()} of {request.method}"

    head = await client.head("/")
    get = await client.get("/")
    again = await client.head("/")

    assert get.json() == "content 1 of GET"
    assert head.content == again.content == b""
    assert head.headers["content-length"] == again.headers["content-length"] == str(len(get.content))
    assert head.headers["etag"] == get.headers["etag"]


async def test_a_head_of_its_own_never_makes_the_entry_of_get(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    cache = cache_response(60)

    @app.head("/", dependencies=[Depends(cache)])
    async def head() -> Response:
        return Response(headers={"X-Head": f"{counted()}"})

    @app.get("/", dependencies=[Depends(cache)])
    async def read() -> str:
        return "content"

    first = await client.head("/")
    get = await client.get("/")
    second = await client.head("/")

    assert get.json() == "content"
    assert [first.headers["x-head"], second.headers["x-head"]] == ["1", "2"]


async def test_a_response_object_is_cached_with_its_headers_and_status(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> Response:
        headers = {"X-Made-By": f"call {counted()}", "Connection": "X-Hop", "X-Hop": "1", "Content-Language": "de"}
        return Response("é", 203, headers, "text/plain")

    await client.get("/")
    second = await client.get("/")

    assert (second.status_code, second.text) == (203, "é")
    assert second.headers["x-made-by"] == "call 1"
    assert second.headers["content-language"] == "de"
    assert second.headers["content-type"] == "text/plain; charset=utf-8"
    assert not {"x-hop", "connection"} & second.headers.keys()


async def test_a_response_with_several_headers_of_one_name_keeps_them(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(response: Response) -> str:
        response.headers.append("link", "<a>")
        response.headers.append("link", "<b>")
        return "linked"

    await client.get("/")

    assert (await client.get("/")).headers.get_list("link") == ["<a>", "<b>"]


async def test_a_plain_endpoint_runs_in_a_thread_and_is_cached(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    def read() -> int:
        return counted()

    assert [(await client.get("/")).json() for _ in range(3)] == [1, 1, 1]


async def test_a_request_that_the_route_refuses_is_not_stored(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/items/{number}", dependencies=[Depends(cache_response(60, tags=["item:{number}"]))])
    async def item(number: int) -> int:
        return number

    for _ in range(2):
        response = await client.get("/items/one")
        assert response.status_code == 422
        assert response.headers.keys().isdisjoint({"age", "etag", "cache-status"})


async def test_a_response_does_not_wait_for_background_tasks(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    gate, done = asyncio.Event(), list[int]()

    async def later() -> None:
        await gate.wait()
        done.append(1)

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(tasks: BackgroundTasks) -> int:
        tasks.add_task(later)
        return counted()

    assert [(await client.get("/")).json() for _ in range(2)] == [1, 1]
    assert done == []
    gate.set()
    await until(lambda: done == [1])


async def test_what_fails_after_the_answer_is_logged(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
):
    def fail() -> None:
        raise LookupError("too late")

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "answered"

    assert (await client.get("/")).json() == "answered"
    await until(lambda: "failed after it had answered" in caplog.text)


async def test_a_stream_reaches_its_client_as_it_is_made(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, caplog: pytest.LogCaptureFixture
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> StreamingResponse:
        async def numbers() -> AsyncIterator[str]:
            for number in range(3):
                yield f"{number} of {counted()};"

        return StreamingResponse(numbers(), media_type="text/event-stream")

    first = await client.get("/")
    caplog.clear()
    second = await client.get("/")

    assert first.text.count(";") == second.text.count(";") == 3
    assert first.text != second.text
    assert second.headers["cache-status"] == "agent-service; fwd=bypass; detail=stream"
    assert "etag" not in first.headers.keys() | second.headers.keys()
    assert caplog.records == []  # the first one was logged, once


async def test_an_endless_stream_begins_at_once(app: FastAPI):
    """httpx collects what an application sends, so the application is called as a server does."""
    first_piece = asyncio.Event()

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            while True:
                yield "data: tick\n\n"
                await asyncio.sleep(3600)

        return StreamingResponse(ticks(), media_type="text/event-stream")

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: Any) -> None:
        if message.get("body"):
            first_piece.set()

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "scheme": "http"}
    task = asyncio.create_task(app({**scope, "asgi": {"version": "3.0"}, "root_path": ""}, receive, send))
    async with asyncio.timeout(60):
        await first_piece.wait()
    task.cancel()
    await asyncio.wait({task})


async def test_a_file_in_one_piece_is_cached_and_a_range_of_it_is_left_to_the_route(
    app: FastAPI, client: httpx.AsyncClient, home: pathlib.Path
):
    path = home / "page.txt"
    path.write_text("0123456789")

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> FileResponse:
        return FileResponse(path)

    whole = await client.get("/")
    path.write_text("changed")
    part = await client.get("/", headers={"Range": "bytes=0-3"})
    again = await client.get("/")

    assert whole.text == again.text == "0123456789"
    assert again.headers["last-modified"] == whole.headers["last-modified"]
    assert (part.status_code, part.text) == (206, "chan")
    assert part.headers["cache-status"] == "agent-service; fwd=bypass; detail=partial"


async def test_a_request_with_a_body_is_left_to_the_route(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(request: Request) -> str:
        counted()
        return (await request.body()).decode()

    async def pieces(text: str) -> AsyncIterator[bytes]:
        yield text.encode()

    assert [(await client.request("GET", "/", content=text)).json() for text in ("a", "b")] == ["a", "b"]
    assert [(await client.request("GET", "/", content=pieces(text))).json() for text in ("c", "d")] == ["c", "d"]
    assert counted.calls == 4


async def test_a_body_over_the_bound_is_given_and_not_stored(app: FastAPI, client: httpx.AsyncClient, counted: Counted):
    @app.get("/{size}", dependencies=[Depends(cache_response(60, max_bytes=100))])
    async def read(size: int) -> Response:
        counted()
        return Response("x" * size)

    for size in (100, 101, 100, 101):
        assert len((await client.get(f"/{size}")).content) == size

    assert counted.calls == 3


async def test_a_tag_invalidates_what_the_endpoint_that_changes_it_names(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/items/{number}", dependencies=[Depends(cache_response(60, tags=["item:{number}", "page:{page}"]))])
    async def item(number: int, page: int = 1) -> Item:
        return Item(number=number, call=counted())

    @app.put("/items/{number}")
    @cache_invalidate(tags=["item:{number}"], namespace=NAMESPACE)
    async def change(number: int) -> None:
        if number == 9:
            raise HTTPException(409)

    async def call(path: str) -> int:
        return int((await client.get(path)).json()["call"])

    assert [await call("/items/007"), await call("/items/8"), await call("/items/9"), await call("/items/007")] == [
        1, 2, 3, 1,
    ]  # fmt: skip
    await client.put("/items/7")
    await client.put("/items/9")
    assert [await call("/items/007"), await call("/items/8"), await call("/items/9")] == [4, 2, 3]
    await (await get_cache(NAMESPACE)).invalidate_tags(["page:1"])
    assert [await call("/items/007"), await call("/items/8")] == [5, 6]


async def test_tags_are_of_parameters_as_the_endpoint_gets_them(app: FastAPI, client: httpx.AsyncClient):
    class Color(Enum):
        RED = "red"

    templates = ["{number}", "{color}", "{size}", "{day}", "{key}"]

    @app.get("/{number}/{color}/{key}", response_model=None, dependencies=[Depends(cache_response(60, tags=templates))])
    async def read(
        number: Annotated[int, Path(gt=0)],
        color: Color,
        key: UUID,
        size: Annotated[float, Query(alias="s")] = 1.5,
        day: date | None = None,
    ) -> "Unknown":  # type: ignore[name-defined] # noqa: F821 - as where it is imported for type checkers only
        return 1

    path = "/07/red/0123456789ABCDEF0123456789ABCDEF"
    for tag in ("7", "red", "2.0", "2026-01-02", "01234567-89ab-cdef-0123-456789abcdef"):
        assert (await client.get(f"{path}?s=2&day=2026-01-02")).status_code == 200
        await (await get_cache(NAMESPACE)).invalidate_tags([tag])
        missed = await client.get(f"{path}?s=2&day=2026-01-02")
        assert missed.headers["cache-status"] == "agent-service; fwd=uri-miss", tag


async def test_tags_are_of_what_validators_aliases_and_defaults_make_of_a_parameter(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/{name}", dependencies=[Depends(cache_response(60, tags=["{name} {page} {size}"]))])
    async def read(
        name: Annotated[str, StringConstraints(to_lower=True)],
        page: Annotated[int, Query(validation_alias="p")] = 1,
        size: int = Query(10),
    ) -> int:
        return counted()

    for path, tag in (("/ANN", "ann 1 10"), ("/bob?p=2", "bob 2 10"), ("/bob?page=2", "bob 1 10")):
        before = (await client.get(path)).json()
        assert (await client.get(path)).json() == before
        await (await get_cache(NAMESPACE)).invalidate_tags([tag])
        assert (await client.get(path)).json() == before + 1, tag


async def test_a_tag_of_a_parameter_that_the_load_does_not_see_is_refused(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60, tags=["of:{owner}"], query=["page"]))])
    async def read(owner: str = "all") -> str:
        return owner

    with pytest.raises(CacheKeyError, match=r"\{owner\}, which query= leaves out; add 'owner'"):
        await client.get("/?owner=ann")


async def test_a_parameter_too_long_for_a_tag_is_served_without_the_cache(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/{name}", dependencies=[Depends(cache_response(60, tags=["name:{name}"]))])
    async def read(name: str) -> int:
        return len(name)

    response = await client.get("/" + "x" * 9000)

    assert response.json() == 9000
    assert response.headers["cache-status"] == "agent-service; fwd=bypass; detail=tags"


async def test_a_template_with_an_unknown_field_is_refused_by_name(app: FastAPI, client: httpx.AsyncClient):
    def session() -> str:
        return "session"

    @app.get("/{name}", dependencies=[Depends(cache_response(60, tags=["of:{db}"]))])
    async def read(name: str, db: Annotated[str, Depends(session)]) -> str:
        return name + db

    with pytest.raises(CacheKeyError, match=r"\{db\}.*no path or query parameter; it has name"):
        await client.get("/ann")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ttl": 0}, CacheValueError, "ttl must be more than 0"),
        ({"tags": "item"}, CacheKeyError, "put it in a list"),
        ({"vary": "accept"}, CacheKeyError, "vary must be several names"),
        ({"vary": ["*"]}, ConfigurationError, "allows no response"),
        ({"query": "page"}, CacheKeyError, "query must be several names"),
        ({"public": True, "identity": lambda request: "a"}, ConfigurationError, "choose one"),
        ({"identity": "user"}, ConfigurationError, "function of the request"),
        ({"identity": lambda request: "a", "s_maxage": 1}, ConfigurationError, "shared caches"),
        ({"max_bytes": 0}, CacheValueError, "max_bytes must be an int of at least 1"),
        ({"stale_for": -1}, CacheValueError, "stale_for must not be negative"),
        ({"lock": "local"}, CacheValueError, "lock must be None or"),
        ({"namespace": 3}, CacheKeyError, "namespace must be a str"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_where_it_is_written(
    options: dict[str, Any], error: type[Exception], match: str
):
    with pytest.raises(error, match=match):
        cache_response(**options)


async def test_applications_behind_one_host_that_strips_their_prefix_do_not_meet():
    texts = []
    for prefix in ("/one", "/two"):
        app = FastAPI()
        app.router.route_class = CachedRoute

        @app.get("/", dependencies=[Depends(cache_response(60))])
        async def read(request: Request) -> str:
            return str(request.scope["root_path"])

        async with client_of(app, root_path=prefix) as client:
            texts.append((await client.get("/")).json())

    assert texts == ["/one", "/two"]
