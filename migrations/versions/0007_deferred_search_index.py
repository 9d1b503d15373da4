"""Messages are indexed for search after they were appended (SQLite)."""

from alembic import op

from agent_service.infrastructure.database.schema.steps import Change, run

revision = "agent_service_0007"
down_revision = "agent_service_0006"
branch_labels = None
depends_on = None

# Appending puts a message on a list; deleting it from the list indexes it, if it is still there. Only the insert of an
# entry writes to the index, and an entry is inserted once: what stands on the list twice, or was removed and came back
# meanwhile, is indexed once. The list has no more than about 10,000 entries: past that each 100th append shortens it.
DEFER = (
    "DROP TRIGGER agent_service_session_search_message_added",
    """
    CREATE TABLE agent_service_session_search_pending (
        id INTEGER PRIMARY KEY, session_id CHAR(32) NOT NULL, seq BIGINT NOT NULL
    )
    """,
    """
    CREATE TRIGGER agent_service_session_search_message_added AFTER INSERT ON agent_service_session_messages
    WHEN new.content IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search_pending (session_id, seq) VALUES (new.session_id, new.seq);
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_pending_taken AFTER DELETE ON agent_service_session_search_pending BEGIN
        INSERT OR IGNORE INTO agent_service_session_search_entries (session_id, seq)
            SELECT session_id, seq FROM agent_service_session_messages
            WHERE session_id = old.session_id AND seq = old.seq AND content IS NOT NULL;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_entry_added AFTER INSERT ON agent_service_session_search_entries
    WHEN new.seq > 0 BEGIN
        INSERT INTO agent_service_session_search (rowid, body)
            SELECT new.id, content FROM agent_service_session_messages
            WHERE session_id = new.session_id AND seq = new.seq;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_pending_bounded AFTER INSERT ON agent_service_session_search_pending
    WHEN new.id % 100 = 0 AND new.id > 10000 + (SELECT min(id) FROM agent_service_session_search_pending) BEGIN
        DELETE FROM agent_service_session_search_pending
        WHERE id < 200 + (SELECT min(id) FROM agent_service_session_search_pending);
    END
    """,
)

INDEX_AT_ONCE = (
    "DROP TRIGGER agent_service_session_search_pending_bounded",
    "DELETE FROM agent_service_session_search_pending",
    "DROP TRIGGER agent_service_session_search_entry_added",
    "DROP TRIGGER agent_service_session_search_message_added",
    "DROP TABLE agent_service_session_search_pending",
    """
    CREATE TRIGGER agent_service_session_search_message_added AFTER INSERT ON agent_service_session_messages
    WHEN new.content IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search_entries (session_id, seq) VALUES (new.session_id, new.seq);
        INSERT INTO agent_service_session_search (rowid, body) VALUES (last_insert_rowid(), new.content);
    END
    """,
)


def upgrade() -> None:
    run(revision, *on_sqlite("index messages after they were appended", DEFER))


def downgrade() -> None:
    run(revision, *on_sqlite("index messages as they are appended", INDEX_AT_ONCE), down=True)


def on_sqlite(words: str, statements: tuple[str, ...]) -> tuple[Change, ...]:
    return (Change(words, statements),) if op.get_bind().dialect.name == "sqlite" else ()
