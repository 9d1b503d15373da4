"""From here on the package keeps its revision in a table of its own.

Nothing else changes. Tables of earlier versions, which kept it in ``alembic_version``, are taken over before this
revision and given back below it; see ``agent_service/infrastructure/database/schema/adopting.py``.
"""

revision = "agent_service_0008"
down_revision = "agent_service_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Do nothing."""


def downgrade() -> None:
    """Do nothing."""
