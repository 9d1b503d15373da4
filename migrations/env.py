"""Run revisions over the connection that was handed in, or over DATABASE_URL when `alembic` was called by itself."""

import asyncio

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from agent_service.core.settings import get_settings
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.migration import compare_options


def run(connection: Connection) -> None:
    """Run the wanted revisions in one transaction."""
    context.configure(connection=connection, transactional_ddl=True, **compare_options())
    with context.begin_transaction():
        context.run_migrations()


async def run_on_configured_database() -> None:
    """Open the database that the settings name."""
    database = DatabaseManager(get_settings().database_url.get_secret_value())
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await database.close()


if context.is_offline_mode():
    raise CommandError("the revisions look at the database they change; run them without --sql")
handed_in = context.config.attributes.get("connection")
if handed_in is None:
    asyncio.run(run_on_configured_database())
else:
    run(handed_in)
