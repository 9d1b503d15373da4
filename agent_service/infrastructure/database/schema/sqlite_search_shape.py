"""The tables, view and triggers between SQLite's texts and their full text index: new, or rebuilt with other keys.

Where they are rebuilt, the full text index itself stays: it knows texts by the numbers of entries, which do not change.
"""

from typing import Final

from sqlalchemy import Connection

__all__ = [
    "SEARCH_TRIGGERS",
    "drop_search_parts",
    "make_search",
    "make_search_again",
    "rebuild_search_with_tenant_keys",
]

SEARCH_TRIGGERS: Final = (
    "title_added", "title_changed", "title_removed", "message_added", "message_removed", "pending_taken", "entry_added",
    "pending_bounded",
)  # fmt: skip


def rebuild_search_with_tenant_keys(connection: Connection) -> None:
    """Rebuild the search index's tables with keys that begin with the tenant; the other tables have them already."""
    drop_search_parts(connection)
    make_search_again(connection, by_tenant=True)


def drop_search_parts(connection: Connection) -> None:
    """Drop the triggers, and the view, which the renaming of tables would look at."""
    for each in SEARCH_TRIGGERS:
        connection.exec_driver_sql(f"DROP TRIGGER agent_service_session_search_{each}")
    connection.exec_driver_sql("DROP VIEW agent_service_session_search_texts")


def make_search(connection: Connection) -> None:
    """Create the search index of a new database."""
    _run(connection, _NEW_TABLES, by_tenant=True)
    _run(connection, _VIEW_AND_TRIGGERS, by_tenant=True)


def make_search_again(connection: Connection, *, by_tenant: bool) -> None:
    """Create the view and triggers again, after :func:`drop_search_parts`."""
    _run(connection, _TABLES_AGAIN, by_tenant=by_tenant)
    _run(connection, _VIEW_AND_TRIGGERS, by_tenant=by_tenant)


def _run(connection: Connection, statements: tuple[str, ...], *, by_tenant: bool) -> None:
    key = ("tenant_id", "session_id") if by_tenant else ("session_id",)
    words = {
        "sessions": "agent_service_sessions",
        "messages": "agent_service_session_messages",
        "entries": "agent_service_session_search_entries",
        "pending": "agent_service_session_search_pending",
        "key": ", ".join(key),
        "columns": ("tenant_id VARCHAR(255) NOT NULL, " if by_tenant else "") + "session_id CHAR(32) NOT NULL",
        "places": ", ".join(f"e.{each}" if each != "tenant_id" else "s.tenant_id" for each in key),
        "new_session": ", ".join(["new.tenant_id"] * by_tenant + ["new.id"]),
        "new_message": ", ".join(f"new.{each}" for each in key),
    }
    for row in ("new", "old"):
        tenant = f"tenant_id = {row}.tenant_id AND " if by_tenant else ""
        words[f"is_{row}_session"] = f"{tenant}session_id = {row}.id"
        words[f"is_{row}_message"] = f"{tenant}session_id = {row}.session_id"
    same = "AND {0}.tenant_id = e.tenant_id" if by_tenant else ""
    words["same_session"], words["same_message"] = same.format("s"), same.format("m")
    for each in statements:
        connection.exec_driver_sql(" ".join(each.format(**words).split()))


