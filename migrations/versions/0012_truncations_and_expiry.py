"""Sessions keep what followers need to know about removed messages; contexts may expire, and are listed by prefix.

Both are columns without a value, which the version before neither reads nor writes. So services of both versions work
side by side; what needs the columns is for the time after the last one was replaced.
"""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, DropIndex, Lock, MakeIndex, Step, run

revision = "agent_service_0012"
down_revision = "agent_service_0011"
branch_labels = None
depends_on = None

SESSIONS, CONTEXTS = "agent_service_sessions", "agent_service_context_store"
EXPIRY, PREFIX = "agent_service_ix_context_store_expiry", "agent_service_ix_context_store_prefix"


def upgrade() -> None:
    made = tables_are_made() and has_column("sessions", "truncations") and has_column("context_store", "expires_at")
    by_prefix = MakeIndex(PREFIX, CONTEXTS, "(key text_pattern_ops)")
    run(
        revision,
        *(() if made else columns()),
        # SQLite's primary key is in the order of bytes already.
        *((by_prefix,) if op.get_bind().dialect.name == "postgresql" else ()),
    )


def has_column(table: str, column: str) -> bool:
    """Whether a table has the column."""
    names = names_of(op.get_bind())
    return has_table(op.get_bind(), names.schema, names.local(table), {column})


def columns() -> tuple[Step, ...]:
    """Return the steps that add the columns."""
    return (
        Change(
            "add the column truncations",
            lambda _: op.add_column(SESSIONS, sa.Column("truncations", sa.Text(), nullable=True)),
            {SESSIONS: Lock.ACCESS_EXCLUSIVE},
        ),
        Change(
            "add the column expires_at to contexts",
            lambda _: op.add_column(CONTEXTS, sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True)),
            {CONTEXTS: Lock.ACCESS_EXCLUSIVE},
        ),
        MakeIndex(EXPIRY, CONTEXTS, "(expires_at) WHERE expires_at IS NOT NULL"),
    )


def downgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    run(
        revision,
        *((DropIndex(PREFIX, CONTEXTS),) if postgres else ()),
        DropIndex(EXPIRY, CONTEXTS),
        Change(
            "drop the column expires_at of contexts",
            lambda _: op.drop_column(CONTEXTS, "expires_at"),
            {CONTEXTS: Lock.ACCESS_EXCLUSIVE},
        ),
        Change(
            "drop the column truncations",
            lambda _: op.drop_column(SESSIONS, "truncations"),
            {SESSIONS: Lock.ACCESS_EXCLUSIVE},
        ),
        down=True,
    )
