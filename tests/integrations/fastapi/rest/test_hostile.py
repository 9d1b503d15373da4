"""What clients should not send: each is refused with a problem document, and changes nothing."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.integrations.fastapi.rest.conftest import As, application, authorize, begin

JSON = {"content-type": "application/json"}


def problem(answer: httpx.Response, *statuses: int) -> dict[str, Any]:
    assert answer.status_code in statuses, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert told["status"] == answer.status_code
    return told


def fields(answer: httpx.Response) -> list[str]:
    return [each.get("field", "") for each in problem(answer, 422)["errors"]]


@pytest.mark.parametrize(
    "path", ["1", "x" * 5_000, "%00", "..%2f..", "%ed%a0%80", "'; DROP TABLE x --", "0198f3c2", "null", "%F0%9F%98%80"]
)
async def test_an_id_that_is_no_uuid_is_refused_by_name(ada: httpx.AsyncClient, path: str) -> None:
    for method, rest in (("GET", ""), ("GET", "/messages"), ("DELETE", ""), ("GET", "/events"), ("POST", "/restore")):
        answer = await ada.request(method, f"/sessions/{path}{rest}")
        assert problem(answer, 404, 422)["status"] == 404 or fields(answer) == ["session_id"]


MESSAGES: list[tuple[Any, Any]] = [
    (b"[]", ""),
    (b'"text"', ""),
    (b"null", ""),
    (b"{}", "message.role"),
    (b'{"role": ""}', "message.role"),
    (b'{"role": 1}', "message.role"),
    (b'{"role": "us\\u0000er"}', "message.role"),
    (b'{"role": "user", "content": 1}', "message.content"),
    (b'{"role": "user", "content": {}}', "message.content"),
    (b'{"role": "user", "content": NaN}', "message.content"),
    (b'{"role": "user", "score": Infinity}', "message.score"),
    (b'{"role": "user", "score": 1e999}', "message.score"),
    (b'{"role": "user", "content": "\\ud800"}', "message.content"),
    (b'{"role": "user", "\\udfff": 1}', None),
    (b'{"role": "user", "token_count": -1}', "message.token_count"),
    (b'{"role": "user", "token_count": 2147483648}', "message.token_count"),
    (b'{"role": "user", "token_count": true}', "message.token_count"),
    (b'{"role": "user", "a": ' + b"[" * 250 + b"]" * 250 + b"}", None),
]


async def test_a_message_that_cannot_be_kept_is_refused_by_its_field(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    for body, field in MESSAGES:
        alone = await ada.post(f"{path}/messages", content=body, headers=JSON)
        batch = b'{"messages": [{"message": ' + body + b"}]}"
        together = await ada.post(f"{path}/messages/batch", content=batch, headers=JSON)
        assert field is None or fields(alone) == [field], body
        problem(alone, 422)
        problem(together, 422)
    assert (await ada.get(path)).json()["last_seq"] == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b'{"role": "user"} x', b"\xff\xfe", b'{"role": "\xed\xa0\x80"}', b"[" * 100_000]
)
async def test_a_body_that_is_no_json_is_refused(ada: httpx.AsyncClient, body: bytes) -> None:
    path = await begin(ada)

    for url in (f"{path}/messages", "/sessions", f"{path}/fork"):
        problem(await ada.post(url, content=body, headers=JSON), 400, 422)
    assert (await ada.get(path)).json()["last_seq"] == 0


@pytest.mark.parametrize(
    "kind", [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"]
)
async def test_a_body_of_another_type_is_refused(ada: httpx.AsyncClient, kind: str | None) -> None:
    path = await begin(ada)
    headers = {} if kind is None else {"content-type": kind}

    for url in (f"{path}/messages", "/sessions"):
        problem(await ada.post(url, content=b'{"role": "user"}', headers=headers), 422)
    assert (await ada.get(path)).json()["last_seq"] == 0


SESSIONS: list[tuple[Any, Any]] = [
    ({"id": "x"}, "id"),
    ({"id": 7}, "id"),
    ({"title": 1}, "title"),
    ({"title": "a\0"}, "title"),
    ({"external_id": ""}, "external_id"),
    ({"external_id": "x" * 256}, "external_id"),
    ({"agent_id": "a\0"}, "agent_id"),
    ({"status": "archived"}, "status"),
    ({"status": None}, "status"),
    ({"context": []}, "context"),
    ({"context": {"a": "\0"}}, "context.a"),
    ({"metadata": {"a": float("nan")}}, "metadata.a"),
    ({"expires_at": "2026-01-01T00:00:00"}, "expires_at"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"last_seq": 7}, "last_seq"),
    ({"tenant_id": "acme"}, "tenant_id"),
    ({"version": 7}, "version"),
]


async def test_a_session_that_cannot_be_stored_is_refused_by_its_field(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    for body, field in SESSIONS:
        content = json.dumps(body)
        created = await ada.post("/sessions", content=content, headers=JSON)
        changed = await ada.patch(path, content=content, headers=JSON)
        assert fields(created) == [field], body
        assert field.split(".")[0] in {"id", "context", "metadata"} or fields(changed) == [field], body
    assert (await ada.get("/sessions/stats")).json()["total_sessions"] == 1
    assert (await ada.get(path)).json()["version"] == 1


PARAMETERS: list[tuple[Any, Any]] = [
    ("/sessions?limit=0", "limit"),
    ("/sessions?limit=1001", "limit"),
    ("/sessions?limit=x", "limit"),
    ("/sessions?cursor=x", "cursor"),
    ("/sessions?cursor=", "cursor"),
    ("/sessions?cursor=%F0%9F%98%80", "cursor"),
    ("/sessions?user_id=", "user_id"),
    ("/sessions?user_id=a%00", "user_id"),
    ("/sessions/pages?page=0", "page"),
    ("/sessions/pages?page=99999999999", "page"),
    ("/sessions/pages?page=99999999999999999999999999", "page"),
    ("/sessions/pages?status=archived", "status"),
    ("/sessions/pages?agent_id=", "agent_id"),
    ("/sessions/search", "q"),
    (f"/sessions/search?q={'x' * 1_001}", "q"),
    ("/sessions/search/messages?q=x&limit=1001", "limit"),
    ("/sessions/stats?since=2026-01-01T00:00:00", "since"),
    ("/sessions/stats?until=never", "until"),
    ("/sessions/stats/week", "group_by"),
    ("/sessions/by-external-id?external_id=a%00", "external_id"),
    ("{path}/messages?limit=10001", "limit"),
    ("{path}/messages?after_seq=-1", "after_seq"),
    ("{path}/messages?before_seq=9223372036854775808", "before_seq"),
    ("{path}/messages?roles=a%00", "roles[0]"),
    ("{path}/messages?max_tokens=x", "max_tokens"),
]


async def test_a_parameter_out_of_bounds_is_refused_by_name(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    for url, field in PARAMETERS:
        assert fields(await ada.get(url.format(path=path))) == [field], url


async def test_a_user_that_cannot_be_is_no_callers_user(as_: As) -> None:
    staff = as_("ada", staff="1")

    assert fields(await staff.delete("/sessions?user_id=")) == ["user_id"]
    assert fields(await staff.delete(f"/sessions?user_id={'x' * 256}")) == ["user_id"]
    assert fields(await staff.get("/sessions/export?user_id=%00")) == ["user_id"]


async def test_wildcards_and_quotes_are_searched_for_as_they_are(ada: httpx.AsyncClient) -> None:
    await begin(ada, "100% of 'it'", "nothing")

    for q, found in (("%", 1), ("_", 0), ("'it'", 1), ("\0", 0), ("   ", 0), ("100%\0 of", 1)):
        assert len((await ada.get("/sessions/search/messages", params={"q": q})).json()) == found, q


async def test_a_batch_has_from_one_to_a_thousand_messages(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    for count in (0, 1_001):
        answer = await ada.post(f"{path}/messages/batch", json={"messages": [{"message": {"role": "user"}}] * count})
        assert fields(answer) == ["messages"]
    unknown = await ada.post(f"{path}/messages/batch", json={"messages": [{"message": {"role": "user"}, "seq": 1}]})
    assert fields(unknown) == ["messages[0].seq"]
    assert (await ada.get(path)).json()["last_seq"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"values": {"a": 1}, "delete_keys": ["a"]}, "delete_keys"),
        ({"values": []}, "values"),
        ({"delete_keys": "a"}, "delete_keys"),
        ({"deep": "x"}, "deep"),
        ({"a": 1}, "a"),
    ],
)
async def test_a_change_of_a_context_that_cannot_be_is_refused(
    ada: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    path = await begin(ada)

    assert fields(await ada.patch(f"{path}/context", json=body)) == [field]
    assert (await ada.get(f"{path}/context")).json() == {"version": 1, "context": {}}


async def test_a_fork_begins_within_the_session(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    for seq in (-1, 1, 2**63, "x", None):
        assert fields(await ada.post(f"{path}/fork", json={"seq": seq})) == ["seq"]


async def test_a_body_beyond_the_limit_is_refused_whatever_its_length_says(database_url: str) -> None:
    app, service = application(database_url, authorize=authorize, max_body_size=1_000)

    async def chunks() -> Any:
        for _ in range(100):
            yield b"x" * 100

    async with service.lifespan(app):
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s", headers={"x-user": "ada"})
        async with client:
            path = await begin(client)
            for content in (b"x" * 1_001, chunks()):
                problem(await client.post(f"{path}/messages", content=content, headers=JSON), 413)
            exactly = json.dumps({"role": "user", "content": "x" * 969}).encode()
            assert len(exactly) == 1_000
            assert (await client.post(f"{path}/messages", content=exactly, headers=JSON)).status_code == 201


async def test_a_method_that_a_route_does_not_have_is_a_problem(ada: httpx.AsyncClient) -> None:
    problem(await ada.put(f"/sessions/{uuid4()}", json={}), 405)
    problem(await ada.post("/sessions/stats", json={}), 405)


async def test_an_error_repeats_no_more_than_a_little_of_what_was_sent(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    refused = await ada.post(f"{path}/messages", json={"role": 1, "content": "x" * 100_000})
    cursor = await ada.get("/sessions", params={"cursor": "x" * 10_000})

    assert len(refused.text) < 1_000
    assert len(cursor.text) < 1_000
