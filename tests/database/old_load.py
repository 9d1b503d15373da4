"""What services of version 0.1.0 send to their tables, in their own words, while somebody upgrades these."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

APPEND = """
WITH taken AS (
    UPDATE public.sessions SET
        last_seq = last_seq + 1,
        total_messages = total_messages + 1,
        total_tokens = total_tokens + coalesce($7::int, 0),
        last_activity_at = greatest(last_activity_at, $8::timestamptz),
        updated_at = greatest(updated_at, $8::timestamptz),
        expires_at = greatest(expires_at, $9::timestamptz)
    WHERE id = $1::uuid AND tenant_id = $2::varchar AND deleted_at IS NULL
        AND ($3::varchar IS NULL
             OR NOT EXISTS (
                SELECT FROM public.session_messages WHERE session_id = $1::uuid AND client_id = $3::varchar
             ))
    RETURNING last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at
), added AS (
    INSERT INTO public.session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at)
    SELECT $1::uuid, last_seq, $3::varchar, $4::text, $5::text, $6::json, $7::int, $8::timestamptz FROM taken
    ON CONFLICT (session_id, client_id) WHERE client_id IS NOT NULL DO NOTHING
    RETURNING seq
)
SELECT last_seq, (SELECT seq FROM added) FROM taken
"""
CREATE = """
INSERT INTO public.sessions (id, tenant_id, user_id, status, context, metadata, last_seq, total_messages, total_tokens,
    version, created_at, updated_at, last_activity_at, expires_at)
VALUES ($1, 'acme', 'ada', 'active', '{}', '{}', 0, 0, 0, 1, $2, $2, $2, $3)
"""
HISTORY = "SELECT seq, data FROM public.session_messages WHERE session_id = $1 ORDER BY seq DESC LIMIT 50"
LISTING = "SELECT id, title FROM public.sessions WHERE tenant_id = 'acme' AND user_id = 'ada' AND deleted_at IS NULL"


@dataclass
class Load:
    """What was done, and how long it took."""

    url: str
    appended: dict[UUID, int] = field(default_factory=dict)
    appends: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)

    @property
    def figures(self) -> str:
        """The slowest of each, and how many there were."""
        return (
            f"{len(self.appends)} appends, the slowest {max(self.appends):.2f} s; "
            f"{len(self.reads)} reads, the slowest {max(self.reads):.2f} s"
        )

    async def connect(self) -> asyncpg.Connection:
        """Connect as a service of the earlier version."""
        return await asyncpg.connect(self.url.replace("+asyncpg", ""), server_settings={"application_name": "old"})

    async def create(self, connection: asyncpg.Connection) -> UUID:
        """Make a session."""
        session, now = uuid4(), datetime.now(UTC)
        await connection.execute(CREATE, session, now, now + timedelta(days=1))
        self.appended[session] = 0
        return session

    async def append(self, connection: asyncpg.Connection, session: UUID) -> None:
        """Append a message, and hold it to the number that it must get."""
        now = datetime.now(UTC)
        values = (
            session,
            "acme",
            str(uuid4()),
            "user",
            "needle",
            '{"role":"user"}',
            None,
            now,
            now + timedelta(days=1),
        )
        row = await connection.fetchrow(APPEND, *values)
        self.appended[session] += 1
        assert tuple(row) == (self.appended[session],) * 2

    async def hold_append(self, seconds: float, held: asyncio.Event) -> None:
        """Append in a transaction that stays open."""
        connection = await self.connect()
        try:
            session = await self.create(connection)
            async with connection.transaction():
                await self.append(connection, session)
                held.set()
                await asyncio.sleep(seconds)
        finally:
            await connection.close()

    async def hold_read(self, seconds: float, held: asyncio.Event) -> None:
        """Read in a transaction that then idles."""
        connection = await self.connect()
        try:
            async with connection.transaction():
                await connection.fetch(LISTING)
                await connection.fetchval("SELECT count(*) FROM public.session_messages")
                held.set()
                await asyncio.sleep(seconds)
        finally:
            await connection.close()


@asynccontextmanager
async def under_load(url: str, *, hold: float, appenders: int = 3, readers: int = 2) -> AsyncIterator[Load]:
    """Have services of the earlier version append and read; two hold a transaction open for the first ``hold`` seconds.

    What fails, fails the test.
    """
    load, stop = Load(url), asyncio.Event()
    held = [asyncio.Event(), asyncio.Event()]

    async def repeat(kind: list[float], prepare: Any, work: Any) -> None:
        connection = await load.connect()
        try:
            session = await prepare(connection)
            while not stop.is_set():
                started = time.monotonic()
                await work(connection, session)
                kind.append(time.monotonic() - started)
                await asyncio.sleep(0.005)
        finally:
            await connection.close()

    async def read(connection: asyncpg.Connection, session: UUID) -> None:
        await connection.fetch(HISTORY, session)
        await connection.fetch(LISTING)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.hold_append(hold, held[0]))
        tasks.create_task(load.hold_read(hold, held[1]))
        for event in held:
            await event.wait()
        for _ in range(appenders):
            tasks.create_task(repeat(load.appends, load.create, load.append))
        for _ in range(readers):
            tasks.create_task(repeat(load.reads, load.create, read))
        while not (load.appends and load.reads):
            await asyncio.sleep(0.01)
        yield load
        stop.set()
