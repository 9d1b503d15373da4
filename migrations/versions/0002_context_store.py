"""Context documents under their keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "context_store",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("long_key", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_context_store")),
    )


def downgrade() -> None:
    op.drop_table("context_store")
