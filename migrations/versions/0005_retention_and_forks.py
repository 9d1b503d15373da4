"""Indexes of the few sessions that are hidden, and of those that are forks."""

from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import DropIndex, MakeIndex, run

revision = "agent_service_0005"
down_revision = "agent_service_0004"
branch_labels = None
depends_on = None


SESSIONS = "agent_service_sessions"
DELETED, FORKS = "agent_service_ix_sessions_deleted", "agent_service_ix_sessions_forks"


def upgrade() -> None:
    indexes = (
        MakeIndex(DELETED, SESSIONS, "(deleted_at) WHERE deleted_at IS NOT NULL"),
        MakeIndex(FORKS, SESSIONS, "(tenant_id, user_id) WHERE parent_session_id IS NOT NULL"),
    )
    run(revision, *(() if tables_are_made() else indexes))


def downgrade() -> None:
    run(revision, DropIndex(FORKS, SESSIONS), DropIndex(DELETED, SESSIONS), down=True)
