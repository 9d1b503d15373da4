"""Invalidations that are committed together with what made them necessary."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, run

revision = "agent_service_0006"
down_revision = "agent_service_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run(revision, *(() if tables_are_made() else (Change("make the outbox of invalidations", create),)))


def create(_connection: sa.Connection) -> None:
    op.create_table(
        "agent_service_cache_outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("format", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_service_pk_cache_outbox")),
    )


def downgrade() -> None:
    table = "agent_service_cache_outbox"
    run(
        revision,
        Change("drop the outbox of invalidations", f"DROP TABLE {table}", {table: Lock.ACCESS_EXCLUSIVE}),
        down=True,
    )
