"""Conditional requests and repeated ones: ETag, If-Match, If-None-Match and Idempotency-Key."""

import asyncio
from uuid import uuid4

import httpx
import pytest

from tests.integrations.fastapi.rest.conftest import As, begin

HELLO = {"role": "user", "content": "hello", "parts": [1, {"b": 2, "a": 1}]}


async def test_what_is_known_already_is_not_sent_again(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    tag = (await ada.get(path)).headers["etag"]

    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        answer = await ada.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == "private, no-cache"
    for other in ('"other"', '"1"'):
        assert (await ada.get(path, headers={"if-none-match": other})).status_code == 200


@pytest.mark.parametrize("change", ["append", "pop", "patch", "context"])
async def test_whatever_is_shown_differently_has_another_tag(ada: httpx.AsyncClient, change: str) -> None:
    path = await begin(ada, "hello")
    before = await ada.get(path)

    await {
        "append": lambda: ada.post(f"{path}/messages", json=HELLO),
        "pop": lambda: ada.delete(f"{path}/messages/last"),
        "patch": lambda: ada.patch(path, json={"title": "x"}),
        "context": lambda: ada.put(f"{path}/context", json={"k": 1}),
    }[change]()
    after = await ada.get(path, headers={"if-none-match": before.headers["etag"]})

    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]


