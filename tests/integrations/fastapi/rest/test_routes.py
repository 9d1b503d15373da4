"""What each route of the REST API does, on both engines."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.fastapi import AgentService
from tests.integrations.fastapi.rest.conftest import begin


async def contents(client: httpx.AsyncClient, path: str) -> list[str]:
    return [each["message"]["content"] for each in (await client.get(f"{path}/messages")).json()]


async def test_a_created_session_is_where_its_location_says(ada: httpx.AsyncClient) -> None:
    given = {
        "external_id": "thread-1", "agent_id": "code_agent", "title": "Debug", "context": {"n": None},
        "metadata": {"b": [1.5, None], "a": "\0"},
    }  # fmt: skip

    created = await ada.post("/sessions", json=given)
    found = await ada.get(created.headers["location"])

    assert (created.status_code, found.status_code) == (201, 200)
    assert created.headers["etag"] == found.headers["etag"]
    assert found.headers["cache-control"] == "private, no-cache"
    shown = found.json()
    assert created.json() == shown
    assert {name: shown[name] for name in given} == given
    assert (shown["user_id"], shown["status"], shown["version"], shown["last_seq"]) == ("ada", "active", 1, 0)
    assert datetime.fromisoformat(shown["expires_at"]) > datetime.now(UTC) + timedelta(hours=23)


async def test_a_session_may_have_an_id_of_its_callers_and_only_one_has_it(ada: httpx.AsyncClient) -> None:
    chosen = str(uuid4())

    first, second = [await ada.post("/sessions", json={"id": chosen}) for _ in range(2)]

    assert (first.status_code, first.json()["id"]) == (201, chosen)
    assert (second.status_code, second.headers["content-type"]) == (409, "application/problem+json")


async def test_a_session_is_found_by_its_external_id(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, external_id="thread/1?x")

    found = await ada.get("/sessions/by-external-id", params={"external_id": "thread/1?x"})
    missing = await ada.get("/sessions/by-external-id", params={"external_id": "thread/2"})

    assert path.endswith(found.json()["id"])
    assert missing.status_code == 404


async def test_only_the_fields_that_are_sent_change(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, title="before", agent_id="code_agent")
    later = "2100-01-01T00:00:00Z"

    changed = await ada.patch(path, json={"title": None, "status": "completed", "expires_at": later})
    same = await ada.patch(path, json={})

    shown = changed.json()
    assert (shown["title"], shown["agent_id"], shown["status"]) == (None, "code_agent", "completed")
    assert (shown["expires_at"], shown["version"]) == (later, 2)
    assert shown["completed_at"] is not None
    assert same.json() == shown


async def test_any_status_may_follow_any_other(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    for status in ("failed", "cancelled", "completed", "active"):
        assert (await ada.patch(path, json={"status": status})).json()["status"] == status


async def test_a_deleted_session_is_hidden_until_it_is_restored(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "hello")

    deleted = await ada.delete(path)
    hidden = await ada.get(path)
    again = await ada.delete(path)
    restored = [await ada.post(f"{path}/restore") for _ in range(2)]

    assert [each.status_code for each in (deleted, hidden, again)] == [204, 404, 404]
    assert [each.status_code for each in restored] == [200, 200]
    assert await contents(ada, path) == ["hello"]


@pytest.mark.parametrize("hidden", [True, False])
async def test_a_session_is_removed_for_good_whether_it_is_hidden_or_not(ada: httpx.AsyncClient, hidden: bool) -> None:
    path = await begin(ada, "hello")
    if hidden:
        await ada.delete(path)

    removed = await ada.delete(path, params={"hard": True})
    restored = await ada.post(f"{path}/restore")

    assert (removed.status_code, restored.status_code) == (204, 404)


async def test_lists_are_walked_by_cursor_and_by_number(ada: httpx.AsyncClient) -> None:
    paths = [await begin(ada, title=str(number)) for number in range(5)]
    await ada.patch(paths[0], json={"status": "failed"})

    walked, cursor = [], None
    while True:
        page = (await ada.get("/sessions", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        walked += [each["title"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    numbered = (await ada.get("/sessions/pages", params={"page": 2, "page_size": 2})).json()
    failed = (await ada.get("/sessions/pages", params={"status": "failed"})).json()

    assert walked == ["4", "3", "2", "1", "0"]
    assert [each["title"] for each in numbered.pop("items")] == ["2", "1"]
    assert numbered == {
        "total": 5, "page": 2, "page_size": 2, "total_pages": 3, "has_next": True, "has_prev": True,
    }  # fmt: skip
    assert [each["title"] for each in failed["items"]] == ["0"]


async def test_searches_find_titles_and_messages(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "why does the parser fail", title="A question")

    by_title = (await ada.get("/sessions/search", params={"q": "QUESTION", "in_content": False})).json()
    by_content = (await ada.get("/sessions/search", params={"q": "parser"})).json()
    titles_only = (await ada.get("/sessions/search", params={"q": "parser", "in_content": False})).json()
    (hit,) = (await ada.get("/sessions/search/messages", params={"q": "parser"})).json()

    assert [path.endswith(each["id"]) for each in by_title + by_content] == [True, True]
    assert titles_only == []
    assert (hit["seq"], hit["session"]["title"]) == (1, "A question")
    assert "**parser**" in hit["snippet"]
    assert 0 < hit["rank"] <= 1


async def test_sums_are_those_of_the_user(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "one", "two", agent_id="a")
    await begin(ada)
    await ada.post(f"{path}/messages", json={"role": "user", "token_count": 7})

    sums = (await ada.get("/sessions/stats")).json()
    by_agent = (await ada.get("/sessions/stats/agent")).json()
    by_day = (await ada.get("/sessions/stats/day", params={"since": "2020-01-01T00:00:00Z"})).json()
    none = (await ada.get("/sessions/stats", params={"until": "2020-01-01T00:00:00Z"})).json()

    assert sums == {
        "total_sessions": 2, "active_sessions": 2, "total_messages": 3, "total_tokens": 7,
        "avg_messages_per_session": 1.5,
    }  # fmt: skip
    assert {each["key"]: each["stats"]["total_messages"] for each in by_agent} == {"a": 3, None: 0}
    assert [datetime.fromisoformat(each["key"]).date() == datetime.now(UTC).date() for each in by_day] == [True]
    assert none["total_sessions"] == 0


async def test_a_message_comes_back_as_it_was_sent(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    sent = (
        '{"role":"user","zeta":1,"alpha":[2.0,1e+23,1180591620717411303424,null],'
        '"content":"a\\u0000\\r\\nb \\u2028 \\ud83d\\ude00"}'
    )

    stored = await ada.post(
        f"{path}/messages", content=sent.encode(), headers={"content-type": "application/vnd.chat+json"}
    )
    (read,) = (await ada.get(f"{path}/messages")).json()

    assert stored.json() == read
    assert (read["seq"], read["client_id"]) == (1, None)
    assert json.dumps(read["message"]) == json.dumps(json.loads(sent))


async def test_history_is_read_from_the_end_or_after_a_number(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, *"abcdef")
    await ada.post(f"{path}/messages", json={"role": "tool", "content": "g"})

    async def read(**params: object) -> str:
        answer = await ada.get(f"{path}/messages", params=params)  # type: ignore[arg-type]
        return "".join(each["message"]["content"] for each in answer.json())

    assert await read() == "abcdefg"
    assert await read(limit=2) == "fg"
    assert await read(limit=2, before_seq=4) == "bc"
    assert await read(limit=2, after_seq=1) == "bc"
    assert await read(roles=["tool", "system"]) == "g"
    assert await read(max_tokens=2) == "fg"


async def test_a_batch_is_appended_in_order_all_or_nothing(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "0")
    items = [{"message": {"role": "user", "content": str(number)}} for number in (1, 2)]

    added = await ada.post(f"{path}/messages/batch", json={"messages": items})
    refused = await ada.post(f"{path}/messages/batch", json={"messages": [*items, {"message": {"content": "x"}}]})

    assert (added.status_code, refused.status_code) == (201, 422)
    assert [each["seq"] for each in added.json()] == [2, 3]
    assert await contents(ada, path) == ["0", "1", "2"]


async def test_an_item_without_a_role_takes_the_one_beside_it_and_is_kept_exactly(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)
    item, said = {"type": "reasoning", "summary": []}, {"role": "user", "content": "x"}
    batch = {"messages": [{"message": item, "role": "tool"}, {"message": said, "role": "tool"}]}

    one = await ada.post(f"{path}/messages", json=item, params={"role": "assistant"})
    more = await ada.post(f"{path}/messages/batch", json=batch)
    refused = [
        await ada.post(f"{path}/messages", json=item),
        await ada.post(f"{path}/messages", json=item, params={"role": ""}),
        await ada.post(f"{path}/messages", json=item, params={"role": "a\0"}),
    ]
    read = (await ada.get(f"{path}/messages")).json()

    assert (one.status_code, more.status_code) == (201, 201)
    assert [each["role"] for each in read] == ["assistant", "tool", "user"]
    assert [each["message"] for each in read] == [item, item, said]
    assert [each.status_code for each in refused] == [422, 422, 422]
    assert [each.json()["errors"][0]["field"] for each in refused] == ["message.role", "role", "role"]


async def test_an_append_may_expect_the_last_number(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "a")

    late = await ada.post(f"{path}/messages", json={"role": "user"}, params={"expected_seq": 0})
    right = await ada.post(f"{path}/messages", json={"role": "user"}, params={"expected_seq": 1})

    assert (late.status_code, right.status_code) == (409, 201)


async def test_the_last_message_is_removed_and_shown(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "a", "b")

    popped = [(await ada.delete(f"{path}/messages/last")).json() for _ in range(3)]

    assert [each and each["message"]["content"] for each in popped] == ["b", "a", None]


async def test_a_fork_shows_the_beginning_and_goes_on(ada: httpx.AsyncClient) -> None:
    path = await begin(ada, "a", "b", "c", title="Debug", context={"k": 1})

    made = await ada.post(f"{path}/fork", json={"seq": 2})
    fork = made.headers["location"]
    await ada.post(f"{fork}/messages", json={"role": "user", "content": "d"})
    too_far = await ada.post(f"{path}/fork", json={"seq": 9})

    shown = made.json()
    assert (made.status_code, shown["fork_seq"], shown["title"], shown["context"]) == (201, 2, "Debug", {"k": 1})
    assert path.endswith(shown["parent_session_id"])
    assert await contents(ada, fork) == ["a", "b", "d"]
    assert await contents(ada, path) == ["a", "b", "c"]
    assert (too_far.status_code, too_far.json()["errors"][0]["field"]) == (422, "seq")


@pytest.mark.parametrize("name", ["context", "metadata"])
async def test_a_document_is_read_replaced_and_merged(ada: httpx.AsyncClient, name: str) -> None:
    path = f"{await begin(ada)}/{name}"

    put = await ada.put(path, json={"a": {"b": 1}, "gone": 1})
    merged = await ada.patch(path, json={"values": {"a": {"c": None}}, "delete_keys": ["gone", "never"], "deep": True})
    shallow = await ada.patch(path, json={"values": {"a": 2}})
    read = await ada.get(path)

    assert put.json() == {"version": 2, name: {"a": {"b": 1}, "gone": 1}}
    assert merged.json() == {"version": 3, name: {"a": {"b": 1, "c": None}}}
    assert shallow.json() == read.json() == {"version": 4, name: {"a": 2}}
    assert shallow.headers["etag"] == read.headers["etag"]


async def test_an_export_can_be_imported(ada: httpx.AsyncClient, service: AgentService) -> None:
    path = await begin(ada, *(str(number) for number in range(3)), title="kept")
    await ada.delete(await begin(ada, "hidden"))

    exported = await ada.get("/sessions/export")
    erased = await ada.delete("/sessions", params={"user_id": "ada"})
    async with service.database.session() as db:
        result = await SessionRepository(db).import_user(exported.text.splitlines())

    assert exported.headers["content-type"] == "application/x-ndjson"
    assert exported.headers["cache-control"] == "private, no-store"
    assert erased.json() == {"sessions": 2}
    assert (result.sessions, result.messages) == (2, 4)
    assert await contents(ada, path) == ["0", "1", "2"]


async def test_everybody_is_erased_by_name_only(ada: httpx.AsyncClient) -> None:
    path = await begin(ada)

    unnamed = await ada.delete("/sessions")

    assert (unnamed.status_code, unnamed.json()["errors"][0]["field"]) == (422, "user_id")
    assert (await ada.get(path)).status_code == 200


async def test_a_missing_session_is_a_problem_on_every_route(ada: httpx.AsyncClient) -> None:
    path = f"/sessions/{UUID(int=7)}"
    requests = [
        ("GET", "", None), ("PATCH", "", {"title": "x"}), ("DELETE", "", None), ("DELETE", "?hard=true", None),
        ("POST", "/restore", None), ("POST", "/fork", {"seq": 0}), ("POST", "/messages", {"role": "user"}),
        ("POST", "/messages/batch", {"messages": [{"message": {"role": "user"}}]}), ("GET", "/messages", None),
        ("DELETE", "/messages/last", None), ("GET", "/events", None), ("GET", "/context", None),
        ("PUT", "/context", {}), ("PATCH", "/context", {}), ("GET", "/metadata", None), ("PUT", "/metadata", {}),
        ("PATCH", "/metadata", {}),
    ]  # fmt: skip

    for method, rest, body in requests:
        for headers in ({}, {"if-match": "*"}, {"idempotency-key": "k"}):
            answer = await ada.request(method, path + rest, json=body, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), rest
            assert answer.json()["detail"] == f"there is no session {UUID(int=7)}"
