"""What each process of a service measures, where there is no Redis to keep it."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, run

revision = "agent_service_0011"
down_revision = "agent_service_0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    names = names_of(op.get_bind())
    # A chain of the application's that made the tables of an earlier version has not made this one.
    made = tables_are_made() and has_table(op.get_bind(), names.schema, names.local("fleet"))
    run(revision, *(() if made else (Change("make the table of processes", create),)))


def create(_connection: sa.Connection) -> None:
    op.create_table(
        "agent_service_fleet",
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("process", name=op.f("agent_service_pk_fleet")),
    )


def downgrade() -> None:
    table = "agent_service_fleet"
    drop = Change("drop the table of processes", f"DROP TABLE {table}", {table: Lock.ACCESS_EXCLUSIVE})
    run(revision, drop, down=True)
