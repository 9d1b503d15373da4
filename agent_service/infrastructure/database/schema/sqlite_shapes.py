"""Rebuilding SQLite's tables of sessions and messages, and their search index, with other keys.

SQLite cannot change a key in place: a table is created under another name, filled, and renamed over the old one, all in
one transaction. References are rewritten by the renaming, so no row is ever without its session, whether or not
foreign keys are checked. The full text index stays: it knows texts by numbers that do not change. Views, triggers and
indexes of the application's are put back as they were.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.sql.elements import conv

from agent_service.core.errors import DatabaseError
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.naming.names import quoted
from agent_service.infrastructure.database.schema.crossing_links import cut_links
from agent_service.infrastructure.database.schema.key_shapes import require_ids_of_one_tenant, require_own_references
from agent_service.infrastructure.database.schema.sqlite_search_shape import (
    SEARCH_TRIGGERS,
    drop_search_parts,
    make_search_again,
)

__all__ = ["lead_by_id", "lead_by_tenant"]

_SESSIONS: Final = "agent_service_sessions"
_MESSAGES: Final = "agent_service_session_messages"
_STATUSES: Final = "status IN ('active', 'completed', 'failed', 'cancelled')"
_MOMENT: Final = DateTime(timezone=True)


def lead_by_tenant(connection: Connection) -> None:
    """Let all keys begin with the tenant."""
    require_own_references(connection)
    cut_links(connection)
    _make_again(connection, by_tenant=True)


def lead_by_id(connection: Connection) -> None:
    """Go back to keys that begin with the id of a session.

    :raises DatabaseError: two tenants use the same id.
    """
    require_own_references(connection, key="(id)")
    require_ids_of_one_tenant(connection)
    cut_links(connection)
    _make_again(connection, by_tenant=False)


def _make_again(connection: Connection, *, by_tenant: bool) -> None:
    sessions, messages = _tables(by_tenant)
    kept = [*(each.name for each in sessions.c), "watched_until"]
    _require_own_columns(connection, "sessions", kept)
    _require_own_columns(connection, "session_messages", [*(each.name for each in messages.c), "tenant_id"])
    beside = _set_aside(connection)
    drop_search_parts(connection)
    for table in (sessions, messages):
        table.create(connection)
    _run(
        connection,
        # As the revision did that added it, so that a downgrade leaves what was there before.
        f"ALTER TABLE {sessions.name} ADD COLUMN watched_until DATETIME",
        f"INSERT INTO {sessions.name} ({_listed(kept)}) SELECT {_listed(kept)} FROM {_SESSIONS}",  # noqa: S608
        _copy_messages(messages, by_tenant),
        f"DROP TABLE {_MESSAGES}",
        f"DROP TABLE {_SESSIONS}",
        f"ALTER TABLE {sessions.name} RENAME TO {_SESSIONS}",
        f"ALTER TABLE {messages.name} RENAME TO {_MESSAGES}",
        *_INDEXES,
        *(_INDEXES_BY_TENANT if by_tenant else _INDEXES_BY_ID),
    )
    make_search_again(connection, by_tenant=by_tenant)
    for statement in beside:
        connection.exec_driver_sql(statement)


def _require_own_columns(connection: Connection, table: str, own: Collection[str]) -> None:
    """Refuse to make a table again that has columns of the application's, whose values would be lost.

    :raises DatabaseError: it has; they are named.
    """
    name = names_of(connection).local(table)
    found = [each for each in connection.scalars(_COLUMNS, {"name": name}) if each not in own]
    if found:
        raise DatabaseError(
            f"cannot make {name} again with other keys: the values of {', '.join(found)}, columns that are not the "
            "package's, would be lost; keep them in a table of your own, drop the columns, and run this again"
        )


def _set_aside(connection: Connection) -> list[str]:
    """Drop views and triggers of the application's, which the renaming would look at, and return what puts them back.

    Indexes of the application's on our tables are put back too; they go with the tables.
    """
    names = names_of(connection)
    tables = {names.local("sessions"), names.local("session_messages")}
    ours = {names.local(each) for each in _OURS.findall("".join((*_INDEXES, *_INDEXES_BY_TENANT, *_INDEXES_BY_ID)))}
    ours |= {names.local(f"session_search_{each}") for each in ("texts", *SEARCH_TRIGGERS)}
    found = [
        each
        for each in connection.execute(_BESIDE)
        if each.name not in ours and (each.type != "index" or each.tbl_name in tables)
    ]
    for each in found:
        if each.type != "index":  # A view takes its triggers with it.
            connection.exec_driver_sql(f"DROP {each.type} IF EXISTS {quoted(each.name)}")
    return [each.sql for each in found]


def _run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(" ".join(statement.split()))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _copy_messages(messages: Table, by_tenant: bool) -> str:
    kept = [each.name for each in messages.c if each.name != "tenant_id"]
    given = [f"m.{name}" for name in kept]
    if by_tenant:
        kept, given = [*kept, "tenant_id"], [*given, "s.tenant_id"]
    return (
        f"INSERT INTO {messages.name} ({_listed(kept)}) SELECT {_listed(given)} "  # noqa: S608
        f"FROM {_MESSAGES} AS m JOIN {_SESSIONS} AS s ON s.id = m.session_id"
    )


def _tables(by_tenant: bool) -> tuple[Table, Table]:
    """Return the tables under names that they have while they are filled."""
    metadata = MetaData()
    sessions = Table(
        f"{_SESSIONS}_made",
        metadata,
        Column("id", Uuid(), nullable=False),
        Column("tenant_id", String(255), nullable=False),
        Column("external_id", String(255)),
        Column("user_id", String(255), nullable=False),
        Column("agent_id", String(255)),
        Column("title", Text()),
        Column("status", String(16), nullable=False),
        Column("context", JSON(), nullable=False),
        Column("metadata", JSON(), nullable=False),
        Column("last_seq", BigInteger(), nullable=False),
        Column("total_messages", BigInteger(), nullable=False),
        Column("total_tokens", BigInteger(), nullable=False),
        Column("version", Integer(), nullable=False),
        Column("parent_session_id", Uuid()),
        Column("fork_seq", BigInteger()),
        Column("created_at", _MOMENT, nullable=False),
        Column("updated_at", _MOMENT, nullable=False),
        Column("last_activity_at", _MOMENT, nullable=False),
        Column("expires_at", _MOMENT, nullable=False),
        Column("completed_at", _MOMENT),
        Column("deleted_at", _MOMENT),
    )
    messages = Table(
        f"{_MESSAGES}_made",
        metadata,
        Column("session_id", Uuid(), nullable=False),
        Column("seq", BigInteger(), nullable=False, autoincrement=False),
        Column("client_id", String(255)),
        Column("role", Text(), nullable=False),
        Column("content", Text()),
        Column("data", JSON(), nullable=False),
        Column("token_count", Integer()),
        Column("created_at", _MOMENT, nullable=False),
    )
    if by_tenant:
        messages.append_column(Column("tenant_id", String(255), nullable=False))
    tenant = ["tenant_id"] if by_tenant else []
    parent, session = ("parent", "session") if by_tenant else ("parent_session_id", "session_id")
    theirs = [f"{sessions.name}.{each}" for each in (*tenant, "id")]
    _constrain(sessions, [*tenant, "id"], "agent_service_pk_sessions")
    _refer(sessions, [*tenant, "parent_session_id"], theirs, f"agent_service_fk_sessions_{parent}")
    sessions.append_constraint(CheckConstraint(_STATUSES, name=conv("agent_service_ck_sessions_status")))
    _constrain(messages, [*tenant, "session_id", "seq"], "agent_service_pk_session_messages")
    _refer(
        messages,
        [*tenant, "session_id"],
        theirs,
        f"agent_service_fk_session_messages_{session}",
        ondelete="CASCADE",
    )
    return sessions, messages


def _constrain(table: Table, columns: list[str], name: str) -> None:
    table.append_constraint(PrimaryKeyConstraint(*(table.c[each] for each in columns), name=conv(name)))


def _refer(table: Table, columns: list[str], theirs: list[str], name: str, **options: Any) -> None:
    table.append_constraint(ForeignKeyConstraint(columns, theirs, name=conv(name), **options))


_INDEXES: Final = (
    "CREATE UNIQUE INDEX agent_service_uq_sessions_external_id ON agent_service_sessions (tenant_id, external_id)",
    """
    CREATE INDEX agent_service_ix_sessions_user ON agent_service_sessions (tenant_id, user_id, last_activity_at, id)
    """,
    """
    CREATE INDEX agent_service_ix_sessions_agent ON agent_service_sessions (tenant_id, agent_id, last_activity_at, id)
    """,
    "CREATE INDEX agent_service_ix_sessions_expiry ON agent_service_sessions (expires_at) WHERE status = 'active'",
    """
    CREATE INDEX agent_service_ix_sessions_deleted ON agent_service_sessions (deleted_at) WHERE deleted_at IS NOT NULL
    """,
    """
    CREATE INDEX agent_service_ix_sessions_forks ON agent_service_sessions (tenant_id, user_id)
    WHERE parent_session_id IS NOT NULL
    """,
)
_INDEXES_BY_TENANT: Final = (
    """
    CREATE INDEX agent_service_ix_sessions_children ON agent_service_sessions (tenant_id, parent_session_id)
    WHERE parent_session_id IS NOT NULL
    """,
    """
    CREATE UNIQUE INDEX agent_service_uq_session_messages_client
    ON agent_service_session_messages (tenant_id, session_id, client_id) WHERE client_id IS NOT NULL
    """,
)
_INDEXES_BY_ID: Final = (
    """
    CREATE INDEX agent_service_ix_sessions_parent ON agent_service_sessions (parent_session_id)
    WHERE parent_session_id IS NOT NULL
    """,
    """
    CREATE UNIQUE INDEX agent_service_uq_session_messages_client_id
    ON agent_service_session_messages (session_id, client_id) WHERE client_id IS NOT NULL
    """,
)

_OURS: Final = re.compile(r"INDEX agent_service_(\w+)")
_COLUMNS: Final = text("SELECT name FROM pragma_table_xinfo(:name)")
_BESIDE: Final = text("""
SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type IN ('view', 'trigger', 'index') AND sql IS NOT NULL
ORDER BY rowid
""")
