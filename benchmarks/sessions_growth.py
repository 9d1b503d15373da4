"""
How costs grow with the data: the large case over the small one, in one run: ``python -m benchmarks.sessions_growth``.

On PostgreSQL with fsync: one session of 100,000 messages; 200,000 sessions of one user, all expired; 2,000 sessions
with 80,000 messages; 500,000 messages, one of which holds a rare word. ``--scale 0.1`` makes a tenth of it. Reads
happen in one open transaction, so that what is compared is the work of the statements and of reading their answers.

While expired sessions are swept another task appends: to the one that is next, which the sweep mostly holds locked, to
a random one of them, and to one that is not swept. What that takes is compared with what it takes without a sweep; what
was waited for locks is read in the server's log. The server has had a checkpoint and keeps its WAL files
(``min_wal_size``): making one of 16 MB, when so much was written, stops every commit for as long as the disk takes.
"""

import argparse
import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.maintenance import sweep
from agent_service.infrastructure.database.repositories import SessionRepository
from benchmarks.timing import print_ratios, seconds_per_call
from tests.servers.postgres import PostgresServer, running_postgres

PAGE = 20
PROMISES = {
    "last 50 of the long session": ("last 50 of 100", 1.5),
    "the cursor's last page": ("the cursor's first page", 2.0),
    "stats of a user": ("read by primary key", 3.0),
    "search for a rare word": ("read by primary key", 20.0),
    "append to the long session": ("append to a session of 100", 1.3),
}
SLOWEST_WRITER = 0.05
CONTROL_SECONDS = 10.0
WARM_UP = 100
NEXT = text(
    "SELECT id FROM agent_service.sessions WHERE status = 'active' AND deleted_at IS NULL AND expires_at <= now() "
    "ORDER BY expires_at LIMIT 1"
)
SERVER = ("log_lock_waits = on", "deadlock_timeout = '1ms'", "min_wal_size = '2GB'", "max_wal_size = '4GB'")
"""Waits of more than a millisecond are told in the log."""
WAITED = re.compile(r"acquired \w+ on .* after ([\d.]+) ms")

SESSIONS = """
INSERT INTO agent_service.sessions (id, tenant_id, user_id, agent_id, title, status, context, metadata, last_seq,
    total_messages, total_tokens, version, created_at, updated_at, last_activity_at, expires_at)
SELECT md5($1::text || n)::uuid, '', $1::text, 'bench', 'Session ' || n, 'active', '{}', '{}', $3::bigint, $3, $3 * 30,
    1, now(), now(), now() - n * interval '1 second', now() + $4::int * interval '1 hour'
FROM generate_series(1, $2::int) n
"""
MESSAGES = """
INSERT INTO agent_service.session_messages (tenant_id, session_id, seq, role, content, data, token_count, created_at)
SELECT '', md5($1::text || n)::uuid, seq, 'user', text, json_build_object('role', 'user', 'content', text), 30, now()
FROM generate_series(1, $2::int) n, generate_series(1, $3::bigint) seq,
    LATERAL (SELECT 'Please look at ticket ' || md5($1::text || n || '/' || seq) || ', it fails again.' AS text) said
"""
RARE = "zanzibar"


async def fill(url: str, scale: float) -> dict[str, Any]:
    """Make the data with bulk inserts; the search index is built once at the end."""
    many, users = max(int(200_000 * scale), 1_000), 2_000
    connection = await asyncpg.connect(url)
    index = await connection.fetchval(
        "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_session_messages_content_trigram'"
    )
    await connection.execute("DROP INDEX IF EXISTS agent_service.ix_session_messages_content_trigram")
    await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
    for user, sessions, messages, hours in (
        ("long", 1, max(int(100_000 * scale), 1_000), 24),
        ("short", 1, 100, 24),
        ("lister", many, 0, -1),
        ("stats", users, 40, 24),
        ("searcher", max(int(5_000 * scale), 50), 100, 24),
    ):
        await connection.execute(SESSIONS, user, sessions, messages, hours, timeout=120)
        await connection.execute(MESSAGES, user, sessions, messages, timeout=120)
    await connection.execute(
        "UPDATE agent_service.session_messages SET content = content || $1 "
        "WHERE tenant_id = '' AND session_id = md5('searcher7')::uuid AND seq = 7",
        f" {RARE}",
    )
    if index:
        await connection.execute(index, timeout=120)
    await connection.execute("VACUUM ANALYZE", timeout=120)
    for setting in SERVER:
        await connection.execute(f"ALTER SYSTEM SET {setting}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.execute("CHECKPOINT", timeout=120)
    ids = await connection.fetch("SELECT user_id, id FROM agent_service.sessions WHERE user_id IN ('long', 'short')")
    expired = await connection.fetch("SELECT id FROM agent_service.sessions WHERE user_id = 'lister'")
    log = Path(await connection.fetchval("SHOW data_directory")).parent / "log"
    await connection.close()
    return {"log": log, **{row["user_id"]: row["id"] for row in ids}, "expired": [row["id"] for row in expired]}


async def measure_reads(database: DatabaseManager, made: dict[str, Any]) -> dict[str, float]:
    """Seconds of each read."""
    async with database.session() as db:
        repo = SessionRepository(db)
        last = await last_cursor(repo, len(made["expired"]))
        candidates: dict[str, Callable[[], Awaitable[object]]] = {
            "read by primary key": lambda: repo.get(made["short"]),
            "last 50 of 100": lambda: repo.get_messages(made["short"], limit=50),
            "last 50 of the long session": lambda: repo.get_messages(made["long"], limit=50),
            "the cursor's first page": lambda: repo.get_user_sessions_page("lister", limit=PAGE),
            "the cursor's last page": lambda: repo.get_user_sessions_page("lister", limit=PAGE, cursor=last),
            "stats of a user": lambda: repo.get_session_stats("stats"),
            "search for a rare word": lambda: repo.search_messages("searcher", RARE),
        }
        assert len(await repo.search_messages("searcher", RARE)) == 1
        return await seconds_per_call(candidates, calls=20)


async def measure_appends(database: DatabaseManager, made: dict[str, Any]) -> dict[str, float]:
    """Seconds of an append in a transaction of its own."""

    async def append(session_id: UUID) -> None:
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session_id, {"role": "user", "content": "x"})

    candidates: dict[str, Callable[[], Awaitable[object]]] = {
        "append to a session of 100": lambda: append(made["short"]),
        "append to the long session": lambda: append(made["long"]),
    }
    return await seconds_per_call(candidates, calls=50)


