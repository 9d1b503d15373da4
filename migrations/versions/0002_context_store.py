"""Context documents under their keys."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.contexts.rows import row_of
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.documented_table import is_documented, take_over
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, run

revision = "agent_service_0002"
down_revision = "agent_service_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(revision, *(() if tables_are_made() else (Change("make the table of context documents", make),)))


def make(connection: sa.Connection) -> None:
    name = names_of(connection).local("context_store")
    if is_documented(connection, name):
        take_over(connection, name, create, row_of)
    else:
        create()


def create() -> sa.Table:
    """Create the table."""
    return op.create_table(
        "agent_service_context_store",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("long_key", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("agent_service_pk_context_store")),
    )


def downgrade() -> None:
    table = "agent_service_context_store"
    run(
        revision,
        Change("drop the table of context documents", f"DROP TABLE {table}", {table: Lock.ACCESS_EXCLUSIVE}),
        down=True,
    )
