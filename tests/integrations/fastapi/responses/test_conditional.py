"""Conditional requests: RFC 9110, 13.1.2 and 13.2.2, and what a 304 carries (15.4.5)."""

import re

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, Response

from agent_service.integrations.fastapi import cache_response
from tests.integrations.fastapi.responses.conftest import Counted

pytestmark = pytest.mark.usefixtures("memory")

STRONG, WEAK = '"xyzzy"', 'W/"xyzzy"'


@pytest.mark.parametrize(
    ("tag", "field", "expected"),
    [
        (STRONG, '"xyzzy"', 304),
        (STRONG, 'W/"xyzzy"', 304),  # If-None-Match compares weakly
        (WEAK, '"xyzzy"', 304),
        (WEAK, 'W/"xyzzy"', 304),
        (STRONG, '"xyzzy", "r2d2xxxx", "c3piozzzz"', 304),
        (STRONG, '"r2d2xxxx","xyzzy"', 304),
        (STRONG, 'W/"r2d2xxxx", W/"xyzzy"', 304),
        (STRONG, '"r2d2xxxx" ,\t"xyzzy"', 304),
        (STRONG, ', "a", , "xyzzy" ,', 304),  # empty elements of a list
        (STRONG, "*", 304),
        (STRONG, " * ", 304),
        (STRONG, '"r2d2xxxx"', 200),
        (STRONG, '"XYZZY"', 200),
        (STRONG, '"xyzzy', 200),
        (STRONG, "xyzzy", 200),  # no entity tag without its quotes
        (STRONG, 'w/"xyzzy"', 200),  # the W is upper case
        (STRONG, '"*"', 200),
        (STRONG, '"xyzzy" "a"', 200),
        (STRONG, '"a, "xyzzy"', 200),
        (STRONG, '"a,xyzzy"', 200),  # a comma inside of a tag
        (STRONG, "", 200),
        ('"a,b"', '"x", "a,b"', 304),
        ('""', '""', 304),
    ],
)
async def test_if_none_match(app: FastAPI, client: httpx.AsyncClient, tag: str, field: str, expected: int):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> Response:
        return Response("content", headers={"ETag": tag, "Content-Location": "/a", "X-Other": "1"})

    for _ in range(2):  # loaded, then cached
        response = await client.get("/", headers={"If-None-Match": field})

        assert response.status_code == expected
        assert response.headers["etag"] == tag
        assert response.headers["cache-control"] == "max-age=60"
        assert response.headers["vary"] == "authorization, cookie"
        assert response.headers["content-location"] == "/a"
        if expected == 304:
            assert response.content == b""
            assert not {"content-length", "content-type", "x-other"} & response.headers.keys()
        else:
            assert response.text == "content"


@pytest.mark.parametrize("name", ["If-None-Match", "If-Modified-Since", "If-Range"])
async def test_a_load_has_no_condition_that_the_route_could_answer(app: FastAPI, client: httpx.AsyncClient, name: str):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read(request: Request) -> Response:
        return Response("content", 412 if name in request.headers else 200)

    assert (await client.get("/", headers={name: '"other"'})).text == "content"
    assert "hit" in (await client.get("/")).headers["cache-status"]


async def test_several_lines_of_if_none_match_are_one_list(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> str:
        return "content"

    tag = (await client.get("/")).headers["etag"]
    headers = [("If-None-Match", '"other"'), ("If-None-Match", tag)]

    assert (await client.get("/", headers=headers)).status_code == 304


async def test_the_route_is_loaded_without_the_condition_of_the_first_caller(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        return counted()

    assert (await client.get("/", headers={"If-None-Match": "*"})).status_code == 304
    assert (await client.get("/")).json() == 1


LAST_MODIFIED = "Tue, 15 Nov 1994 12:45:26 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"If-Modified-Since": LAST_MODIFIED}, 304),
        ({"If-Modified-Since": "Tue, 15 Nov 1994 12:45:27 GMT"}, 304),
        ({"If-Modified-Since": "Tuesday, 15-Nov-94 12:45:26 GMT"}, 304),
        ({"If-Modified-Since": "Tue, 15 Nov 1994 12:45:25 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": LAST_MODIFIED, "If-None-Match": '"other"'}, 200),  # If-None-Match decides alone
        ({"If-Modified-Since": "Tue, 15 Nov 1994 12:45:25 GMT", "If-None-Match": '"a"'}, 304),
    ],
)
async def test_if_modified_since(app: FastAPI, client: httpx.AsyncClient, headers: dict[str, str], expected: int):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> Response:
        return Response("content", headers={"ETag": '"a"', "Last-Modified": LAST_MODIFIED})

    response = await client.get("/", headers=headers)

    assert response.status_code == expected
    assert response.headers["last-modified"] == LAST_MODIFIED


