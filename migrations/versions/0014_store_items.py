"""Items of stores: documents under namespaces and keys, which may expire, and their vectors."""

from collections.abc import Callable, Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, MakeIndex, Step, run

revision = "agent_service_0014"
down_revision = "agent_service_0013"
branch_labels = None
depends_on = None

ITEMS, VECTORS = "agent_service_store_items", "agent_service_store_vectors"
PREFIX = "agent_service_ix_store_items_prefix"
MOMENT = sa.DateTime(timezone=True)
MERGEABLE_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
NUMBERS = sa.LargeBinary().with_variant(postgresql.ARRAY(sa.REAL()), "postgresql")
SAID = "(SELECT current_setting('agent_service.tenant', true))"


def upgrade() -> None:
    run(revision, *steps())


def steps() -> Iterator[Step]:
    names = names_of(op.get_bind())
    if not (tables_are_made() and has_table(op.get_bind(), names.schema, names.local("store_items"))):
        yield Change("make the table of items", create_items)
        yield Change("make the table of their vectors", create_vectors)
    if op.get_bind().dialect.name != "postgresql":
        return  # SQLite's primary key is in the order of bytes already.
    yield MakeIndex(PREFIX, ITEMS, "(tenant_id, namespace text_pattern_ops)")
    for table in (ITEMS, VECTORS):
        yield Change(f"make the policy of {table}", policy(table))


def create_items(_connection: sa.Connection) -> None:
    op.create_table(
        ITEMS,
        sa.Column("tenant_id", sa.String(255), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", MERGEABLE_JSON, nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("ttl", sa.Float(53), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "namespace", "key", name=op.f("agent_service_pk_store_items")),
    )
    expires = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "agent_service_ix_store_items_expiry",
        ITEMS,
        ["expires_at"],
        postgresql_where=expires,
        sqlite_where=expires,
    )


def create_vectors(_connection: sa.Connection) -> None:
    op.create_table(
        VECTORS,
        sa.Column("tenant_id", sa.String(255), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("embedding", NUMBERS, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "namespace", "key", "place", name=op.f("agent_service_pk_store_vectors")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "namespace", "key"],
            [f"{ITEMS}.tenant_id", f"{ITEMS}.namespace", f"{ITEMS}.key"],
            name=op.f("agent_service_fk_store_vectors_tenant_id"),
            ondelete="CASCADE",
        ),
    )


def policy(table: str) -> Callable[[sa.Connection], None]:
    """Return what keeps tenants apart, in force at once where it is in force for sessions."""

    def create(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"DROP POLICY IF EXISTS tenant ON {table}")
        connection.exec_driver_sql(f"CREATE POLICY tenant ON {table} USING ({SAID} = '=' || tenant_id OR {SAID} = '*')")
        in_force = sa.text("SELECT relrowsecurity FROM pg_class WHERE oid = CAST(to_regclass(:sessions) AS oid)")
        if connection.execute(in_force, {"sessions": names_of(connection).full("sessions")}).scalar():
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")

    return create


def downgrade() -> None:
    run(
        revision,
        *(
            Change(f"drop the table {table}", f"DROP TABLE {table}", {table: Lock.ACCESS_EXCLUSIVE})
            for table in (VECTORS, ITEMS)
        ),
        down=True,
    )
