"""Server-sent events of a session, over a real server and to a real browser."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import HTMLResponse

from agent_service.core.errors import DatabaseError, SessionNotFoundError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.fastapi import AgentService, owned_stream
from agent_service.integrations.fastapi.events import MessageEvents
from agent_service.integrations.fastapi.sessions import Caller
from tests.integrations.fastapi.rest.conftest import application, begin, headers_of
from tests.integrations.fastapi.rest.serving import serving, serving_by_hypercorn
from tests.servers.ports import free_port
from tests.servers.programs import program
from tests.support.waiting import until

NEVER = 3_000.0
"""Seconds between heartbeats, where none shall be what a test depends on."""

Event = dict[str, str]


class Follower:
    """What one client receives of a stream: events as they come, and comments."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self._lines = response.aiter_lines()

    async def next(self) -> Event | None:
        """Return the next event, or None at the end."""
        event: Event = {}
        async for line in self._lines:
            if not line:
                if event:
                    return event
            elif line.startswith(":"):
                self.comments += 1
            else:
                name, _, value = line.partition(": ")
                event[name] = value
        return None

    async def take(self, count: int) -> list[tuple[str, str]]:
        """Return the ids and contents of the next messages."""
        found: list[tuple[str, str]] = []
        while len(found) < count:
            event = await self.next()
            assert event is not None
            if "id" in event:
                found.append((event["id"], json.loads(event["data"])["message"]["content"]))
        return found


@asynccontextmanager
async def follow(client: httpx.AsyncClient, path: str, **request: Any) -> AsyncIterator[Follower]:
    async with client.stream("GET", f"{path}/events", **request) as response:
        assert response.status_code == 200
        yield Follower(response)


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[tuple[httpx.AsyncClient, AgentService]]:
    """A client of ada over a real connection, and the service that it talks to."""
    app, service = application(database_url, heartbeat=NEVER)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, headers=headers_of("ada"), timeout=60) as client:
        yield client, service


Served = tuple[httpx.AsyncClient, AgentService]


async def say(client: httpx.AsyncClient, path: str, *contents: str) -> None:
    for content in contents:
        assert (await client.post(f"{path}/messages", json={"role": "user", "content": content})).status_code == 201


async def test_a_client_receives_what_was_said_and_what_is_said(served: Served) -> None:
    client, _ = served
    path = await begin(client, "a\r\nb", "c\u2028\u2029\x85")

    async with follow(client, path) as follower:
        earlier = await follower.take(2)
        await say(client, path, "d", "e")
        later = await follower.take(2)

    assert earlier + later == [("1", "a\r\nb"), ("2", "c\u2028\u2029\x85"), ("3", "d"), ("4", "e")]
    headers = follower.response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")


async def test_the_data_is_the_message_as_history_shows_it(served: Served) -> None:
    client, _ = served
    path = await begin(client, "a")

    async with follow(client, path) as follower:
        first = await follower.next()
        second = await follower.next()

    assert first == {"retry": "3000"}
    assert second is not None
    assert [json.loads(second["data"])] == (await client.get(f"{path}/messages")).json()


@pytest.mark.parametrize(
    ("headers", "params", "first"),
    [
        ({}, {}, "1"),
        ({"last-event-id": "2"}, {}, "3"),
        ({}, {"after_seq": "1"}, "2"),
        ({"last-event-id": "2"}, {"after_seq": "0"}, "3"),
        ({"last-event-id": "0"}, {"after_seq": "2"}, "1"),
    ],
)
async def test_a_client_goes_on_after_the_last_number_that_it_has(
    served: Served, headers: dict[str, str], params: dict[str, str], first: str
) -> None:
    client, _ = served
    path = await begin(client, *"abc")

    async with follow(client, path, headers=headers, params=params) as follower:
        ((number, _),) = await follower.take(1)

    assert number == first


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9223372036854775808", "1,2", "1e3"])
async def test_a_last_event_id_that_is_no_number_is_refused_by_name(ada: httpx.AsyncClient, given: str) -> None:
    path = await begin(ada)

    for request in ({"headers": {"last-event-id": given}}, {"params": {"after_seq": given}}):
        answer = await ada.get(f"{path}/events", **request)  # type: ignore[arg-type]
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
        assert answer.json()["errors"][0]["field"] == ("Last-Event-ID" if "headers" in request else "after_seq")


