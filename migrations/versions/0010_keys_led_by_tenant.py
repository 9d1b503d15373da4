"""Every key begins with the tenant, so no row can point across tenants; keys of before go.

The statements of the version before no longer work from here on. Two tenants may use the same id; as soon as they do,
there is no way back.
"""

from alembic import op
from sqlalchemy import Connection

from agent_service.infrastructure.database.schema.key_shapes import (
    keys_begin_with_tenant,
    require_ids_of_one_tenant,
    require_own_references,
)
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.sqlite_search_shape import rebuild_search_with_tenant_keys
from agent_service.infrastructure.database.schema.sqlite_shapes import rebuild_with_id_keys, rebuild_with_tenant_keys
from agent_service.infrastructure.database.schema.steps import Change, DropIndex, Lock, MakeIndex, Step, constraint, run

revision = "agent_service_0010"
down_revision = "agent_service_0009"
branch_labels = None
depends_on = None

SESSIONS, MESSAGES = "agent_service_sessions", "agent_service_session_messages"
SESSIONS_PK, MESSAGES_PK = "agent_service_pk_sessions", "agent_service_pk_session_messages"
SESSION_KEY, MESSAGE_KEY = "agent_service_uq_sessions_key", "agent_service_uq_session_messages_key"
SESSION_ID, MESSAGE_NUMBER = "agent_service_uq_sessions_id", "agent_service_uq_session_messages_number"
CLIENT_BEFORE, CHILDREN_BEFORE = "agent_service_uq_session_messages_client_id", "agent_service_ix_sessions_parent"
PARENT, PARENT_BEFORE = "agent_service_fk_sessions_parent", "agent_service_fk_sessions_parent_session_id"
SESSION = "agent_service_fk_session_messages_session"
SESSION_BEFORE = "agent_service_fk_session_messages_session_id"
OF_SESSION = f"FOREIGN KEY (tenant_id, session_id) REFERENCES {SESSIONS} (tenant_id, id) ON DELETE CASCADE"
OF_PARENT = f"FOREIGN KEY (tenant_id, parent_session_id) REFERENCES {SESSIONS} (tenant_id, id)"
OF_SESSION_BEFORE = f"FOREIGN KEY (session_id) REFERENCES {SESSIONS} (id) ON DELETE CASCADE"
OF_PARENT_BEFORE = f"FOREIGN KEY (parent_session_id) REFERENCES {SESSIONS} (id)"
BOTH = {MESSAGES: Lock.ACCESS_EXCLUSIVE, SESSIONS: Lock.ACCESS_EXCLUSIVE}

# Scalar subqueries are evaluated once per statement, not once per row.
SAID = "(SELECT current_setting('agent_service.tenant', true))"
OWN_TENANT = f"ALTER POLICY tenant ON {MESSAGES} USING ({SAID} = '=' || tenant_id OR {SAID} = '*')"
TENANT_OF_SESSION = f"""
ALTER POLICY tenant ON {MESSAGES} USING (
    EXISTS (SELECT FROM {SESSIONS} WHERE agent_service_sessions.id = agent_service_session_messages.session_id)
)
"""
FILL = """
CREATE FUNCTION agent_service_fill_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tenant_id := (SELECT tenant_id FROM agent_service_sessions WHERE id = NEW.session_id);
    RETURN NEW;
END
$$
"""
FILLING = f"""
CREATE TRIGGER agent_service_tenant_filled BEFORE INSERT ON {MESSAGES} FOR EACH ROW
WHEN (NEW.tenant_id IS NULL) EXECUTE FUNCTION agent_service_fill_tenant()
"""


def upgrade() -> None:
    made = tables_are_made() and keys_begin_with_tenant(op.get_bind())
    if op.get_bind().dialect.name == "sqlite":
        tables = Change("make the tables again with keys that begin with the tenant", rebuild_with_tenant_keys, BOTH)
        search = Change("have the search index name the tenant", rebuild_search_with_tenant_keys)
        run(revision, search if made else tables)
        return
    policy = Change("compare a message's own tenant in its policy", OWN_TENANT, {MESSAGES: Lock.ACCESS_EXCLUSIVE})
    run(revision, *(() if made else swap()), policy)