async def test_a_context_has_its_own_tag_which_appends_do_not_change(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    tag = (await ada.get(f"{path}/context")).headers["etag"]

    await ada.post(f"{path}/messages", json=HELLO)

    assert (await ada.get(f"{path}/context", headers={"if-none-match": tag})).status_code == 304


def _changes(path: str) -> list[tuple[str, str, object]]:
    return [
        ("PATCH", path, {"title": "x"}),
        ("PUT", f"{path}/context", {"k": 1}),
        ("PATCH", f"{path}/context", {"values": {"k": 1}}),
        ("PUT", f"{path}/metadata", {"k": 1}),
        ("PATCH", f"{path}/metadata", {"values": {"k": 1}}),
        ("POST", f"{path}/messages", HELLO),
        ("POST", f"{path}/messages/batch", {"messages": [{"message": HELLO}]}),
        ("DELETE", f"{path}/messages/last", None),
        ("DELETE", path, None),
    ]


@pytest.mark.parametrize("number", range(9))
async def test_a_change_is_made_only_to_the_version_that_it_expects(ada: httpx.AsyncClient, number: int) -> None:
    path = await begin(ada, "hello")
    old = (await ada.get(path)).headers["etag"]
    assert (await ada.patch(path, json={"title": "newer"})).json()["version"] == 2
    now = await ada.get(path)
    method, url, body = _changes(path)[number]

    async def change(condition: str) -> httpx.Response:
        return await ada.request(method, url, json=body, headers={"if-match": condition})

    for refused in (old, '"1"', f"W/{now.headers['etag']}", 'W/"2"', '"2x"', '"0"', '"x", "3"', '"99999999999"'):
        answer = await change(refused)
        assert (answer.status_code, answer.headers["content-type"]) == (412, "application/problem+json"), refused
        assert "version 2" in answer.json()["detail"]
    assert (await ada.get(path)).json() == now.json()
    assert (await change(f'"1", {now.headers["etag"]}')).is_success


async def test_appends_do_not_stand_in_the_way_of_a_change(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    tag = (await ada.get(path)).headers["etag"]

    await ada.post(f"{path}/messages", json=HELLO)

    assert (await ada.patch(path, json={"title": "x"}, headers={"if-match": tag})).status_code == 200


@pytest.mark.parametrize("condition", ["*", '"1"'])
async def test_a_change_of_what_does_not_exist_is_not_found(ada: httpx.AsyncClient, condition: str) -> None:
    answer = await ada.patch(f"/sessions/{uuid4()}", json={"title": "x"}, headers={"if-match": condition})

    assert answer.status_code == 404


async def test_of_many_changes_that_expect_the_same_version_one_is_made(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    async def change(number: int) -> int:
        return (await ada.patch(path, json={"title": str(number)}, headers={"if-match": '"1"'})).status_code

    answers = await asyncio.gather(*(change(number) for number in range(8)))

    assert sorted(answers) == [200] + [412] * 7
    assert (await ada.get(path)).json()["version"] == 2


@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
async def test_a_header_that_lists_no_tags_is_refused_by_name(ada: httpx.AsyncClient, header: str) -> None:
    path = await begin(ada)

    answer = await ada.request("PATCH" if header == "if-match" else "GET", path, json={}, headers={header: "1"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].lower() == header


async def test_a_repeated_append_gives_the_first_message_and_says_so(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    key = {"idempotency-key": '"8e03978e-40d5"'}

    first = await ada.post(f"{path}/messages", json=HELLO, headers=key)
    await ada.post(f"{path}/messages", json={"role": "assistant"})
    again = await ada.post(f"{path}/messages", json=dict(reversed(HELLO.items())), headers=key)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["client_id"] == "8e03978e-40d5"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len((await ada.get(f"{path}/messages")).json()) == 2


async def test_a_repetition_is_one_whatever_has_changed_meanwhile(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    headers = {"idempotency-key": "k", "if-match": '"1"'}
    first = await ada.post(f"{path}/messages", json=HELLO, headers=headers, params={"expected_seq": 0})
    await ada.patch(path, json={"title": "x"})

    again = await ada.post(f"{path}/messages", json=HELLO, headers=headers, params={"expected_seq": 0})

    assert (again.status_code, again.json()) == (200, first.json())


@pytest.mark.parametrize(
    "other", [{"role": "user"}, HELLO | {"content": "bye"}, HELLO | {"parts": [True, {"b": 2, "a": 1}]}]
)
async def test_a_key_that_is_used_for_another_message_is_refused(ada: httpx.AsyncClient, other: object) -> None:
    path = await begin(ada)
    await ada.post(f"{path}/messages", json=HELLO, headers={"idempotency-key": "k"})

    reused = await ada.post(f"{path}/messages", json=other, headers={"idempotency-key": "k"})

    assert reused.status_code == 422
    assert reused.json()["errors"][0]["field"] == "Idempotency-Key"
    assert len((await ada.get(f"{path}/messages")).json()) == 1


async def test_a_repeated_item_has_the_same_role_beside_it(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    async def send(role: str) -> httpx.Response:
        headers = {"idempotency-key": "k"}
        return await ada.post(f"{path}/messages", json={"type": "call"}, headers=headers, params={"role": role})

    answers = [await send(role) for role in ("tool", "tool", "assistant")]

    assert [each.status_code for each in answers] == [201, 200, 422]
    assert answers[2].json()["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    "key", ["", '""', "a b", "a,b", '"a', "é".encode(), b"a\x01", "k" * 256, '"' + "k" * 256 + '"']
)
async def test_a_key_that_cannot_be_used_is_refused_by_name(ada: httpx.AsyncClient, key: str | bytes) -> None:
    path = await begin(ada)
    value = key.encode() if isinstance(key, str) else key

    answer = await ada.post(f"{path}/messages", json=HELLO, headers=[(b"idempotency-key", value)])

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_two_keys_are_none(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    answer = await ada.post(
        f"{path}/messages", json=HELLO, headers=[("idempotency-key", "a"), ("idempotency-key", "b")]
    )

    assert answer.status_code == 422


@pytest.mark.parametrize("key", ["k" * 255, '"' + "k" * 255 + '"', '"a b, \\"c\\" \\\\"'])
async def test_every_key_of_the_draft_can_be_used(ada: httpx.AsyncClient, key: str) -> None:
    path = await begin(ada)

    answers = [await ada.post(f"{path}/messages", json=HELLO, headers={"idempotency-key": key}) for _ in range(2)]

    assert [each.status_code for each in answers] == [201, 200]


async def test_repetitions_at_the_same_time_append_one_message(as_: As) -> None:
    clients = [as_("ada") for _ in range(20)]
    path = await begin(clients[0])

    async def send(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(f"{path}/messages", json=HELLO, headers={"idempotency-key": "k"})

    answers = await asyncio.gather(*map(send, clients))

    assert sorted(each.status_code for each in answers) == [200] * 19 + [201]
    assert [each.headers.get("idempotency-replayed") for each in answers].count("true") == 19
    assert len({each.text for each in answers}) == 1
    assert (await clients[0].get(path)).json()["total_messages"] == 1


async def test_a_repeated_batch_adds_what_is_missing(ada: httpx.AsyncClient) -> None:
    path = f"{await begin(ada)}/messages/batch"
    items = [{"message": {"role": "user", "content": name}, "client_id": name} for name in "abc"]

    first = await ada.post(path, json={"messages": items[:2]})
    more = await ada.post(path, json={"messages": items})
    again = await ada.post(path, json={"messages": items})
    other = await ada.post(path, json={"messages": [{**items[0], "message": {"role": "tool"}}]})
    twice = await ada.post(path, json={"messages": [{**items[0], "client_id": "z"}, {**items[1], "client_id": "z"}]})

    assert [each.status_code for each in (first, more, again, other, twice)] == [201, 201, 200, 422, 422]
    assert [each["seq"] for each in again.json()] == [1, 2, 3]
    assert again.headers["idempotency-replayed"] == "true"
    assert other.json()["errors"][0]["field"] == "messages[0].client_id"
    assert len((await ada.get(path.removesuffix("/batch"))).json()) == 3
