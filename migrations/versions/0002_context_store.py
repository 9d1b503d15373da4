"""Context documents under their keys."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.documented_table import is_documented, take_over
from agent_service.infrastructure.database.keyvalue import row_of
from agent_service.infrastructure.database.naming import names_of
from agent_service.infrastructure.database.revisions import tables_are_made

revision = "agent_service_0002"
down_revision = "agent_service_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if tables_are_made():
        return
    connection = op.get_bind()
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
    op.drop_table("agent_service_context_store")
