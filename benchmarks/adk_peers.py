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
from functools import partial
from itertools import count
from statistics import median
from typing import Any

import asyncpg
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions import BaseSessionService, DatabaseSessionService
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.session import Session
from google.genai.types import Content, Part

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.naming.names import DEFAULT_SCHEMA, TableNames
from agent_service.integrations.adk import AdkSessionService
from benchmarks.append import MESSAGE, append_raw, migrate
from benchmarks.append import new_session as new_row
from benchmarks.timing import seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

RAW = "asyncpg, the statement of an append alone"
OURS, THEIRS = "agent_service, AdkSessionService", "Google ADK, DatabaseSessionService"
APP = "bench"
PEERS = "peers"
"""The other service's database: its tables' names are ours too."""
ROUNDS = 9
EVENTS = 10_000
SESSIONS = (1_000, 10_000)
NAMES = TableNames(DEFAULT_SCHEMA, "")
OUR_COPIES = (
    """
    INSERT INTO agent_service_session_messages
    SELECT (jsonb_populate_record(m, jsonb_build_object('seq', n, 'client_id', NULL))).*
    FROM agent_service_session_messages AS m JOIN agent_service_sessions AS s ON s.id = m.session_id,
        generate_series(2, $2::int) AS n
    WHERE s.user_id = $1 AND m.seq = 1
    """,
    "UPDATE agent_service_sessions SET last_seq = $2, total_messages = $2 WHERE user_id = $1",
    """
    INSERT INTO agent_service_sessions
    SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid(), 'external_id', $1::text || n))).*
    FROM agent_service_sessions AS s, generate_series(2, {sessions}::int) AS n WHERE s.user_id = $1::text
    """,
    """
    INSERT INTO agent_service_session_messages
    SELECT (jsonb_populate_record(m, jsonb_build_object('session_id', copy.id, 'client_id', NULL))).*
    FROM agent_service_sessions AS s JOIN agent_service_session_messages AS m ON m.session_id = s.id,
        agent_service_sessions AS copy
    WHERE s.user_id = $1::text AND copy.user_id = $1::text AND copy.external_id LIKE $1::text || '%'
        AND s.external_id NOT LIKE $1::text || '%'
    """,
)
THEIR_COPIES = (
    """
    INSERT INTO events
    SELECT (jsonb_populate_record(e, jsonb_build_object('id', 'e' || n, 'timestamp', timestamp - n * interval '1 s'))).*
    FROM events AS e, generate_series(2, $2::int) AS n WHERE user_id = $1
    """,
    """
    INSERT INTO sessions
    SELECT (jsonb_populate_record(s, jsonb_build_object('id', 'c' || n))).*
    FROM sessions AS s, generate_series(2, {sessions}::int) AS n WHERE user_id = $1
    """,
    """
    INSERT INTO events
    SELECT (jsonb_populate_record(e, jsonb_build_object('session_id', copy.id))).*
    FROM events AS e, sessions AS copy WHERE e.user_id = $1 AND copy.user_id = $1 AND copy.id <> e.session_id
    """,
)
"""What makes many events and sessions of the first ones of a user."""

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


async def appends(
    services: Services, tasks: int, calls: int, state: dict[str, object], raw: Callable[[], Awaitable[None]] | None
) -> dict[str, float]:
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
    if raw is not None:
        candidates[RAW] = partial(_times, raw, calls)
    seconds = await seconds_per_call(candidates, calls=1, rounds=ROUNDS)
    return {name: each / (calls * tasks) for name, each in seconds.items()}


async def _times(call: Callable[[], Awaitable[None]], number: int) -> None:
    for _ in range(number):
        await call()


async def store_many(server: PostgresServer, service: BaseSessionService, user: str, sessions: int, events: int) -> str:
    """Store so many sessions of a user, each with so many events, and return the id of the first.

    The first has its first event from the service; the others are rows of the database that are copied.
    """
    first = await new_session(service, user)
    await service.append_event(first, event())
    mine = isinstance(service, AdkSessionService)
    connection = await asyncpg.connect(server.database_url("postgres" if mine else PEERS).replace("+asyncpg", ""))
    try:
        for statement in OUR_COPIES if mine else THEIR_COPIES:
            values = (user, events) if "$2" in statement else (user,)
            values = (user, sessions) if "{sessions}" in statement else values
            await connection.execute(NAMES.render(statement.replace("{sessions}", "$2")), *values)
        await connection.execute("ANALYZE")
    finally:
        await connection.close()
    return first.id


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
    if RAW in seconds:
        most = seconds[THEIRS] / seconds[RAW]
        print(f"    {RAW:<42}{seconds[RAW] * 1e6:>11,.0f} us, which is {most:.1f} x: the most that any could reach")


async def measure_appends(services: Services, raw: Callable[[], Awaitable[None]]) -> None:
    """Appends from one task and from 64."""
    print(f"\nappend_event: {OURS}; {THEIRS}")
    kinds: list[tuple[str, dict[str, object], tuple[float, float] | None]] = [
        ("event", {}, (5, 15)),
        ("event with state of its session", {"step": 1}, None),
        ("event with state of session and user", {"step": 1, "user:lang": "de"}, None),
    ]
    for title, state, promised in kinds:
        show(
            f"{title}, 1 task", await appends(services, 1, 50, state, None if state else raw), promised and promised[0]
        )
        show(f"{title}, 64 tasks", await appends(services, 64, 5, state, None), promised and promised[1])


async def measure_reads(server: PostgresServer, services: Services) -> None:
    """The last 50 of a short and of a long history."""
    print("\nget_session with the last 50 events")
    config = GetSessionConfig(num_recent_events=50)
    for events in (100, EVENTS):
        seconds = {}
        for name, service in services.items():
            user = f"reader{events}-"
            session_id = await store_many(server, service, user, 1, events)

            async def read(
                service: BaseSessionService = service, session_id: str = session_id, user: str = user
            ) -> None:
                await service.get_session(app_name=APP, user_id=user, session_id=session_id, config=config)

            seconds[name] = await seconds_of(read, 21)
        show(f"of {events:,} events", seconds)


async def measure_lists(server: PostgresServer, services: Services) -> None:
    """Lists of two lengths: what each session of them costs."""
    print("\nlist_sessions of a user, for each session of the list")
    for number in SESSIONS:
        seconds = {}
        for name, service in services.items():
            user = f"lister{number}-"
            await store_many(server, service, user, number, 1)

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
        connection = await asyncpg.connect(server.url)
        stack.push_async_callback(connection.close)
        await measure_appends(services, partial(append_raw, connection, await new_row(database)))
        await measure_reads(server, services)
        await measure_lists(server, services)


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
