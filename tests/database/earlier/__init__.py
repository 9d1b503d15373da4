"""Databases as version 0.1.0 left them, at its revision 0007: tables without schema or prefix, ``alembic_version``.

The coroutines are for :mod:`tests.servers.prepared`.
"""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

from agent_service.infrastructure.database.engine import DatabaseManager

HERE = Path(__file__).parent
SESSION_ID = "01900000-0000-7000-8000-000000000001"


def make_earlier(url: str, *, schema: str | None = None) -> None:
    """Fill an empty database; on PostgreSQL with the tables in another schema, if asked for."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.partition("///")[2])
        connection.executescript((HERE / "sqlite.sql").read_text())
        connection.commit()
        connection.close()
    else:
        script = (HERE / "postgres.sql").read_text()
        if schema is not None:
            script = f'CREATE SCHEMA "{schema}";' + script.replace("public.", f'"{schema}".')
            script = script.replace(f'"{schema}".gin_trgm_ops', "public.gin_trgm_ops")
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(_run(url, script))).result()


async def left_by_earlier(url: str) -> None:
    """As it left them."""
    make_earlier(url)


async def taken_over(url: str) -> None:
    """Taken over by the newest revision."""
    make_earlier(url)
    database = DatabaseManager(url, schema="public", table_prefix="")
    await database.upgrade()
    await database.close()


async def back_at_the_first(url: str) -> None:
    """Taken over, and given back at the first revision."""
    make_earlier(url)
    database = DatabaseManager(url, schema="public", table_prefix="")
    await database.upgrade()
    await database.downgrade("0001")
    await database.close()


async def _run(url: str, script: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(script)
    finally:
        await connection.close()
