"""Subscribers are told of new messages: sessions that somebody watches announce their changes (PostgreSQL)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The condition is part of the trigger, so that sessions which nobody watches pay for neither a function call nor a
# NOTIFY: transactions that notify commit one after another.
ANNOUNCE = (
    """
    CREATE FUNCTION agent_service_announce() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('agent_service_sessions', NEW.id::text);
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER session_changed AFTER UPDATE OF last_seq, deleted_at ON sessions FOR EACH ROW
    WHEN (NEW.watched_until > now()
          AND (NEW.last_seq <> OLD.last_seq OR NEW.deleted_at IS DISTINCT FROM OLD.deleted_at))
    EXECUTE FUNCTION agent_service_announce()
    """,
)


def upgrade() -> None:
    op.add_column("sessions", sa.Column("watched_until", sa.DateTime(timezone=True), nullable=True))
    if op.get_bind().dialect.name == "postgresql":
        for statement in ANNOUNCE:
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.get_bind().exec_driver_sql("DROP TRIGGER session_changed ON sessions")
        op.get_bind().exec_driver_sql("DROP FUNCTION agent_service_announce()")
    op.drop_column("sessions", "watched_until")
