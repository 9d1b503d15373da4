"""Subscribers are told of new messages: sessions that somebody watches announce their changes (PostgreSQL)."""

import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.naming.catalog import channel_of
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, run

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
# The condition is part of the trigger, so that sessions which nobody watches cost neither a function call nor a
# NOTIFY: transactions that notify commit one after another.
ON_CHANGE = """
CREATE TRIGGER agent_service_session_changed AFTER UPDATE OF last_seq, deleted_at ON agent_service_sessions FOR EACH ROW
WHEN (NEW.watched_until > now()
      AND (NEW.last_seq <> OLD.last_seq OR NEW.deleted_at IS DISTINCT FROM OLD.deleted_at))
EXECUTE FUNCTION agent_service_announce()
"""


SESSIONS = "agent_service_sessions"


def upgrade() -> None:
    column = Change("add the column watched_until", add_column, {SESSIONS: Lock.ACCESS_EXCLUSIVE})
    announcing = (
        Change("make the function that announces a change", create_function),
        Change("announce changes of sessions", ON_CHANGE, {SESSIONS: Lock.SHARE_ROW_EXCLUSIVE}),
    )
    on_postgres = op.get_bind().dialect.name == "postgresql"
    run(revision, *(() if tables_are_made() else (column,)), *(announcing if on_postgres else ()))


def add_column(_connection: sa.Connection) -> None:
    op.add_column(SESSIONS, sa.Column("watched_until", sa.DateTime(timezone=True), nullable=True))


def create_function(connection: sa.Connection) -> None:
    connection.exec_driver_sql(ANNOUNCE.format(channel=channel_of(connection, names_of(connection))))


def downgrade() -> None:
    announcing = (
        Change(
            "announce no changes of sessions",
            f"DROP TRIGGER agent_service_session_changed ON {SESSIONS}",
            {SESSIONS: Lock.ACCESS_EXCLUSIVE},
        ),
        Change("drop the function that announces a change", "DROP FUNCTION agent_service_announce()"),
    )
    run(
        revision,
        *(announcing if op.get_bind().dialect.name == "postgresql" else ()),
        Change(
            "drop the column watched_until",
            lambda _: op.drop_column(SESSIONS, "watched_until"),
            {SESSIONS: Lock.ACCESS_EXCLUSIVE},
        ),
        down=True,
    )
