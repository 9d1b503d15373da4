"""
What the change feed costs those who append: ``python -m benchmarks.feed``.

Appends per second without the trigger, with it on sessions that nobody watches, and on watched ones, whose transactions
notify and therefore commit one after another. On a server that fsyncs each commit. Ratios are medians of those within a
round, so that a machine that is busy for a while spoils rounds and not the comparison.
"""

import asyncio
import statistics
import time
from uuid import UUID

from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.servers.postgres import running_postgres

TASKS = 16
CALLS = 400
ROUNDS = 11
STATES = {
    "without the trigger": "ALTER TABLE agent_service_sessions DISABLE TRIGGER agent_service_session_changed",
    "nobody watches": "ALTER TABLE agent_service_sessions ENABLE TRIGGER agent_service_session_changed",
    "watched": "UPDATE agent_service_sessions SET watched_until = now() + interval '1 hour'",
}


async def appends_per_second(database: DatabaseManager, sessions: list[UUID]) -> float:
    """Append to each session from a task of its own."""

    async def append(session_id: UUID) -> None:
        for _ in range(CALLS // len(sessions)):
            async with database.session() as db:
                await SessionRepository(db).add_message_to_session(session_id, {"role": "user", "content": "x" * 200})

    started = time.perf_counter()
    await asyncio.gather(*(append(each) for each in sessions))
    return CALLS / (time.perf_counter() - started)


async def measure(url: str) -> dict[tuple[str, int], list[float]]:
    """Return the appends per second of each round for each state and number of tasks, the states taking turns."""
    database = DatabaseManager(url, pool_size=TASKS)
    await database.upgrade()
    async with database.session() as db:
        sessions = [(await SessionRepository(db).create(Session(user_id="bench"))).id for _ in range(TASKS)]
    await appends_per_second(database, sessions)
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(ROUNDS):
        async with database.session() as db:
            await db.execute(text("UPDATE agent_service_sessions SET watched_until = NULL"))
        for name, statement in STATES.items():
            async with database.session() as db:
                await db.execute(text(statement))
            for tasks in (1, TASKS):
                found.setdefault((name, tasks), []).append(await appends_per_second(database, sessions[:tasks]))
    await database.close()
    return found


def run() -> None:
    """Measure and print."""
    with running_postgres(durable=True) as server:
        found = asyncio.run(measure(server.database_url("postgres")))
    for (name, tasks), rates in found.items():
        bare = found["without the trigger", tasks]
        ratio = statistics.median(rate / other for rate, other in zip(rates, bare, strict=True))
        rate = statistics.median(rates)
        print(f"{name}, {tasks} task{'s' if tasks > 1 else ''}: {rate:,.0f} appends a second, ratio {ratio:.2f}")


if __name__ == "__main__":
    run()
