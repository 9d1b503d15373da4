"""Sessions, their messages, and what searches them."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.naming.names import quoted
from agent_service.infrastructure.database.schema.revisions import tables_are_made
from agent_service.infrastructure.database.schema.steps import Change, Lock, MakeIndex, Step, run

revision = "agent_service_0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
MERGEABLE_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    tables = (
        Change("make the table of sessions", create_sessions),
        Change("make the table of messages", create_messages),
    )
    search: tuple[Step, ...] = (Change("make the search index", FULL_TEXT_INDEX),)
    if op.get_bind().dialect.name == "postgresql":
        search = (Change("make the extension pg_trgm, if the role may", create_extension), *TRIGRAM_INDEXES)
    run(revision, *(() if tables_are_made() else tables), *search)


def create_sessions(_connection: sa.Connection) -> None:
    op.create_table(
        "agent_service_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.String(255), nullable=False),
        sa.Column("external_id", sa.String(255), nullable=True),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("agent_id", sa.String(255), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("context", MERGEABLE_JSON, nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("total_messages", sa.BigInteger(), nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("parent_session_id", sa.Uuid(), nullable=True),
        sa.Column("fork_seq", sa.BigInteger(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("last_activity_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("completed_at", MOMENT, nullable=True),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("agent_service_pk_sessions")),
        sa.ForeignKeyConstraint(
            ["parent_session_id"],
            ["agent_service_sessions.id"],
            name=op.f("agent_service_fk_sessions_parent_session_id"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'completed', 'failed', 'cancelled')", name=op.f("agent_service_ck_sessions_status")
        ),
    )
    op.create_index(
        "agent_service_uq_sessions_external_id", "agent_service_sessions", ["tenant_id", "external_id"], unique=True
    )
    op.create_index(
        "agent_service_ix_sessions_user", "agent_service_sessions", ["tenant_id", "user_id", "last_activity_at", "id"]
    )
    op.create_index(
        "agent_service_ix_sessions_agent", "agent_service_sessions", ["tenant_id", "agent_id", "last_activity_at", "id"]
    )
    create_partial_index(
        "agent_service_ix_sessions_expiry", "agent_service_sessions", ["expires_at"], "status = 'active'"
    )
    create_partial_index(
        "agent_service_ix_sessions_parent",
        "agent_service_sessions",
        ["parent_session_id"],
        "parent_session_id IS NOT NULL",
    )


def create_messages(_connection: sa.Connection) -> None:
    op.create_table(
        "agent_service_session_messages",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("client_id", sa.String(255), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("agent_service_pk_session_messages")),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["agent_service_sessions.id"],
            name=op.f("agent_service_fk_session_messages_session_id"),
            ondelete="CASCADE",
        ),
    )
    create_partial_index(
        "agent_service_uq_session_messages_client_id",
        "agent_service_session_messages",
        ["session_id", "client_id"],
        "client_id IS NOT NULL",
        unique=True,
    )


def create_partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def create_extension(connection: sa.Connection) -> None:
    """Create the extension for trigram indexes, where the server has it and allows it; search works without."""
    usual = "SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = 'public'"
    # Where applications expect an extension, or in our own schema where we may not write to that.
    schema = "public" if connection.exec_driver_sql(usual).scalar() else quoted(str(names_of(connection).schema))
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA {schema}")
    except sa.exc.DBAPIError:
        return


def by_trigrams(column: str) -> Callable[[sa.Connection], str | None]:
    """Return the definition of a column's trigram index, or None where the extension is missing."""

    def definition(connection: sa.Connection) -> str | None:
        # The extension may have been there, in whatever schema.
        schema = connection.exec_driver_sql(OPERATORS).scalar()
        return None if schema is None else f"USING gin ({column} {quoted(schema)}.gin_trgm_ops)"

    return definition


OPERATORS = """
SELECT n.nspname FROM pg_opclass o JOIN pg_namespace n ON n.oid = o.opcnamespace
WHERE o.opcname = 'gin_trgm_ops' AND has_schema_privilege(n.oid, 'USAGE')
"""
TRIGRAM_INDEXES = (
    MakeIndex("agent_service_ix_sessions_title_trigram", "agent_service_sessions", by_trigrams("title")),
    MakeIndex(
        "agent_service_ix_session_messages_content_trigram", "agent_service_session_messages", by_trigrams("content")
    ),
)

