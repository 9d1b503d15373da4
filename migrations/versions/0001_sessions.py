"""Sessions, their messages, and what searches them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
MERGEABLE_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    create_sessions()
    create_messages()
    if op.get_bind().dialect.name == "postgresql":
        create_trigram_indexes()
    else:
        create_full_text_index()


def create_sessions() -> None:
    op.create_table(
        "sessions",
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
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.ForeignKeyConstraint(["parent_session_id"], ["sessions.id"], name=op.f("fk_sessions_parent_session_id")),
        sa.CheckConstraint("status IN ('active', 'completed', 'failed', 'cancelled')", name=op.f("ck_sessions_status")),
    )
    op.create_index("uq_sessions_external_id", "sessions", ["tenant_id", "external_id"], unique=True)
    op.create_index("ix_sessions_user", "sessions", ["tenant_id", "user_id", "last_activity_at", "id"])
    op.create_index("ix_sessions_agent", "sessions", ["tenant_id", "agent_id", "last_activity_at", "id"])
    create_partial_index("ix_sessions_expiry", "sessions", ["expires_at"], "status = 'active'")
    create_partial_index("ix_sessions_parent", "sessions", ["parent_session_id"], "parent_session_id IS NOT NULL")


def create_messages() -> None:
    op.create_table(
        "session_messages",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("client_id", sa.String(255), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "seq", name=op.f("pk_session_messages")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_session_messages_session_id"), ondelete="CASCADE"
        ),
    )
    create_partial_index(
        "uq_session_messages_client_id",
        "session_messages",
        ["session_id", "client_id"],
        "client_id IS NOT NULL",
        unique=True,
    )


def create_partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, postgresql_where=condition, sqlite_where=condition)


def create_trigram_indexes() -> None:
    """Index titles and contents by trigrams, where the server has pg_trgm and lets us use it; search works without."""
    connection = op.get_bind()
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except sa.exc.DBAPIError:
        return
    connection.exec_driver_sql("CREATE INDEX ix_sessions_title_trigram ON sessions USING gin (title gin_trgm_ops)")
    connection.exec_driver_sql(
        "CREATE INDEX ix_session_messages_content_trigram ON session_messages USING gin (content gin_trgm_ops)"
    )


def create_full_text_index() -> None:
    """
    Index titles and contents by trigrams with FTS5, without a second copy of the text.

    ``session_search_entries`` gives every indexed text a number of its own that no VACUUM changes (``seq`` 0 is the
    title, others are messages); the view shows FTS5 the text behind a number; triggers keep the two in step.
    """
    for statement in FULL_TEXT_INDEX:
        op.get_bind().exec_driver_sql(statement)


FULL_TEXT_INDEX = (
    """
    CREATE TABLE session_search_entries (
        id INTEGER PRIMARY KEY, session_id CHAR(32) NOT NULL, seq BIGINT NOT NULL, UNIQUE (session_id, seq)
    )
    """,
    """
    CREATE VIEW session_search_texts AS
    SELECT e.id AS id, s.title AS body FROM session_search_entries e
    JOIN sessions s ON s.id = e.session_id WHERE e.seq = 0
    UNION ALL
    SELECT e.id, m.content FROM session_search_entries e
    JOIN session_messages m ON m.session_id = e.session_id AND m.seq = e.seq WHERE e.seq > 0
    """,
    """
    CREATE VIRTUAL TABLE session_search
    USING fts5(body, content = 'session_search_texts', content_rowid = 'id', tokenize = 'trigram')
    """,
    """
    CREATE TRIGGER session_search_title_added AFTER INSERT ON sessions WHEN new.title IS NOT NULL BEGIN
        INSERT INTO session_search_entries (session_id, seq) VALUES (new.id, 0);
        INSERT INTO session_search (rowid, body) VALUES (last_insert_rowid(), new.title);
    END
    """,
    """
    CREATE TRIGGER session_search_title_changed AFTER UPDATE OF title ON sessions WHEN new.title IS NOT old.title BEGIN
        INSERT INTO session_search (session_search, rowid, body)
            SELECT 'delete', id, old.title FROM session_search_entries WHERE session_id = old.id AND seq = 0;
        DELETE FROM session_search_entries WHERE session_id = old.id AND seq = 0;
        INSERT INTO session_search_entries (session_id, seq) SELECT new.id, 0 WHERE new.title IS NOT NULL;
        INSERT INTO session_search (rowid, body)
            SELECT id, new.title FROM session_search_entries WHERE session_id = new.id AND seq = 0;
    END
    """,
    """
    CREATE TRIGGER session_search_title_removed AFTER DELETE ON sessions WHEN old.title IS NOT NULL BEGIN
        INSERT INTO session_search (session_search, rowid, body)
            SELECT 'delete', id, old.title FROM session_search_entries WHERE session_id = old.id AND seq = 0;
        DELETE FROM session_search_entries WHERE session_id = old.id AND seq = 0;
    END
    """,
    """
    CREATE TRIGGER session_search_message_added AFTER INSERT ON session_messages WHEN new.content IS NOT NULL BEGIN
        INSERT INTO session_search_entries (session_id, seq) VALUES (new.session_id, new.seq);
        INSERT INTO session_search (rowid, body) VALUES (last_insert_rowid(), new.content);
    END
    """,
    """
    CREATE TRIGGER session_search_message_removed AFTER DELETE ON session_messages WHEN old.content IS NOT NULL BEGIN
        INSERT INTO session_search (session_search, rowid, body)
            SELECT 'delete', id, old.content FROM session_search_entries
            WHERE session_id = old.session_id AND seq = old.seq;
        DELETE FROM session_search_entries WHERE session_id = old.session_id AND seq = old.seq;
    END
    """,
)


def downgrade() -> None:
    op.drop_table("session_messages")
    op.drop_table("sessions")
    if op.get_bind().dialect.name == "sqlite":
        for search in ("TABLE session_search", "VIEW session_search_texts", "TABLE session_search_entries"):
            op.get_bind().exec_driver_sql(f"DROP {search}")
