"""
What ADK's sessions cost here, against ADK's own DatabaseSessionService on the same PostgreSQL.

``python -m benchmarks.adk_peers``. The server fsyncs every commit. Both services append the same events, and read the
same histories. An event with state sets a key of the session; one with shared state sets a key of the user as well. A
list of N sessions returns all N, so what can stay the same is the cost of each: it is shown for two sizes.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from statistics import median
from typing import Any

from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import BaseSessionService, DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session
from google.genai.types import Content, Part

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.adk import AdkSessionService
from benchmarks.append import MESSAGE, migrate
from benchmarks.timing import seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

OURS, THEIRS = "agent_service, AdkSessionService", "Google ADK, DatabaseSessionService"
APP = "bench"
PEERS = "peers"
"""The other service's database: its tables' names are ours too."""
ROUNDS = 9
EVENTS = 10_000
SESSIONS = (1_000, 10_000)
BUILT_BY = 16
"""Tasks that store what is read afterwards."""

Services = dict[str, BaseSessionService]
_names = count()


def event(**state: object) -> Event:
    """What an agent says, and sets."""
    content = Content(role="model", parts=[Part(text=str(MESSAGE["content"]))])
    return Event(author="agent", invocation_id="i", content=content, actions=EventActions(state_delta=state))


async def new_session(service: BaseSessionService, user: str = "ada") -> Session:
    """A session with a little state."""
    return await service.create_session(
        app_name=APP, user_id=user, session_id=f"s{next(_names)}", state={"step": 0, "user:lang": "en"}
    )


async def appends(services: Services, tasks: int, calls: int, state: dict[str, object]) -> dict[str, float]:
    """Return the seconds of an append, when so many tasks append, each to a session of its own."""

    def together(service: BaseSessionService, sessions: list[Session]) -> Callable[[], Awaitable[None]]:
        async def one(session: Session) -> None:
            for _ in range(calls):
                await service.append_event(session, event(**state))

        async def call() -> None:
            await asyncio.gather(*map(one, sessions))

        return call

    candidates = {}
    for name, service in services.items():
        # Events with state of the user: of a user each, as they come in a service.
        sessions = [await new_session(service, f"u{tasks}-{task}") for task in range(tasks)]
        candidates[name] = together(service, sessions)
    seconds = await seconds_per_call(candidates, calls=1, rounds=ROUNDS)
    return {name: each / (calls * tasks) for name, each in seconds.items()}


async def fill(service: BaseSessionService, events: int) -> str:
    """Store a session with so many events; return its id."""
    session = await new_session(service, f"reader{events}")
    for _ in range(events):
        await service.append_event(session, event())
    return session.id


async def many_sessions(service: BaseSessionService, user: str, number: int) -> None:
    """Store so many sessions of a user, with an event each."""
    await service.create_session(app_name=APP, user_id=user, session_id="first", state={"user:lang": "en"})

    async def some(part: int) -> None:
        for _ in range(part, number - 1, BUILT_BY):
            await service.append_event(await new_session(service, user), event())

    await asyncio.gather(*map(some, range(BUILT_BY)))


async def seconds_of(read: Callable[[], Awaitable[object]], rounds: int) -> float:
    """Return the median seconds of a read, after one that is not counted."""
    await read()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        await read()
        taken.append(time.perf_counter() - started)
    return median(taken)


def show(title: str, seconds: dict[str, float], promised: float | None = None) -> None:
    """Print both, and how many times faster ours is."""
    ratio = seconds[THEIRS] / seconds[OURS]
    goal = "" if promised is None else f" (at least {promised:g} x wanted{'' if ratio >= promised else ': MISSED'})"
    print(f"  {title:<44}{seconds[OURS] * 1e6:>11,.0f} us {seconds[THEIRS] * 1e6:>11,.0f} us {ratio:>7.1f} x{goal}")


async def measure_appends(services: Services) -> None:
    """Appends from one task and from 64."""
    print(f"\nappend_event: {OURS}; {THEIRS}")
    kinds: list[tuple[str, dict[str, object], tuple[float, float] | None]] = [
        ("event", {}, (5, 15)),
        ("event with state of its session", {"step": 1}, None),
        ("event with state of session and user", {"step": 1, "user:lang": "de"}, None),
    ]
    for title, state, promised in kinds:
        show(f"{title}, 1 task", await appends(services, 1, 50, state), promised and promised[0])
        show(f"{title}, 64 tasks", await appends(services, 64, 5, state), promised and promised[1])


async def measure_reads(services: Services) -> None:
    """The last 50 of a short and of a long history."""
    print("\nget_session with the last 50 events")
    config = GetSessionConfig(num_recent_events=50)
    for events in (100, EVENTS):
        seconds = {}
        for name, service in services.items():
            session_id = await fill(service, events)

            async def read(service: BaseSessionService = service, session_id: str = session_id) -> None:
                user = f"reader{events}"  # noqa: B023 - awaited in the same turn
                await service.get_session(app_name=APP, user_id=user, session_id=session_id, config=config)

            seconds[name] = await seconds_of(read, 21)
        show(f"of {events:,} events", seconds)


async def measure_lists(services: Services) -> None:
    """Lists of two lengths: what each session of them costs."""
    print("\nlist_sessions of a user, for each session of the list")
    for number in SESSIONS:
        seconds = {}
        for name, service in services.items():
            user = f"lister{number}"
            await many_sessions(service, user, number)

            async def read(service: BaseSessionService = service, user: str = user) -> Any:
                return await service.list_sessions(app_name=APP, user_id=user)

            assert len((await read()).sessions) == number
            seconds[name] = await seconds_of(read, 5) / number
        show(f"of {number:,}", seconds)


async def on_postgres(server: PostgresServer) -> None:
    """Measure all on a new server."""
    async with AsyncExitStack() as stack:
        database = DatabaseManager(server.database_url("postgres"))
        stack.push_async_callback(database.close)
        ours = await stack.enter_async_context(AdkSessionService(database))
        theirs = DatabaseSessionService(server.database_url(PEERS))
        stack.push_async_callback(theirs.close)
        services: Services = {OURS: ours, THEIRS: theirs}
        await measure_appends(services)
        await measure_reads(services)
        await measure_lists(services)


def run() -> None:
    """Print the tables."""
    logging.disable(logging.WARNING)
    try:
        with running_postgres(durable=True) as server:
            asyncio.run(migrate(server))
            server.create_database(PEERS)
            asyncio.run(on_postgres(server))
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    run()
