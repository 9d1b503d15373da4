"""The example service under 200 conversations, while all that can fail does: nothing is lost, and nothing twice."""

import asyncio
import os
import random
import signal
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from agent_service.infrastructure.database import DatabaseManager
from tests.integrations.fastapi.processes import ServerProcess, running
from tests.servers.redis import RedisServer
from tests.servers.restartable import restartable_postgres
from tests.support.waiting import until

APP = "examples.chat_service:app"
DEADLINE = 10.0
"""Seconds in which a request fails while PostgreSQL is down: two appends of 5. Of the median, for a busy machine."""

pytestmark = [
    pytest.mark.timeout(480),
    pytest.mark.parametrize("users", [20, pytest.param(200, marks=pytest.mark.faults)]),
]


class Clients:
    """Users who talk, each in a session of their own, and follow it by server-sent events."""

    def __init__(self, client: httpx.AsyncClient, users: int) -> None:
        self.client = client
        self.users = [f"user-{number}" for number in range(users)]
        self.unavailable: list[float] = []
        self.faults: list[str] = []
        self.acknowledged: dict[str, list[int]] = {}
        self.received: dict[str, list[int]] = {}
        self.open = self.ended = 0
        self._sessions: dict[str, str] = {}

    async def begin(self) -> None:
        """Create the sessions."""

        async def create(user: str) -> None:
            answer = await self.request(user, "POST", "/sessions", json={"title": user})
            self._sessions[user] = answer.json()["id"]
            self.acknowledged[user], self.received[user] = [], []

        for some in range(0, len(self.users), 20):
            await asyncio.gather(*(create(user) for user in self.users[some : some + 20]))

    async def request(self, user: str, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request until it succeeds: again after a lost connection, and after 503 when it says so."""
        headers = {"x-user": user, **options.pop("headers", {})}
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                response = await self.client.request(method, path, headers=headers, **options)
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if response.is_success:
                return response
            if response.status_code != 503 or response.json()["type"] != "urn:agent-service:unavailable":
                self.faults.append(response.text)
            self.unavailable.append(loop.time() - began)
            await asyncio.sleep(float(response.headers["retry-after"]) * random.uniform(0.5, 1))

    async def talk(self, rounds: int) -> None:
        """Let every user ask so many questions, and note the numbers of the answers."""

        async def ask(user: str) -> None:
            for _ in range(rounds):
                number = len(self.acknowledged[user])
                answer = await self.request(
                    user,
                    "POST",
                    f"/sessions/{self._sessions[user]}/ask",
                    json={"text": f"question {number}"},
                    headers={"idempotency-key": f"{user}-{number}"},
                )
                self.acknowledged[user].append(answer.json())

        await asyncio.gather(*(ask(user) for user in self.users))

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow every session until the end of the block, from where a connection broke off."""
        tasks = [asyncio.create_task(self._follow(user)) for user in self.users]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _follow(self, user: str) -> None:
        path, received = f"/sessions/{self._sessions[user]}/events", self.received[user]
        while True:
            headers = {"x-user": user} | ({"last-event-id": str(received[-1])} if received else {})
            try:
                async with self.client.stream("GET", path, headers=headers) as response:
                    self.open += 1
                    try:
                        async for line in response.aiter_lines():
                            if line.startswith("id: "):
                                received.append(int(line.removeprefix("id: ")))
                        self.ended += response.is_success
                    finally:
                        self.open -= 1
            except httpx.TransportError:
                pass
            await asyncio.sleep(random.uniform(0.1, 0.3))

    @property
    def answers(self) -> int:
        """How many answers were acknowledged."""
        return sum(len(each) for each in self.acknowledged.values())

    def all_follow(self) -> bool:
        """Whether every user has an open stream."""
        return self.open == len(self.users)

    def all_received(self) -> bool:
        """Whether every user has received all that was acknowledged to them."""
        return all(len(self.received[user]) >= 2 * len(self.acknowledged[user]) for user in self.users)

    async def check(self) -> None:
        """Require that what is stored is what was said, once, and that this is what everybody received."""
        for user in self.users:
            count = len(self.acknowledged[user])
            said = [text for number in range(count) for text in (f"question {number}", f"QUESTION {number}")]
            path = f"/sessions/{self._sessions[user]}/messages"
            stored = (await self.request(user, "GET", path, params={"limit": 1000})).json()
            assert Counter(each["message"]["content"] for each in stored) == Counter(said)
            assert [each["seq"] for each in stored] == list(range(1, 2 * count + 1))
            assert self.received[user] == list(range(1, 2 * count + 1))


@asynccontextmanager
async def chatting(users: int, environment: dict[str, str]) -> AsyncIterator[tuple[ServerProcess, Clients]]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running("uvicorn --workers 2", APP, environment))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        client = httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits)
        clients = Clients(await stack.enter_async_context(client), users)
        await clients.begin()
        yield server, clients


async def kill_a_worker(server: ServerProcess) -> None:
    """Kill a worker, and wait until another one has taken its place."""
    workers = server.children()
    os.kill(random.choice(workers), signal.SIGKILL)
    await until(lambda: len(set(server.children()) - set(workers)) == 1, seconds=120)


async def stop_under_streams(server: ServerProcess, clients: Clients) -> None:
    """Stop the server while everybody follows: each stream ends as it should."""
    before = clients.ended
    server.terminate()
    code = await server.ended()
    await until(lambda: clients.ended - before >= len(clients.users))

    assert code == 0
    assert "Traceback" not in server.output.rpartition("Received SIGTERM")[2]


async def test_on_memory_and_sqlite_a_worker_dies_and_the_server_stops(users: int, sqlite_url: str) -> None:
    async with chatting(users, {"DATABASE_URL": sqlite_url}) as (server, clients), clients.following():
        talking = asyncio.create_task(clients.talk(4))
        await until(lambda: clients.answers > users)
        await kill_a_worker(server)
        await talking
        await until(clients.all_received, seconds=120)
        await clients.check()
        await until(clients.all_follow)
        await stop_under_streams(server, clients)

    assert clients.faults == []


async def test_on_redis_and_postgresql_everything_fails_in_turn(users: int, own_redis: RedisServer) -> None:
    async with restartable_postgres() as postgres:
        database = DatabaseManager(postgres.url)
        await database.upgrade()
        await database.close()
        environment = {"DATABASE_URL": postgres.url, "REDIS_URL": own_redis.url}
        async with chatting(users, environment) as (server, clients), clients.following():
            summary = (await clients.request("user-0", "GET", "/summary")).json()
            talking = asyncio.create_task(clients.talk(8))

            await until(lambda: clients.answers > users)
            own_redis.kill()
            cached = [await clients.client.get("/summary", headers={"x-user": "user-0"}) for _ in range(20)]
            own_redis.restart()
            assert [each.status_code for each in cached] == [200] * 20, server.output

            await until(lambda: clients.answers > 3 * users)
            told = len(clients.unavailable)
            await postgres.stop()
            await until(lambda: len(clients.unavailable) - told >= users)
            ready = await clients.client.get("/health/ready", headers={"x-probe": "test"})
            live = await clients.client.get("/health/live")
            await postgres.start()

            await until(lambda: clients.answers > 5 * users, seconds=120)
            await kill_a_worker(server)
            await talking
            await until(clients.all_received, seconds=120)
            await clients.check()
            await until(clients.all_follow)
            await stop_under_streams(server, clients)

    assert summary["total_sessions"] == 1
    assert (ready.status_code, ready.json()["parts"]["database"]["status"], live.status_code) == (503, "down", 200)
    assert statistics.median(clients.unavailable) < DEADLINE
    assert clients.faults == []