# The parts are explained in the revisions that made them first: 0001 and 0007.
_NEW_TABLES: Final = (
    """
    CREATE VIRTUAL TABLE agent_service_session_search
    USING fts5(body, content = agent_service_session_search_texts, content_rowid = 'id', tokenize = 'trigram')
    """,
    "CREATE TABLE {entries} ( id INTEGER PRIMARY KEY, {columns}, seq BIGINT NOT NULL, UNIQUE ({key}, seq) )",
    "CREATE TABLE {pending} ( id INTEGER PRIMARY KEY, {columns}, seq BIGINT NOT NULL )",
)
_TABLES_AGAIN: Final = (
    """
    CREATE TABLE {entries}_made ( id INTEGER PRIMARY KEY, {columns}, seq BIGINT NOT NULL, UNIQUE ({key}, seq) )
    """,
    """
    INSERT INTO {entries}_made (id, {key}, seq)
    SELECT e.id, {places}, e.seq FROM {entries} AS e JOIN {sessions} AS s ON s.id = e.session_id
    """,
    "DROP TABLE {entries}",
    "ALTER TABLE {entries}_made RENAME TO {entries}",
    "CREATE TABLE {pending}_made ( id INTEGER PRIMARY KEY, {columns}, seq BIGINT NOT NULL )",
    """
    INSERT INTO {pending}_made (id, {key}, seq)
    SELECT e.id, {places}, e.seq FROM {pending} AS e JOIN {sessions} AS s ON s.id = e.session_id
    """,
    "DROP TABLE {pending}",
    "ALTER TABLE {pending}_made RENAME TO {pending}",
)
_VIEW_AND_TRIGGERS: Final = (
    """
    CREATE VIEW agent_service_session_search_texts AS
    SELECT e.id AS id, s.title AS body FROM {entries} e
    JOIN {sessions} s ON s.id = e.session_id {same_session} WHERE e.seq = 0
    UNION ALL
    SELECT e.id, m.content FROM {entries} e
    JOIN {messages} m ON m.session_id = e.session_id AND m.seq = e.seq {same_message} WHERE e.seq > 0
    """,
    """
    CREATE TRIGGER agent_service_session_search_title_added AFTER INSERT ON {sessions}
    WHEN new.title IS NOT NULL BEGIN
        INSERT INTO {entries} ({key}, seq) VALUES ({new_session}, 0);
        INSERT INTO agent_service_session_search (rowid, body) VALUES (last_insert_rowid(), new.title);
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_title_changed AFTER UPDATE OF title ON {sessions}
    WHEN new.title IS NOT old.title BEGIN
        INSERT INTO agent_service_session_search (agent_service_session_search, rowid, body)
            SELECT 'delete', id, old.title FROM {entries} WHERE {is_old_session} AND seq = 0;
        DELETE FROM {entries} WHERE {is_old_session} AND seq = 0;
        INSERT INTO {entries} ({key}, seq) SELECT {new_session}, 0 WHERE new.title IS NOT NULL;
        INSERT INTO agent_service_session_search (rowid, body)
            SELECT id, new.title FROM {entries} WHERE {is_new_session} AND seq = 0;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_title_removed AFTER DELETE ON {sessions}
    WHEN old.title IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search (agent_service_session_search, rowid, body)
            SELECT 'delete', id, old.title FROM {entries} WHERE {is_old_session} AND seq = 0;
        DELETE FROM {entries} WHERE {is_old_session} AND seq = 0;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_message_added AFTER INSERT ON {messages}
    WHEN new.content IS NOT NULL BEGIN
        INSERT INTO {pending} ({key}, seq) VALUES ({new_message}, new.seq);
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_message_removed AFTER DELETE ON {messages}
    WHEN old.content IS NOT NULL BEGIN
        INSERT INTO agent_service_session_search (agent_service_session_search, rowid, body)
            SELECT 'delete', id, old.content FROM {entries} WHERE {is_old_message} AND seq = old.seq;
        DELETE FROM {entries} WHERE {is_old_message} AND seq = old.seq;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_pending_taken AFTER DELETE ON {pending} BEGIN
        INSERT OR IGNORE INTO {entries} ({key}, seq)
            SELECT {key}, seq FROM {messages}
            WHERE {is_old_message} AND seq = old.seq AND content IS NOT NULL;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_entry_added AFTER INSERT ON {entries} WHEN new.seq > 0 BEGIN
        INSERT INTO agent_service_session_search (rowid, body)
            SELECT new.id, content FROM {messages} WHERE {is_new_message} AND seq = new.seq;
    END
    """,
    """
    CREATE TRIGGER agent_service_session_search_pending_bounded AFTER INSERT ON {pending}
    WHEN new.id % 100 = 0 AND new.id > 10000 + (SELECT min(id) FROM {pending}) BEGIN
        DELETE FROM {pending} WHERE id < 200 + (SELECT min(id) FROM {pending});
    END
    """,
)
