"""Every statement of a session is served by keys that begin with the tenant: what the engines themselves plan."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_service.infrastructure.database.append import sqlite
from agent_service.infrastructure.database.append.batch import Batch
from agent_service.infrastructure.database.append.message import accept_message
from agent_service.infrastructure.database.append.postgres import APPEND_ALONE, APPEND_ONE, statement_for
from agent_service.infrastructure.database.contexts.sessions import SessionContexts
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.naming.names import TableNames
from agent_service.infrastructure.database.repositories import SessionRepository

Sent = tuple[str, Any]
NOTHING = "WHERE 0 = 1"
"""What takes SQLite's write lock and looks at no row."""
MANY_ROWS = (
    """
    INSERT INTO agent_service_sessions (id, tenant_id, user_id, status, context, metadata, last_seq, total_messages,
        total_tokens, version, created_at, updated_at, last_activity_at, expires_at)
    SELECT gen_random_uuid(), 'acme', 'u' || n, 'active', '{}', '{}', 10, 10, 0, 1, now(), now(), now(), now()
    FROM generate_series(1, 3000) AS n
    """,
    """
    INSERT INTO agent_service_session_messages (tenant_id, session_id, seq, role, data, created_at)
    SELECT tenant_id, id, n, 'user', '{}', now() FROM agent_service_sessions, generate_series(11, 20) AS n
    """,
    """
    UPDATE agent_service_sessions AS fork SET parent_session_id = parent.id, fork_seq = 10
    FROM agent_service_sessions AS parent
    WHERE fork.user_id ~ '^u[0-9]+[02468]$' AND parent.user_id = 'u' || (substr(fork.user_id, 2)::int - 1)
    """,
    "ANALYZE agent_service_sessions, agent_service_session_messages",
)
"""PostgreSQL reads a small table as a whole, whatever keys it has."""
OTHER_INDEXES = re.compile(
    r"trigram|sessions_deleted|search_pending|SCAN waiting|search_entries$|INTEGER PRIMARY KEY|VIRTUAL TABLE|json_each"
)
"""What is looked up by no key of a session: texts, few hidden sessions, what waits to be indexed, the last number of
what is indexed, a function's rows."""


@pytest.fixture
async def sent(database: DatabaseManager, monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """What the repository's methods send for one session, once each."""
    found: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if (
            re.match(r"\s*(?:SELECT|WITH|UPDATE|DELETE|INSERT)", statement)
            and "sessions" in statement
            and NOTHING not in statement
        ):
            found.setdefault(statement, parameters[0] if many else parameters)

    run_with_names = sqlite.run_with_names

    def run(cursor: Any, names: TableNames, statement: str, parameters: Any) -> Any:
        note(None, cursor, names.render(statement), parameters, None, isinstance(parameters, list))
        return run_with_names(cursor, names, statement, parameters)

    monkeypatch.setattr(sqlite, "run_with_names", run)
    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    async with database.session() as db:
        repo = SessionRepository(db, "acme")
        session = await repo.create(Session(user_id="ada", title="needle", external_id="one"))
        for n in range(3):
            await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"}, client_id=f"c{n}")
        await repo.add_message_to_session(session.id, {"role": "user"}, client_id="c1")
        await repo.add_messages_to_session(session.id, [{"role": "user"}] * 2, client_ids=["c1", "c9"])
        fork = await repo.fork(session.id, 3)
        await repo.fork(fork.id, 2)
        await repo.get(session.id)
        await repo.get_session_with_messages(fork.id)
        await repo.get_messages(session.id, limit=2)
        await repo.get_messages(session.id, after_seq=1, roles=["user"])
        await repo.get_messages(fork.id)
        await repo.set_session_context(session.id, {"a": 1})
        await repo.update_session_context(session.id, {"b": 1})
        await repo.set_session_metadata_path(session.id, "a.b", 1)
        await repo.update(session)
        await repo.recount(fork.id)
        await repo.bulk_update_session_status([session.id], "active")
        await repo.pop_message(session.id)
        await repo.pop_message(fork.id)
        lines = [line async for line in repo.export_user("ada")]
        await repo.delete(session.id)
        await repo.restore(session.id)
        await repo.search_messages("ada", "needle")
        await repo.search_sessions("ada", "needle")
        await repo.get_user_sessions("ada")
        await repo.get_paginated_user_sessions("ada", 1, 20, agent_id="a")
        await repo.get_user_sessions_page("ada", cursor=(await repo.get_user_sessions_page("ada", limit=1)).next_cursor)
        await repo.delete(session.id, hard=True)
        await repo.import_user(lines)
        await db.commit()
        await SessionContexts(lambda: database.session(), "acme").read([session.id])
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)
    return list(found.items())


async def test_keys_that_begin_with_the_tenant_serve_every_statement(
    database: DatabaseManager, sent: list[Sent]
) -> None:
    assert len(sent) > 25
    async with database.engine.connect() as connection:
        if not database.embedded:
            sent = [*sent, *(await of_the_driver(connection))]
            for statement in MANY_ROWS:
                await connection.exec_driver_sql(statement)
        wrong = [
            (each, line)
            for each in sent
            for line in await (_sqlite if database.embedded else _postgres)(connection, *each)
        ]
        await connection.rollback()

    assert [line for _, line in wrong] == []


async def of_the_driver(connection: AsyncConnection) -> list[Sent]:
    """What goes past SQLAlchemy."""
    names, moment = await connection.run_sync(names_of), datetime.now(UTC)
    messages = [accept_message(uuid4(), {"role": "user"}, each) for each in "ab"]
    alone, one = statement_for(Batch("acme", messages[:1], moment, moment))
    many, parameters = statement_for(Batch("acme", messages, moment, moment))
    assert alone == APPEND_ALONE
    return [(names.render(APPEND_ONE), one), (names.render(alone), one), (names.render(many), parameters)]


async def _sqlite(connection: AsyncConnection, statement: str, parameters: Any) -> list[str]:
    plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    steps = [str(row.detail) for row in plan.all()]
    return [each for each in steps if re.match("SCAN|SEARCH", each) and not _is_led(each)]


def _is_led(step: str) -> bool:
    materialized = re.match(
        r"(?:SCAN|SEARCH) (?:lineage|line|anon_\d+|hits?|best|up|found|frequent|page|f\b|\(|\d)", step
    )
    return "(tenant_id=?" in step or bool(materialized or OTHER_INDEXES.search(step) or step == "SCAN CONSTANT ROW")


async def _postgres(connection: AsyncConnection, statement: str, parameters: Any) -> list[str]:
    plan = [str(row[0]) for row in (await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).all()]
    wrong = []
    for place, line in enumerate(plan):
        scan = re.search(r"(?:(Seq) Scan|Index(?: Only)? Scan|Bitmap Index Scan).* on (\S+)", line)
        if scan is None or OTHER_INDEXES.search(line) or not re.search("session", scan[2]):
            continue
        condition = plan[place + 1] if place + 1 < len(plan) else ""
        if scan[1] or "tenant_id" not in condition:
            wrong.append(f"{line} / {condition}")
    return wrong
