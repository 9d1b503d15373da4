"""SIGTERM while clients follow sessions: streams end, and the server with them."""

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.integrations.fastapi.processes import running

APP = "tests.integrations.fastapi.streaming:app"
STREAMS = 100

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(params=["sqlite", "postgres and redis"])
def environment(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[dict[str, str]]:
    if request.param == "sqlite":
        yield {"DATABASE_URL": sqlite_url}
    else:
        postgres, redis = request.getfixturevalue("postgres_url"), request.getfixturevalue("redis_url")
        yield {"DATABASE_URL": postgres, "REDIS_URL": redis}


@pytest.mark.parametrize(
    "server",
    [
        "uvicorn",
        "uvicorn --loop uvloop",
        "uvicorn --workers 2",
        "uvicorn --reload",
        "hypercorn",
        "hypercorn --workers 0",
        "hypercorn --workers 2 -k uvloop",
    ],
)
async def test_a_hundred_streams_end_with_their_server(server: str, environment: dict[str, str]) -> None:
    begun, outcomes = 0, list[str]()

    async def follow(client: httpx.AsyncClient, session_id: str) -> None:
        nonlocal begun
        ids = []
        try:
            async with client.stream("GET", f"/sessions/{session_id}/events") as response:
                async for line in response.aiter_lines():
                    if line.startswith("id: "):
                        ids.append(line)
                        begun += 1
            outcomes.append(f"{ids}")
        except httpx.TransportError as exc:
            outcomes.append(f"{ids} and {exc}")

    async with running(server, APP, environment) as process:
        limits = httpx.Limits(max_connections=STREAMS + 10)
        async with httpx.AsyncClient(base_url=process.url, timeout=60, limits=limits) as client:
            session_id = (await client.post("/sessions")).json()
            followers = [asyncio.create_task(follow(client, session_id)) for _ in range(STREAMS)]
            await client.post(f"/sessions/{session_id}/messages", json={"role": "user", "content": "hello"})
            while begun < STREAMS:
                await asyncio.sleep(0.01)
            loop = asyncio.get_running_loop()
            asked = loop.time()
            process.terminate()
            await asyncio.gather(*followers)
            took = loop.time() - asked
        await process.ended()
        output = process.output

    # Hypercorn cuts what lasts longer than 3 seconds; uvicorn waits for ever.
    assert (set(outcomes), len(outcomes)) == ({"['id: 1']"}, STREAMS)
    assert took < 10, "which is less than a second, unless the machine is busy"
    assert "Traceback" not in output
    assert "ERROR" not in output


async def test_a_client_that_does_not_read_is_given_up_and_the_service_ends(sqlite_url: str) -> None:
    async with running("uvicorn --timeout-graceful-shutdown 1", APP, {"DATABASE_URL": sqlite_url}) as process:
        async with httpx.AsyncClient(base_url=process.url, timeout=60) as client:
            session_id = (await client.post("/sessions")).json()
            for _ in range(20):  # more than all buffers on the way hold
                message = {"role": "user", "content": "x" * 1_000_000}
                await client.post(f"/sessions/{session_id}/messages", json=message)
        url = httpx.URL(process.url)
        with socket.create_connection((url.host, url.port)) as connection:
            connection.sendall(f"GET /sessions/{session_id}/events HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
            await asyncio.to_thread(connection.recv, 1)
            process.terminate()
            await process.ended()
        output = process.output

    assert "Application shutdown complete" in output
