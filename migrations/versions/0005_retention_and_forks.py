"""Indexes of the few sessions that are hidden, and of those that are forks."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_partial_index("ix_sessions_deleted", ["deleted_at"], "deleted_at IS NOT NULL")
    create_partial_index("ix_sessions_forks", ["tenant_id", "user_id"], "parent_session_id IS NOT NULL")


def create_partial_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "sessions", columns, postgresql_where=condition, sqlite_where=condition)


def downgrade() -> None:
    op.drop_index("ix_sessions_forks", "sessions")
    op.drop_index("ix_sessions_deleted", "sessions")
