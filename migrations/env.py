"""Run revisions over the connection that was passed in, or over DATABASE_URL when `alembic` is called directly."""

import asyncio

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from agent_service.core.settings import get_settings
from agent_service.infrastructure.database.connection import open_database
from agent_service.infrastructure.database.schema.migration import compare_options, moving


def run(connection: Connection) -> None:
    """Run the wanted revisions, or whatever else Alembic was asked for."""
    if not moves():
        run_with(connection, compare_options(connection))
        return
    given = context.config.attributes
    with moving(connection, given.get("report") or print, destination(), down=given.get("down", False)) as options:
        run_with(connection, options)


def run_with(connection: Connection, options: dict[str, object]) -> None:
    context.configure(connection=connection, transactional_ddl=True, **options)  # type: ignore[arg-type]
    with context.begin_transaction():
        context.run_migrations()


def moves() -> bool:
    """Whether the schema is to be changed, and not only looked at."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    except CommandError:
        return True  # An unknown revision, which Alembic is about to report.
    return True


def destination() -> str | None:
    """Return the revision that is wanted, if it was named."""
    try:
        named = context.get_revision_argument()
    except CommandError:
        return None
    return named if isinstance(named, str) else None


async def run_on_configured_database() -> None:
    """Open the database that the settings name."""
    database = open_database(get_settings())
    try:
        await database.move("migrate the schema", run)
    finally:
        await database.close()


if context.is_offline_mode():
    raise CommandError("the revisions look at the database they change; run them without --sql")
handed_in = context.config.attributes.get("connection")
if handed_in is None:
    asyncio.run(run_on_configured_database())
else:
    run(handed_in)
