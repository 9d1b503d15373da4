"""Tables for the checkpoints of agent frameworks, with policies that keep tenants apart."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, run

revision = "agent_service_0013"
down_revision = "agent_service_0012"
branch_labels = None
depends_on = None

THREADS, SHARES = "agent_service_checkpoint_threads", "agent_service_checkpoint_shares"
CHECKPOINTS, BLOBS = "agent_service_checkpoints", "agent_service_checkpoint_blobs"
WRITES = "agent_service_checkpoint_writes"
TABLES = (THREADS, SHARES, CHECKPOINTS, BLOBS, WRITES)
# Scalar subqueries are evaluated once per statement, not once per row.
SAID = "(SELECT current_setting('agent_service.tenant', true))"


def upgrade() -> None:
    names = names_of(op.get_bind())
    # A chain of the application's that made the tables of an earlier version has not made these.
    made = tables_are_made() and has_table(op.get_bind(), names.schema, names.local("checkpoint_threads"))
    # One step, so that no other transaction ever sees the tables without their policies.
    run(revision, Change("make the tables of checkpoints", keep_apart if made else create))


def create(connection: sa.Connection) -> None:
    """Make the tables and what belongs to them."""
    make_tables(connection)
    keep_apart(connection)


def keep_apart(connection: sa.Connection) -> None:
    """Make the policies between tenants (PostgreSQL), in force where those of sessions are."""
    if connection.dialect.name != "postgresql":
        return
    asked = sa.text("SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = CAST(:name AS regclass)")
    in_force = connection.scalar(asked, {"name": names_of(connection).full("sessions")})
    for table in TABLES:
        connection.exec_driver_sql(f"CREATE POLICY tenant ON {table} USING ({SAID} = '=' || tenant_id OR {SAID} = '*')")
        if in_force:
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")


def name(column: str, *, nullable: bool = False) -> sa.Column[str]:
    """Return a column of text that compares byte by byte."""
    return sa.Column(column, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=nullable)


def tenant() -> sa.Column[str]:
    """Return the column that each key begins with."""
    return sa.Column("tenant_id", sa.String(255), nullable=False)


def make_tables(_connection: sa.Connection) -> None:
    op.create_table(
        THREADS,
        tenant(),
        name("thread_id"),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("space", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.String(255), nullable=True),
        sa.Column("active_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "thread_id", name=op.f("agent_service_pk_checkpoint_threads")),
    )
    op.create_index("agent_service_uq_checkpoint_threads_id", THREADS, ["tenant_id", "id"], unique=True)
    of_user = sa.text("user_id IS NOT NULL")
    op.create_index(
        "agent_service_ix_checkpoint_threads_user",
        THREADS,
        ["tenant_id", "user_id"],
        postgresql_where=of_user,
        sqlite_where=of_user,
    )
    op.create_index("agent_service_ix_checkpoint_threads_active", THREADS, ["active_at"])
    op.create_table(
        SHARES,
        tenant(),
        sa.Column("thread", sa.Uuid(), nullable=False),
        sa.Column("space", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "thread", "space", name=op.f("agent_service_pk_checkpoint_shares")),
    )
    op.create_index("agent_service_ix_checkpoint_shares_space", SHARES, ["tenant_id", "space"])
    make_checkpoints()
    make_values()


def make_checkpoints() -> None:
    """Make the table of checkpoints."""
    key = ("tenant_id", "thread", "namespace", "checkpoint_id")
    op.create_table(
        CHECKPOINTS,
        tenant(),
        sa.Column("thread", sa.Uuid(), nullable=False),
        name("namespace"),
        name("checkpoint_id"),
        name("parent_id", nullable=True),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("replayed", sa.Text(), nullable=True),
        sa.Column("facts", sa.Text(), nullable=False),
        name("run_id", nullable=True),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("meta_format", sa.Text(), nullable=False),
        sa.Column("meta", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f("agent_service_pk_checkpoints")),
    )
    newest = ["tenant_id", "checkpoint_id", "thread", "namespace"]
    op.create_index("agent_service_ix_checkpoints_newest", CHECKPOINTS, newest)
    of_run = sa.text("run_id IS NOT NULL")
    op.create_index(
        "agent_service_ix_checkpoints_run",
        CHECKPOINTS,
        ["tenant_id", "run_id"],
        postgresql_where=of_run,
        sqlite_where=of_run,
    )


def make_values() -> None:
    """Make the tables of values and of writes."""
    op.create_table(
        BLOBS,
        tenant(),
        sa.Column("space", sa.Uuid(), nullable=False),
        name("namespace"),
        name("channel"),
        name("version"),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "space", "namespace", "channel", "version", name=op.f("agent_service_pk_checkpoint_blobs")
        ),
    )
    key = ("tenant_id", "thread", "namespace", "checkpoint_id", "task_id", "place")
    op.create_table(
        WRITES,
        tenant(),
        sa.Column("thread", sa.Uuid(), nullable=False),
        name("namespace"),
        name("checkpoint_id"),
        name("task_id"),
        sa.Column("place", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("task_path", sa.Text(), nullable=False),
        name("channel"),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(*key, name=op.f("agent_service_pk_checkpoint_writes")),
    )


def downgrade() -> None:
    statements = tuple(f"DROP TABLE {table}" for table in TABLES)
    drop = Change("drop the tables of checkpoints", statements, dict.fromkeys(TABLES, Lock.ACCESS_EXCLUSIVE))
    run(revision, drop, down=True)
