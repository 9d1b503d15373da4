"""Context documents under their keys."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.documented_table import is_documented, take_over
from agent_service.infrastructure.database.keyvalue import row_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if is_documented(op.get_bind(), "context_store"):
        take_over(op.get_bind(), "context_store", create, row_of)
    else:
        create()


def create() -> sa.Table:
    """Create the table."""
    return op.create_table(
        "context_store",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("long_key", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_context_store")),
    )


def downgrade() -> None:
    op.drop_table("context_store")