async def test_many_reconnections_under_load_lose_and_repeat_nothing(served: Served) -> None:
    client, _ = served
    path = await begin(client)
    received: list[tuple[str, str]] = []

    saying = asyncio.create_task(say(client, path, *(str(number) for number in range(1, 61))))
    while len(received) < 60:
        last = {"last-event-id": received[-1][0]} if received else {}
        async with follow(client, path, headers=last) as follower:
            received += await follower.take(min(7, 60 - len(received)))
    await saying

    assert received == [(str(number), str(number)) for number in range(1, 61)]


@pytest.mark.parametrize("serve", [serving, serving_by_hypercorn], ids=["uvicorn", "hypercorn"])
async def test_a_client_that_leaves_frees_its_subscription(database_url: str, serve: Any) -> None:
    app, service = application(database_url, heartbeat=NEVER)
    async with serve(app) as url, httpx.AsyncClient(base_url=url, headers=headers_of("ada"), timeout=60) as client:
        path = await begin(client, "a")
        async with follow(client, path) as follower:
            await follower.take(1)
            bells = service.database.notifications._bells
            assert len(bells) == 1

        # No heartbeat comes that could find it out, and nothing is said.
        await until(lambda: not bells)


async def test_silence_is_filled_with_comments(database_url: str) -> None:
    app, _ = application(database_url, heartbeat=0.02)
    async with serving(app) as url, httpx.AsyncClient(base_url=url, headers=headers_of("ada"), timeout=60) as client:
        path = await begin(client)
        async with follow(client, path) as follower:
            taking = asyncio.create_task(follower.take(1))
            await until(lambda: follower.comments >= 3)
            await say(client, path, "a")
            assert await taking == [("1", "a")]


async def test_streams_end_when_the_service_stops(served: Served) -> None:
    client, service = served
    path = await begin(client, "a")

    async with follow(client, path) as follower:
        await follower.take(1)
        service.stopping.set()
        assert await follower.next() is None


async def test_a_session_that_is_deleted_ends_its_streams_with_a_problem(served: Served) -> None:
    client, _ = served
    path = await begin(client, "a")

    async with follow(client, path) as follower:
        await follower.take(1)
        await client.delete(path)
        event = await follower.next()
        end = await follower.next()

    assert event is not None
    problem = json.loads(event["data"])
    assert (event["event"], problem["status"], problem["type"]) == ("problem", 404, "urn:agent-service:not-found")
    assert end is None


async def test_a_client_that_leaves_an_export_frees_its_connection(served: Served) -> None:
    client, service = served
    path = await begin(client)
    long = [{"message": {"role": "user", "content": "x" * 2_000}}] * 400
    for _ in range(20):
        assert (await client.post(f"{path}/messages/batch", json={"messages": long})).status_code == 201

    async with client.stream("GET", "/sessions/export") as response:
        await anext(response.aiter_bytes())
        assert service.database.get_metrics()["in_use"] == 1

    await until(lambda: service.database.get_metrics()["in_use"] == 0)


async def test_exports_that_nobody_reads_leave_connections_to_other_requests(served: Served) -> None:
    client, service = served
    path = await begin(client)
    for _ in range(16):  # more than all buffers on the way hold
        said = await client.post(f"{path}/messages", json={"role": "user", "content": "x" * 1_000_000})
        assert said.status_code == 201

    async with AsyncExitStack() as unread:
        for _ in range(2):
            await unread.enter_async_context(client.stream("GET", "/sessions/export"))
        await until(lambda: service.parts.exporting.locked())
        async with client.stream("GET", "/sessions/export") as third:
            assert (await client.get(path)).status_code == 200
            assert service.database.get_metrics()["in_use"] == 2
            await unread.aclose()
            await anext(third.aiter_bytes())
            await until(lambda: service.database.get_metrics()["in_use"] <= 1)