async def last_cursor(repo: SessionRepository, sessions: int) -> str | None:
    """Walk to the last page in larger steps."""
    cursor, left = None, sessions - PAGE
    while left:
        page = await repo.get_user_sessions_page("lister", limit=min(left, 1_000), cursor=cursor)
        cursor, left = page.next_cursor, left - len(page.items)
    return cursor


async def measure_sweep(database: DatabaseManager, made: dict[str, Any]) -> tuple[int, float, dict[str, list[float]]]:
    """Append without and with a sweep going on; how many were swept, how long it took, and seconds of each append."""
    swept: dict[str, list[float]] = {
        "to the next that is swept": [],
        "to any that is swept": [],
        "to one that is not": [],
    }
    taken: dict[str, list[float]] = {"without a sweep": [], **swept}

    async def append(session_id: UUID, name: str) -> None:
        started = time.perf_counter()
        async with database.session() as db:
            await SessionRepository(db).add_message_to_session(session_id, {"role": "user", "content": "x"})
        taken[name].append(time.perf_counter() - started)

    async def append_to_each(*names: str) -> None:
        async with database.session() as db:
            following = (await db.execute(NEXT)).scalar() or made["short"]
        for name, session_id in zip(names, (following, random.choice(made["expired"]), made["short"]), strict=True):
            await append(session_id, name)
        await asyncio.sleep(0.005)

    started = time.perf_counter()
    while time.perf_counter() - started < CONTROL_SECONDS:
        await append_to_each(*["without a sweep"] * 3)
    del taken["without a sweep"][:WARM_UP]
    started = time.perf_counter()
    sweeping = asyncio.create_task(sweep(database))
    while not sweeping.done():
        await append_to_each(*swept)
    return await sweeping, time.perf_counter() - started, taken


def lock_waits(log: Path) -> list[float]:
    """Return the seconds of each wait for a lock of more than a millisecond, by the server's log."""
    return sorted(float(each) / 1e3 for each in WAITED.findall(log.read_text(errors="replace")))


def run(scale: float = 1.0) -> None:
    """Print the tables, and what was promised of them."""
    logging.getLogger("agent_service").setLevel(logging.ERROR)
    with running_postgres(durable=True) as server:
        asyncio.run(report(server, scale))


async def report(server: PostgresServer, scale: float) -> None:
    """Fill the database, measure, print."""
    database = DatabaseManager(server.database_url("postgres"))
    try:
        await database.upgrade()
        started = time.perf_counter()
        made = await fill(server.url, scale)
        print(f"\nGrowth of sessions on PostgreSQL (data made in {time.perf_counter() - started:.0f} s)")
        seconds = await measure_reads(database, made)
        print_ratios("Reads", seconds)
        seconds |= (appends := await measure_appends(database, made))
        print_ratios("Appends", appends)
        for large, (small, most) in PROMISES.items():
            ratio = seconds[large] / seconds[small]
            print(f"  {large} / {small}: {ratio:.2f} (promised: at most {most:g})")
        swept, taken, waited = await measure_sweep(database, made)
        print(f"\nSweep of {swept:,} expired sessions in {taken:.1f} s; appends meanwhile")
        for name, each in waited.items():
            each.sort()
            p50, p99 = (each[int(len(each) * part)] * 1e3 for part in (0.5, 0.99))
            print(f"  {name:<26} p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {each[-1] * 1e3:.1f} ms of {len(each):,}")
        waits = lock_waits(made["log"])
        longest = f", the longest {waits[-1] * 1e3:.1f} ms" if waits else ""
        print(f"  {len(waits)} waited more than 1 ms for a lock{longest}")
        print(f"  promised: no writer waits longer than {SLOWEST_WRITER * 1e3:g} ms")
    finally:
        await database.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="how much data, 1 being what is described")
    run(parser.parse_args().scale)