# FTS5 without a second copy of the text: ``session_search_entries`` gives every indexed text a number of its own that
# no VACUUM changes (``seq`` 0 is the title, others are messages); the view shows FTS5 the text behind a number;
# triggers keep the two in step.
FULL_TEXT_INDEX = (
    """
    CREATE TABLE agent_service_session_search_entries (
        id INTEGER PRIMARY KEY, session_id CHAR(32) NOT NULL, seq BIGINT NOT NULL, UNIQUE (session_id, seq)
    )
    """,
    """
    CREATE VIEW agent_service_session_search_texts AS
    SELECT e.id AS id, s.title AS body FROM agent_service_session_search_entries e
    JOIN agent_service_sessions s ON s.id = e.session_id WHERE e.seq = 0
    UNION ALL
    SELECT e.id, m.content FROM agent_service_session_search_entries e
    JOIN agent_service_session_messages m ON m.session_id = e.session_id AND m.seq = e.seq WHERE e.seq > 0
    """,
    """
    CREATE VIRTUAL TABLE agent_service_session_search
    USING fts5(body, content = agent_service_session_search_texts, content_rowid = 'id', tokenize = 'trigram')
    """,
    """
    CREATE TRIGGER agent_service_session_search_title_added AFTER INSERT ON agent_service_sessions
    WHEN new.title IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search_entries (session_id, seq) VALUES (new.id, 0);
        INSERT INTO agent_service_session_search (rowid, body) VALUES (last_insert_rowid(), new.title);
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_title_changed AFTER UPDATE OF title ON agent_service_sessions
    WHEN new.title IS NOT old.title BEGIN
        INSERT INTO agent_service_session_search (agent_service_session_search, rowid, body)
            SELECT 'delete', id, old.title FROM agent_service_session_search_entries
            WHERE session_id = old.id AND seq = 0;
        DELETE FROM agent_service_session_search_entries WHERE session_id = old.id AND seq = 0;
        INSERT INTO agent_service_session_search_entries (session_id, seq) SELECT new.id, 0 WHERE new.title IS NOT NULL;
        INSERT INTO agent_service_session_search (rowid, body)
            SELECT id, new.title FROM agent_service_session_search_entries WHERE session_id = new.id AND seq = 0;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_title_removed AFTER DELETE ON agent_service_sessions
    WHEN old.title IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search (agent_service_session_search, rowid, body)
            SELECT 'delete', id, old.title FROM agent_service_session_search_entries
            WHERE session_id = old.id AND seq = 0;
        DELETE FROM agent_service_session_search_entries WHERE session_id = old.id AND seq = 0;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_message_added AFTER INSERT ON agent_service_session_messages
    WHEN new.content IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search_entries (session_id, seq) VALUES (new.session_id, new.seq);
        INSERT INTO agent_service_session_search (rowid, body) VALUES (last_insert_rowid(), new.content);
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_message_removed AFTER DELETE ON agent_service_session_messages
    WHEN old.content IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search (agent_service_session_search, rowid, body)
            SELECT 'delete', id, old.content FROM agent_service_session_search_entries
            WHERE session_id = old.session_id AND seq = old.seq;
        DELETE FROM agent_service_session_search_entries WHERE session_id = old.session_id AND seq = old.seq;
    END
    """,
)


def downgrade() -> None:
    search = (
        "DROP TABLE agent_service_session_search",
        "DROP VIEW agent_service_session_search_texts",
        "DROP TABLE agent_service_session_search_entries",
    )
    run(
        revision,
        Change(
            "drop the table of messages",
            "DROP TABLE agent_service_session_messages",
            {"agent_service_session_messages": Lock.ACCESS_EXCLUSIVE, "agent_service_sessions": Lock.ACCESS_EXCLUSIVE},
        ),
        Change(
            "drop the table of sessions",
            "DROP TABLE agent_service_sessions",
            {"agent_service_sessions": Lock.ACCESS_EXCLUSIVE},
        ),
        *((Change("drop the search index", search),) if op.get_bind().dialect.name == "sqlite" else ()),
        down=True,
    )
