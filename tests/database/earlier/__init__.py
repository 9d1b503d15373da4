"""Databases as version 0.1.0 left them, at its revision 0007: tables without schema or prefix, ``alembic_version``."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

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


async def _run(url: str, script: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(script)
    finally:
        await connection.close()
