"""Conversations as trees of entries, for stores of agent frameworks that keep branches.

Two new tables, which the version before neither reads nor writes.
"""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, run

revision = "agent_service_0015"
down_revision = "agent_service_0014"
branch_labels = None
depends_on = None

RECORDS, ENTRIES = "agent_service_conversation_records", "agent_service_conversation_entries"
# Scalar subqueries are evaluated once per statement, not once per row.
SAID = "(SELECT current_setting('agent_service.tenant', true))"


def upgrade() -> None:
    names = names_of(op.get_bind())
    # A chain of the application's that made the tables of an earlier version has not made these.
    made = tables_are_made() and has_table(op.get_bind(), names.schema, names.local("conversation_records"))
    # One step, so that no other transaction ever sees the tables without their policies.
    run(revision, Change("make the tables of conversations", keep_apart if made else create))


def create(connection: sa.Connection) -> None:
    """Make the tables and what belongs to them."""
    op.create_table(
        ENTRIES,
        sa.Column("tenant_id", sa.String(255), nullable=False),
        sa.Column("entry_id", sa.String(255), nullable=False),
        sa.Column("parent_id", sa.String(255), nullable=True),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(255), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "entry_id", name=op.f("agent_service_pk_conversation_entries")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "parent_id"],
            [f"{ENTRIES}.tenant_id", f"{ENTRIES}.entry_id"],
            name=op.f("agent_service_fk_conversation_entries_parent"),
        ),
    )
    op.create_table(
        RECORDS,
        sa.Column("tenant_id", sa.String(255), nullable=False),
        sa.Column("conversation_id", sa.String(255), nullable=False),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("head_id", sa.String(255), nullable=True),
        sa.Column("scope", sa.String(255), nullable=True),
        sa.Column("branches", sa.Text(), nullable=False),
        sa.Column("revision", sa.String(255), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("saved_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "conversation_id", name=op.f("agent_service_pk_conversation_records")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "head_id"],
            [f"{ENTRIES}.tenant_id", f"{ENTRIES}.entry_id"],
            name=op.f("agent_service_fk_conversation_records_head"),
        ),
    )
    index(ENTRIES, "parent", "parent_id", "tenant_id")
    index(RECORDS, "updated", "tenant_id", "updated_at")
    index(RECORDS, "scope", "scope", "tenant_id", "updated_at")
    index(RECORDS, "head", "head_id", "tenant_id")
    index(RECORDS, "branched", "family_id", "tenant_id", where="branches <> '[]'")
    index(RECORDS, "saved", "saved_at")
    keep_apart(connection)


def index(table: str, name: str, *columns: str, where: str | None = None) -> None:
    """Make an index on a table that was just made."""
    condition = None if where is None else sa.text(where)
    own = table.removeprefix("agent_service_")
    op.create_index(
        f"agent_service_ix_{own}_{name}", table, list(columns), postgresql_where=condition, sqlite_where=condition
    )


def keep_apart(connection: sa.Connection) -> None:
    """Make the policies between tenants (PostgreSQL), in force where those of sessions are."""
    if connection.dialect.name != "postgresql":
        return
    asked = sa.text("SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = CAST(:name AS regclass)")
    in_force = connection.scalar(asked, {"name": names_of(connection).full("sessions")})
    for table in (ENTRIES, RECORDS):
        connection.exec_driver_sql(f"CREATE POLICY tenant ON {table} USING ({SAID} = '=' || tenant_id OR {SAID} = '*')")
        if in_force:
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    drops = (
        Change(f"drop the table {table.removeprefix('agent_service_')}", f"DROP TABLE {table}", locks)
        for table, locks in (
            (RECORDS, {RECORDS: Lock.ACCESS_EXCLUSIVE, ENTRIES: Lock.ACCESS_EXCLUSIVE}),
            (ENTRIES, {ENTRIES: Lock.ACCESS_EXCLUSIVE}),
        )
    )
    run(revision, *drops, down=True)
