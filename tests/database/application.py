"""An application that keeps its own tables in the same database by its own Alembic, with all of Alembic's defaults."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

T = TypeVar("T")

ENVIRONMENT = """
from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], target_metadata=given["metadata"], **given["options"])
with context.begin_transaction():
    context.run_migrations()
"""
TEMPLATE = """
import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

def upgrade():
    ${upgrades if upgrades else "pass"}

def downgrade():
    ${downgrades if downgrades else "pass"}
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {before!r}

def upgrade():
    {upgrade}

def downgrade():
    {downgrade}
"""


class Application:
    """Its revisions, and its database."""

    def __init__(self, folder: Path, url: str, *, metadata: MetaData | None = None, **options: Any) -> None:
        self.folder, self.url = folder, url
        self.metadata = MetaData() if metadata is None else metadata
        self.options: Mapping[str, Any] = options
        (folder / "versions").mkdir(parents=True)
        (folder / "env.py").write_text(ENVIRONMENT)
        (folder / "script.py.mako").write_text(TEMPLATE)

    def add_revisions(self, *revisions: str) -> None:
        """Add revisions that each make a table, ``app_`` and the revision."""
        before = None
        for revision in revisions:
            self.add_revision(
                revision,
                before,
                f'op.create_table("app_{revision}", sa.Column("id", sa.Integer(), primary_key=True))',
                f'op.drop_table("app_{revision}")',
            )
            before = revision

    def add_revision(self, revision: str, before: str | None, upgrade: str, downgrade: str = "pass") -> None:
        """Add one revision."""
        source = REVISION.format(revision=revision, before=before, upgrade=upgrade, downgrade=downgrade)
        (self.folder / "versions" / f"{revision}_app.py").write_text(source)

    async def upgrade(self, revision: str = "head") -> None:
        """Do what ``alembic upgrade`` does."""
        await self.run(lambda connection: command.upgrade(self._config(connection), revision))

    async def downgrade(self, revision: str) -> None:
        """Do what ``alembic downgrade`` does."""
        await self.run(lambda connection: command.downgrade(self._config(connection), revision))

    async def generate(self) -> str:
        """Do what ``alembic revision --autogenerate`` does, and return what it wrote."""

        def run(connection: Connection) -> str:
            made = command.revision(self._config(connection), "generated", autogenerate=True)
            return Path(made.path).read_text()  # type: ignore[union-attr]

        return await self.run(run)

    async def differences(self) -> list[Any]:
        """Return what autogenerate would do."""

        def run(connection: Connection) -> list[Any]:
            options = {**self.options, "target_metadata": self.metadata}
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), self.metadata))

        return await self.run(run)

    async def tables(self) -> set[str]:
        """Return the tables that the application sees."""
        return await self.run(lambda connection: set(inspect(connection).get_table_names()))

    async def rows(self, statement: str) -> list[Any]:
        """Run a statement of the application's."""

        def run(connection: Connection) -> list[Any]:
            result = connection.execute(text(statement))
            return [tuple(row) for row in result] if result.returns_rows else []

        return await self.run(run)

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction, on an engine that has nothing of the package's."""
        engine = create_async_engine(self.url)
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    def _config(self, connection: Connection) -> Config:
        config = Config(stdout=io.StringIO())
        config.set_main_option("script_location", str(self.folder))
        config.set_main_option("path_separator", "os")
        config.attributes.update(connection=connection, metadata=self.metadata, options=self.options)
        return config