async def test_if_modified_since_means_nothing_without_a_date_of_the_content(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> str:
        return "content"

    assert (await client.get("/", headers={"If-Modified-Since": LAST_MODIFIED})).status_code == 200


@pytest.mark.parametrize("name", ["If-Match", "If-Unmodified-Since", "Range"])
async def test_what_only_the_route_can_judge_is_left_to_it(
    app: FastAPI, client: httpx.AsyncClient, counted: Counted, name: str
):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> int:
        return counted()

    assert [(await client.get("/", headers={name: '"a"'})).json() for _ in range(2)] == [1, 2]


async def test_an_error_has_no_entity_tag_and_no_condition(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> Response:
        return Response("gone", 410, {"Cache-Control": "max-age=9"})

    for _ in range(2):
        response = await client.get("/", headers={"If-None-Match": "*"})
        assert (response.status_code, response.text) == (410, "gone")
        assert "etag" not in response.headers


async def test_a_head_with_a_condition_is_a_304_too(app: FastAPI, client: httpx.AsyncClient):
    @app.api_route("/", methods=["GET", "HEAD"], dependencies=[Depends(cache_response(60))])
    async def read() -> str:
        return "content"

    tag = (await client.head("/")).headers["etag"]

    assert (await client.head("/", headers={"If-None-Match": tag})).status_code == 304


async def test_an_entity_tag_of_the_route_that_is_none_is_replaced(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> Response:
        return Response("content", headers={"ETag": "W/12345"})

    assert re.fullmatch('"[0-9a-f]+"', (await client.get("/")).headers["etag"])


@pytest.mark.parametrize("field", ['"' * 9999, "," * 50_000, '"a",' * 20_000, 'W/"' * 20_000])
async def test_a_hostile_condition_is_no_condition(app: FastAPI, client: httpx.AsyncClient, field: str):
    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> str:
        return "content"

    assert (await client.get("/", headers={"If-None-Match": field})).status_code == 200


async def test_an_entity_tag_is_of_the_content_and_its_type(app: FastAPI, client: httpx.AsyncClient):
    contents = [("text/plain", "a"), ("text/plain", "b"), ("text/html", "a")]

    @app.get("/{number}", dependencies=[Depends(cache_response(60))])
    async def read(number: int) -> Response:
        kind, body = contents[number % 10]
        headers = {"Content-Type": kind, "X-Number": f"{number}"}
        return Response(body, headers=headers)

    async def tag(number: int) -> str:
        return (await client.get(f"/{number}")).headers["etag"]

    tags = [await tag(number) for number in (0, 1, 2, 10, 11, 12)]

    assert tags[:3] == tags[3:]
    assert len(set(tags)) == 3
    assert all(re.fullmatch('"[0-9a-f]+"', each) for each in tags)


async def test_an_entity_tag_never_changes(app: FastAPI, client: httpx.AsyncClient):
    """What a client or a proxy has kept for a year is still a 304."""

    @app.get("/", dependencies=[Depends(cache_response(60))])
    async def read() -> dict[str, int]:
        return {"a": 1}

    assert (await client.get("/")).headers["etag"] == GOLDEN


GOLDEN = '"df9cea6d4fe74f1acf613fe6"'


_NO_DATE = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"


async def test_a_date_that_no_calendar_has_is_no_date(app: FastAPI, client: httpx.AsyncClient):
    @app.get("/dated", dependencies=[Depends(cache_response(60))])
    async def dated(response: Response) -> str:
        response.headers["last-modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
        return "content"

    @app.get("/expiring", dependencies=[Depends(cache_response(60))])
    async def expiring(response: Response) -> str:
        response.headers["expires"] = _NO_DATE
        return "content"

    asked = await client.get("/dated", headers={"If-Modified-Since": _NO_DATE})
    given = [await client.get("/expiring") for _ in range(2)]

    assert (asked.status_code, asked.json()) == (200, "content")
    assert [(each.status_code, each.headers["cache-status"]) for each in given] == [
        (200, "agent-service; fwd=uri-miss")
    ] * 2  # it has expired
