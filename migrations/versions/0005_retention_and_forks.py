"""Indexes of the few sessions that are hidden, and of those that are forks."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.revisions import tables_are_made

revision = "agent_service_0005"
down_revision = "agent_service_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if tables_are_made():
        return
    create_partial_index("agent_service_ix_sessions_deleted", ["deleted_at"], "deleted_at IS NOT NULL")
    create_partial_index("agent_service_ix_sessions_forks", ["tenant_id", "user_id"], "parent_session_id IS NOT NULL")


def create_partial_index(name: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "agent_service_sessions", columns, postgresql_where=condition, sqlite_where=condition)


def downgrade() -> None:
    op.drop_index("agent_service_ix_sessions_forks", "agent_service_sessions")
    op.drop_index("agent_service_ix_sessions_deleted", "agent_service_sessions")
