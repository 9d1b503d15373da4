"""A database of each kind, as its owner has it and as a service uses it that serves tenants."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.naming.engines import names_of
from tests.servers.postgres import PostgresServer

KINDS = ("sqlite", "postgres", "row security")


@dataclass(frozen=True)
class House:
    """A database: ``owner`` sees all of it, ``service`` is what the tenants' code is given."""

    owner: DatabaseManager
    service: DatabaseManager


@pytest.fixture(params=KINDS)
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """A migrated, empty database of each kind in turn."""
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    owner = DatabaseManager(url)
    await owner.prepare()
    if request.param == "row security":
        async for service in _bound_service(owner, url, request.getfixturevalue("postgres_server")):
            yield House(owner, service)
    else:
        yield House(owner, owner)
    await owner.close()


async def _bound_service(owner: DatabaseManager, url: str, server: PostgresServer) -> AsyncIterator[DatabaseManager]:
    role = "canary_service"
    async with owner.session() as db:
        await db.execute(text(f"CREATE ROLE {role} LOGIN"))
        schema = (await (await db.connection()).run_sync(names_of)).schema
        await db.execute(text(f'GRANT USAGE ON SCHEMA "{schema}" TO {role}'))
        await db.execute(text(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO {role}'))
    await owner.switch_row_security(on=True)
    service = DatabaseManager(url.replace("postgres@", f"{role}@", 1), row_security=True)
    try:
        yield service
    finally:
        await service.close()
        async with owner.session() as db:
            await db.execute(text(f"DROP OWNED BY {role}"))
            await db.execute(text(f"DROP ROLE {role}"))