async def failing(error: Exception) -> AsyncGenerator[SessionMessage, None]:
    raise error
    yield


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (SessionNotFoundError("gone"), 404, False),
        (DatabaseError("a secret"), 500, True),
        (KeyError("secret"), 500, True),
    ],
)
async def test_an_error_after_the_beginning_is_an_event(
    error: Exception, status: int, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sent = await played(MessageEvents(failing(error), heartbeat=NEVER))

    lines = [line for line in b"".join(sent).decode().split("\n") if line]
    assert lines[:2] == ["retry: 3000", "event: problem"]
    assert json.loads(lines[2].removeprefix("data: "))["status"] == status
    assert ("a stream of events failed" in caplog.text) is logged
    assert "secret" not in "".join(lines)


async def played(response: MessageEvents, *, spec: str = "2.3", fails: bool = False, reads: bool = True) -> list[bytes]:
    """Return what a response sends to a client that stays, or whose connection is lost at the second chunk.

    :param reads: False: the client stays, and takes nothing after the first chunk.
    """
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if fails and sent:
            raise OSError
        if not reads and sent:
            await asyncio.Event().wait()
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    async def receive() -> Any:
        await asyncio.Event().wait()

    await response({"type": "http", "asgi": {"spec_version": spec}}, receive, send)
    return sent


@pytest.mark.parametrize("how", [{"fails": True}, {"reads": False}], ids=["fails", "never ends"])
async def test_a_send_that_fails_closes_the_subscription_without_an_error(
    how: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owned_stream, "_PATIENCE", 0.01)
    closed = asyncio.Event()

    async def messages() -> AsyncGenerator[SessionMessage, None]:
        try:
            yield SessionMessage.stored(seq=1, client_id=None, created_at="2026-01-15T09:30:00Z", data={"role": "user"})
            await asyncio.Event().wait()
        finally:
            closed.set()

    sent = await played(MessageEvents(messages(), heartbeat=NEVER), spec="2.4", **how)

    assert (sent, closed.is_set()) == ([b"retry: 3000\n\n"], True)


PAGE = """
<script>
  const received = [];
  const source = new EventSource(location.pathname.replace("/page", "/events"));
  source.onmessage = event => {
    received.push([event.lastEventId, JSON.parse(event.data).message.content]);
    fetch("/received", {method: "POST", body: JSON.stringify(received)});
  };
</script>
"""


class Browsed:
    """An application with a page that follows a session, and what the page has received."""

    def __init__(self, database: str) -> None:
        self.received: list[list[str]] = []
        self.app, self.service = application(database, authorize=everybody, heartbeat=NEVER)
        self.app.get("/sessions/{session_id}/page")(self.page)
        self.app.post("/received")(self.receive)

    async def page(self, session_id: str) -> HTMLResponse:
        return HTMLResponse(PAGE)

    async def receive(self, request: Request) -> None:
        received = await request.json()
        if len(received) > len(self.received):
            self.received = received


def everybody() -> Caller:
    return Caller(user_id="ada")


@asynccontextmanager
async def browser(url: str, profile: Path) -> AsyncIterator[None]:
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    process = await asyncio.create_subprocess_exec(
        program("chromium", "google-chrome"), *options, f"--user-data-dir={profile}", "--remote-debugging-port=0", url,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_browser_resumes_where_it_was_when_the_server_comes_back(database_url: str, tmp_path: Path) -> None:
    port = free_port()
    first, second = Browsed(database_url), Browsed(database_url)
    async with AsyncExitStack() as page:
        async with serving(first.app, port) as url, httpx.AsyncClient(base_url=url) as client:
            path = await begin(client, "a", "b")
            await page.enter_async_context(browser(f"{url}{path}/page", tmp_path))
            await until(lambda: len(first.received) == 2)
            await say(client, path, "c")
            await until(lambda: len(first.received) == 3)
        await say_beside(database_url, path, "d")
        async with serving(second.app, port) as url, httpx.AsyncClient(base_url=url) as client:
            await say(client, path, "e")
            await until(lambda: len(second.received) == 5)

    assert second.received == [[str(number), content] for number, content in enumerate("abcde", 1)]


async def say_beside(database_url: str, path: str, content: str) -> None:
    """Append while no server runs."""
    database = DatabaseManager(database_url)
    async with database.session() as db:
        session_id = path.rsplit("/", 1)[1]
        await SessionRepository(db).add_message_to_session(session_id, {"role": "user", "content": content})
    await database.close()
