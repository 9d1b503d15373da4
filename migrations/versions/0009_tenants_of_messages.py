"""Messages say whose they are, and keys that begin with the tenant stand beside those of before (PostgreSQL).

Statements of the version before go on working: what they leave out, a trigger fills. So an installation with no time
to stop upgrades to here, replaces its services by those of this version, and then upgrades to the next revision. On
SQLite, where one version at a time uses a file, the next revision does it all.
"""

from alembic import op

from agent_service.infrastructure.database.schema.crossing_links import cut_links
from agent_service.infrastructure.database.schema.key_shapes import keys_begin_with_tenant
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, DropIndex, FillRows, Lock, MakeIndex, run

revision = "agent_service_0009"
down_revision = "agent_service_0008"
branch_labels = None
depends_on = None

SESSIONS, MESSAGES = "agent_service_sessions", "agent_service_session_messages"
SESSION_KEY, MESSAGE_KEY = "agent_service_uq_sessions_key", "agent_service_uq_session_messages_key"
CLIENT, CHILDREN = "agent_service_uq_session_messages_client", "agent_service_ix_sessions_children"
PARENT = "agent_service_fk_sessions_parent"
SAID = "agent_service_ck_session_messages_tenant"

FILL = """
CREATE FUNCTION agent_service_fill_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tenant_id := (SELECT tenant_id FROM agent_service_sessions WHERE id = NEW.session_id);
    RETURN NEW;
END
$$
"""
# The condition is part of the trigger, so that statements which name the tenant do not call it.
FILLING = f"""
CREATE TRIGGER agent_service_tenant_filled BEFORE INSERT ON {MESSAGES} FOR EACH ROW
WHEN (NEW.tenant_id IS NULL) EXECUTE FUNCTION agent_service_fill_tenant()
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite" or (tables_are_made() and keys_begin_with_tenant(op.get_bind())):
        run(revision)
        return
    run(
        revision,
        Change(
            "add the column tenant_id to messages, filled for statements that leave it out",
            (
                f"ALTER TABLE {MESSAGES} ADD COLUMN tenant_id VARCHAR(255)",
                FILL,
                FILLING,
                f"ALTER TABLE {MESSAGES} ADD CONSTRAINT {SAID} CHECK (tenant_id IS NOT NULL) NOT VALID",
            ),
            {MESSAGES: Lock.ACCESS_EXCLUSIVE},
        ),
        FillRows(
            "fill tenant_id for the messages that are there",
            MESSAGES,
            key=("session_id", "seq"),
            assign="tenant_id = (SELECT s.tenant_id FROM agent_service_sessions AS s WHERE s.id = t.session_id)",
            where="t.tenant_id IS NULL",
        ),
        Change(
            "prove that every message has a tenant",
            f"ALTER TABLE {MESSAGES} VALIDATE CONSTRAINT {SAID}",
            {MESSAGES: Lock.SHARE_UPDATE_EXCLUSIVE},
        ),
        Change(
            "have no message without a tenant",
            # PostgreSQL reads no row for it, because the constraint is validated.
            (
                f"ALTER TABLE {MESSAGES} ALTER COLUMN tenant_id SET NOT NULL",
                f"ALTER TABLE {MESSAGES} DROP CONSTRAINT {SAID}",
            ),
            {MESSAGES: Lock.ACCESS_EXCLUSIVE},
        ),
        MakeIndex(SESSION_KEY, SESSIONS, "(tenant_id, id)", unique=True),
        MakeIndex(MESSAGE_KEY, MESSAGES, "(tenant_id, session_id, seq)", unique=True),
        MakeIndex(CLIENT, MESSAGES, "(tenant_id, session_id, client_id) WHERE client_id IS NOT NULL", unique=True),
        MakeIndex(CHILDREN, SESSIONS, "(tenant_id, parent_session_id) WHERE parent_session_id IS NOT NULL"),
        *parents(),
    )


def parents() -> tuple[Change, ...]:
    """Return the steps after which no session has a parent of another tenant."""
    key = f"FOREIGN KEY (tenant_id, parent_session_id) REFERENCES {SESSIONS} (tenant_id, id)"
    return (
        Change(
            f"add the constraint {PARENT} for new rows",
            f"ALTER TABLE {SESSIONS} ADD CONSTRAINT {PARENT} {key} NOT VALID",
            {SESSIONS: Lock.SHARE_ROW_EXCLUSIVE},
        ),
        Change("cut links to parents of another tenant, and circles", cut_links, {SESSIONS: Lock.ROW_EXCLUSIVE}),
        Change(
            f"prove the constraint {PARENT} for the rows that are there",
            f"ALTER TABLE {SESSIONS} VALIDATE CONSTRAINT {PARENT}",
            {SESSIONS: Lock.SHARE_UPDATE_EXCLUSIVE},
        ),
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        run(revision, down=True)
        return
    run(
        revision,
        Change(
            "drop the foreign key to parents of the same tenant",
            f"ALTER TABLE {SESSIONS} DROP CONSTRAINT {PARENT}",
            {SESSIONS: Lock.ACCESS_EXCLUSIVE},
        ),
        DropIndex(CHILDREN, SESSIONS),
        DropIndex(CLIENT, MESSAGES),
        DropIndex(MESSAGE_KEY, MESSAGES),
        DropIndex(SESSION_KEY, SESSIONS),
        Change(
            "drop the column tenant_id of messages",
            (
                f"DROP TRIGGER agent_service_tenant_filled ON {MESSAGES}",
                "DROP FUNCTION agent_service_fill_tenant()",
                f"ALTER TABLE {MESSAGES} DROP COLUMN tenant_id",
            ),
            {MESSAGES: Lock.ACCESS_EXCLUSIVE},
        ),
        down=True,
    )