def swap() -> tuple[Step, ...]:
    """Return the steps that replace the old keys with the new ones."""
    return (
        Change("look for foreign keys and views of others", require_own_references),
        *constraint(SESSION, MESSAGES, OF_SESSION, locks={SESSIONS: Lock.SHARE_ROW_EXCLUSIVE}),
        Change(
            "let primary and foreign keys begin with the tenant",
            (
                *lead(MESSAGES, MESSAGES_PK, MESSAGE_KEY, SESSION_BEFORE),
                *lead(SESSIONS, SESSIONS_PK, SESSION_KEY, PARENT_BEFORE),
                f"DROP TRIGGER agent_service_tenant_filled ON {MESSAGES}",
                "DROP FUNCTION agent_service_fill_tenant()",
            ),
            BOTH,
        ),
        DropIndex(CLIENT_BEFORE, MESSAGES),
        DropIndex(CHILDREN_BEFORE, SESSIONS),
    )


def lead(table: str, primary_key: str, index: str, foreign_key: str) -> tuple[str, str]:
    """Return the statements that drop a table's foreign key and let an index be its primary key."""
    return (
        f"ALTER TABLE {table} DROP CONSTRAINT {foreign_key}, DROP CONSTRAINT {primary_key}",
        f"ALTER TABLE {table} ADD CONSTRAINT {primary_key} PRIMARY KEY USING INDEX {index}",
    )


def refer(table: str, name: str, definition: str) -> str:
    """Return the statement that adds a foreign key for new rows."""
    return f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID"


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        run(revision, Change("make the tables again with the keys of before", rebuild_with_id_keys, BOTH), down=True)
        return
    run(
        revision,
        Change("look for what there is no way back with", require_way_back, {SESSIONS: Lock.ACCESS_SHARE}),
        MakeIndex(SESSION_ID, SESSIONS, "(id)", unique=True),
        MakeIndex(MESSAGE_NUMBER, MESSAGES, "(session_id, seq)", unique=True),
        MakeIndex(SESSION_KEY, SESSIONS, "(tenant_id, id)", unique=True),
        MakeIndex(MESSAGE_KEY, MESSAGES, "(tenant_id, session_id, seq)", unique=True),
        MakeIndex(CLIENT_BEFORE, MESSAGES, "(session_id, client_id) WHERE client_id IS NOT NULL", unique=True),
        MakeIndex(CHILDREN_BEFORE, SESSIONS, "(parent_session_id) WHERE parent_session_id IS NOT NULL"),
        Change(
            "let primary and foreign keys begin with the id",
            (
                TENANT_OF_SESSION,
                *lead(MESSAGES, MESSAGES_PK, MESSAGE_NUMBER, SESSION),
                *lead(SESSIONS, SESSIONS_PK, SESSION_ID, PARENT),
                refer(SESSIONS, PARENT, OF_PARENT),
                refer(SESSIONS, PARENT_BEFORE, OF_PARENT_BEFORE),
                refer(MESSAGES, SESSION_BEFORE, OF_SESSION_BEFORE),
                FILL,
                FILLING,
            ),
            BOTH,
        ),
        *(proved(table, name) for table, name in ((SESSIONS, PARENT), (SESSIONS, PARENT_BEFORE))),
        proved(MESSAGES, SESSION_BEFORE),
        down=True,
    )


def require_way_back(connection: Connection) -> None:
    """Refuse, before anything changes, what keys without a tenant cannot express."""
    require_own_references(connection, key="(id)")
    require_ids_of_one_tenant(connection)


def proved(table: str, name: str) -> Change:
    """Return the step that validates a foreign key for existing rows."""
    return Change(
        f"prove the constraint {name} for the rows that are there",
        f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}",
        {SESSIONS: Lock.ROW_SHARE, table: Lock.SHARE_UPDATE_EXCLUSIVE},
    )
