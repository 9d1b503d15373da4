"""Subscribers are told of new messages: sessions that somebody watches announce their changes (PostgreSQL)."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.catalog import channel_of
from agent_service.infrastructure.database.naming import names_of
from agent_service.infrastructure.database.revisions import tables_are_made

revision = "agent_service_0003"
down_revision = "agent_service_0002"
branch_labels = None
depends_on = None

ANNOUNCE = """
CREATE FUNCTION agent_service_announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('{channel}', NEW.id::text);
    RETURN NULL;
END
$$
"""
# The condition is part of the trigger, so that sessions which nobody watches pay for neither a function call nor a
# NOTIFY: transactions that notify commit one after another.
ON_CHANGE = """
CREATE TRIGGER agent_service_session_changed AFTER UPDATE OF last_seq, deleted_at ON agent_service_sessions FOR EACH ROW
WHEN (NEW.watched_until > now()
      AND (NEW.last_seq <> OLD.last_seq OR NEW.deleted_at IS DISTINCT FROM OLD.deleted_at))
EXECUTE FUNCTION agent_service_announce()
"""


def upgrade() -> None:
    connection = op.get_bind()
    if not tables_are_made():
        op.add_column("agent_service_sessions", sa.Column("watched_until", sa.DateTime(timezone=True), nullable=True))
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(ANNOUNCE.format(channel=channel_of(connection, names_of(connection))))
        connection.exec_driver_sql(ON_CHANGE)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.get_bind().exec_driver_sql("DROP TRIGGER agent_service_session_changed ON agent_service_sessions")
        op.get_bind().exec_driver_sql("DROP FUNCTION agent_service_announce()")
    op.drop_column("agent_service_sessions", "watched_until")
