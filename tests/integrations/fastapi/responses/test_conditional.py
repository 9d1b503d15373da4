"""Conditional requests: RFC 9110, 13.1.2 and 13.2.2, and what a 304 carries (15.4.5)."""

import httpx
import pytest
from fastapi import Depends, FastAPI, Response

from agent_service.integrations.fastapi import cache_response
from agent_service.integrations.fastapi.responses.etags import entity_tag, is_entity_tag, matches_any
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

    tag = entity_tag("application/json", "", b"1")

    assert (await client.get("/", headers={"If-None-Match": tag})).status_code == 304
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

    assert is_entity_tag((await client.get("/")).headers["etag"])


def test_an_entity_tag_is_of_the_content_its_type_and_its_encoding():
    tags = {
        entity_tag("text/plain", "", b"a"),
        entity_tag("text/plain", "", b"b"),
        entity_tag("text/html", "", b"a"),
        entity_tag("text/plain", "gzip", b"a"),
        entity_tag("", "text/plain", b"a"),
    }

    assert len(tags) == 5
    assert all(is_entity_tag(each) and not each.startswith("W/") for each in tags)


def test_an_entity_tag_never_changes():
    """What a client or a proxy has kept for a year is still a 304."""
    assert entity_tag("application/json", "", b'{"a":1}') == GOLDEN


GOLDEN = '"91236326fd972c22e9f96813c97c1bcd"'


@pytest.mark.parametrize("field", ['"' * 9999, "," * 100_000, '"a",' * 50_000, 'W/"' * 30_000])
def test_a_hostile_list_is_read_in_the_time_that_its_length_takes(field: str):
    assert not matches_any(field, '"b"')
