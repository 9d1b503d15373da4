"""Policies that keep tenants apart (PostgreSQL), not in force until `agent-service db enable-rls`."""

from alembic import op

from agent_service.infrastructure.database.schema.steps import Change, Lock, run

revision = "agent_service_0004"
down_revision = "agent_service_0003"
branch_labels = None
depends_on = None

# Scalar subqueries are evaluated once per statement, not once per row.
SAID = "(SELECT current_setting('agent_service.tenant', true))"
SESSIONS, MESSAGES = "agent_service_sessions", "agent_service_session_messages"


def upgrade() -> None:
    of_sessions = Change(
        "make the policy of sessions",
        f"CREATE POLICY tenant ON {SESSIONS} USING ({SAID} = '=' || tenant_id OR {SAID} = '*')",
        {SESSIONS: Lock.ACCESS_EXCLUSIVE},
    )
    # A message is visible to those who may see its session.
    of_messages = Change(
        "make the policy of messages",
        f"""
        CREATE POLICY tenant ON {MESSAGES} USING (
            EXISTS (SELECT FROM {SESSIONS} AS s WHERE s.id = {MESSAGES}.session_id)
        )
        """,
        {MESSAGES: Lock.ACCESS_EXCLUSIVE, SESSIONS: Lock.ACCESS_SHARE},
    )
    run(revision, *((of_sessions, of_messages) if op.get_bind().dialect.name == "postgresql" else ()))


def downgrade() -> None:
    steps = (
        Change(
            f"drop the policy of {table}",
            (f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY", f"DROP POLICY tenant ON {table}"),
            {table: Lock.ACCESS_EXCLUSIVE},
        )
        for table in (MESSAGES, SESSIONS)
    )
    run(revision, *(steps if op.get_bind().dialect.name == "postgresql" else ()), down=True)
