"""Policies that keep tenants apart (PostgreSQL), not in force until `agent-service db enable-rls`."""

from alembic import op

revision = "agent_service_0004"
down_revision = "agent_service_0003"
branch_labels = None
depends_on = None

# Scalar subqueries are evaluated once per statement, not once per row.
SAID = "(SELECT current_setting('agent_service.tenant', true))"
POLICIES = (
    f"CREATE POLICY tenant ON agent_service_sessions USING ({SAID} = '=' || tenant_id OR {SAID} = '*')",
    # A message belongs to whoever may see its session.
    """
    CREATE POLICY tenant ON agent_service_session_messages USING (
        EXISTS (SELECT FROM agent_service_sessions AS s WHERE s.id = agent_service_session_messages.session_id)
    )
    """,
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for statement in POLICIES:
            op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in ("agent_service_session_messages", "agent_service_sessions"):
            op.get_bind().exec_driver_sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
            op.get_bind().exec_driver_sql(f"DROP POLICY tenant ON {table}")
