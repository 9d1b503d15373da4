"""Appending on SQLite: the write lock is taken first, and the rest done step by step behind it.

On engines of ours all steps are one visit to the connection's thread, because a visit costs more than a statement. Past
its largest integer SQLite goes on with a float, so each step looks at what the counters have room for.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from agent_service.infrastructure.database.append.batch import Batch, Counters, Place
from agent_service.infrastructure.database.errors.sessions import session_full
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.naming.names import TableNames
from agent_service.infrastructure.database.queries.locks import TAKE_WRITE_LOCK
from agent_service.infrastructure.database.queries.search_index import index_along
from agent_service.infrastructure.database.sqlite.write_lock import begin_writing
from agent_service.infrastructure.database.values.documents import dumps, loads
from agent_service.infrastructure.database.values.types import sqlite_moment, sqlite_uuid
from agent_service.infrastructure.database.values.validation import MAX_SEQ

__all__ = ["Run", "append_locked", "append_many", "append_one", "as_writer", "run_with_names"]

T = TypeVar("T")

Parameters: TypeAlias = tuple[Any, ...] | dict[str, Any] | list[tuple[Any, ...]]

TAKE_ONE: Final = """
UPDATE agent_service_sessions SET
    last_seq = last_seq + 1,
    total_messages = total_messages + 1,
    total_tokens = total_tokens + :tokens,
    last_activity_at = max(last_activity_at, :now),
    updated_at = max(updated_at, :now),
    expires_at = max(expires_at, :until)
WHERE tenant_id = :tenant AND id = :session AND deleted_at IS NULL
    AND (:client_id IS NULL
         OR NOT EXISTS (
            SELECT 1 FROM agent_service_session_messages
            WHERE tenant_id = :tenant AND session_id = :session AND client_id = :client_id
         ))
    AND (:expected_seq IS NULL OR last_seq = :expected_seq)
    AND (:expected_version IS NULL OR version = :expected_version)
    AND last_seq < :most AND total_tokens <= :most - :tokens
RETURNING last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at
"""

_COUNTERS: Final = """
SELECT id, last_seq, total_messages, total_tokens FROM agent_service_sessions
WHERE tenant_id = ? AND id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
"""

_KNOWN: Final = """
SELECT session_id, client_id FROM agent_service_session_messages
WHERE tenant_id = ?
    AND (session_id, client_id) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""

_TAKE_MANY: Final = """
UPDATE agent_service_sessions SET
    last_seq = last_seq + ?,
    total_messages = total_messages + ?,
    total_tokens = total_tokens + ?,
    last_activity_at = max(last_activity_at, ?),
    updated_at = max(updated_at, ?),
    expires_at = max(expires_at, ?)
WHERE tenant_id = ? AND id = ?
"""

_CONTEXT: Final = "SELECT context FROM agent_service_sessions WHERE tenant_id = ? AND id = ?"

_SET_CONTEXT: Final = (
    "UPDATE agent_service_sessions SET context = ?, version = version + 1 WHERE tenant_id = ? AND id = ?"
)

_ADD: Final = """
INSERT INTO agent_service_session_messages
    (session_id, seq, client_id, role, content, data, token_count, created_at, tenant_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class Run(Protocol):
    """Runs a statement with parameters, or once for each tuple of a list, and returns its rows.

    They are to be read before the next statement.
    """

    def __call__(self, statement: str, parameters: Any, /) -> Iterable[Any]: ...


def append_one(
    connection: Connection, batch: Batch, expected_seq: int | None, expected_version: int | None
) -> Counters | None:
    """Append a batch of one in the connection's transaction."""
    parameters = parameters_of_one(batch, expected_seq, expected_version)
    return as_writer(connection, lambda run: _append_one(run, batch, parameters))


def append_many(connection: Connection, batch: Batch) -> list[Place | None]:
    """Append in the connection's transaction; None for each message that was not added."""

    def append(run: Run) -> list[Place | None]:
        places = append_locked(run, batch)
        index_along(run, len(places))
        return places

    return as_writer(connection, append)


def as_writer(connection: Connection, work: Callable[[Run], T]) -> T:
    """Do some work in the connection's transaction, which holds the write lock."""
    if not begin_writing(connection):
        # An engine of the caller's own: each statement goes through SQLAlchemy, as its listeners may expect.
        connection.execute(TAKE_WRITE_LOCK)
        return work(connection.exec_driver_sql)
    names, pooled = names_of(connection), connection.connection
    driver: Any = pooled.dbapi_connection
    try:
        return driver.visit_with_cursor(lambda cursor: work(partial(run_with_names, cursor, names)))  # type: ignore[no-any-return]
    except sqlite3.Error as exc:
        dialect: Any = connection.dialect
        error = dialect.loaded_dbapi.Error
        raise DBAPIError.instance(None, None, exc, error, hide_parameters=True, dialect=dialect) from exc


def run_with_names(
    driver: sqlite3.Cursor | sqlite3.Connection, names: TableNames, statement: str, parameters: Parameters
) -> sqlite3.Cursor:
    """Run a statement of ours with the names of a database: a :class:`Run`, once the first two are given."""
    rendered = names.render(statement)
    if isinstance(parameters, list):
        return driver.executemany(rendered, parameters)
    return driver.execute(rendered, parameters)


def parameters_of_one(batch: Batch, expected_seq: int | None, expected_version: int | None) -> dict[str, Any]:
    """Return the parameters of :data:`TAKE_ONE`."""
    (message,) = batch.messages
    return {
        "tenant": batch.tenant_id,
        "session": sqlite_uuid(message.session_id),
        "client_id": message.client_id,
        "tokens": message.token_count or 0,
        "now": sqlite_moment(batch.now),
        "until": sqlite_moment(batch.expires_at),
        "expected_seq": expected_seq,
        "expected_version": expected_version,
        "most": MAX_SEQ,
    }


def _append_one(run: Run, batch: Batch, given: dict[str, Any]) -> Counters | None:
    rows = list(run(TAKE_ONE, given))
    if not rows:
        return None
    (message,), ((seq, total_messages, total_tokens, *moments),) = batch.messages, rows
    values = (message.role, message.search_text, message.text, message.token_count, given["now"], batch.tenant_id)
    run(_ADD, (given["session"], seq, message.client_id, *values))
    index_along(run, 1)
    return Counters(seq, total_messages, total_tokens, *map(_moment, moments))


def _moment(stored: str) -> datetime:
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)


@dataclass(slots=True)
class _Counter:
    """A session's numbers while a batch is counted into them."""

    seq: int
    total: int
    total_tokens: int
    messages: int = 0
    tokens: int = 0

    def add(self, tokens: int | None) -> None:
        self.seq += 1
        self.total += 1
        self.messages += 1
        self.tokens += tokens or 0


def append_locked(run: Run, batch: Batch) -> list[Place | None]:
    """Append in a transaction that holds the write lock; None for each message that was not added."""
    tenant, now, until = batch.tenant_id, sqlite_moment(batch.now), sqlite_moment(batch.expires_at)
    ids = [sqlite_uuid(message.session_id) for message in batch.messages]
    counters = _counters(run, tenant, ids)
    known = _known(run, tenant, [(key, message.client_id) for key, message in zip(ids, batch.messages, strict=True)])
    numbers: list[int | None] = []
    rows: list[tuple[Any, ...]] = []
    patches: dict[str, str] = {}
    for key, message in zip(ids, batch.messages, strict=True):
        counter = counters.get(key)
        if counter is None or (key, message.client_id) in known or message.expected_seq not in {None, counter.seq}:
            numbers.append(None)
            continue
        counter.add(message.token_count)
        numbers.append(counter.seq)
        values = (message.role, message.search_text, message.text, message.token_count, now, tenant)
        rows.append((key, counter.seq, message.client_id, *values))
        if message.context is not None:
            patches[key] = message.context
    changes = [
        (each.messages, each.messages, each.tokens, now, now, until, tenant, key)
        for key, each in counters.items()
        if each.messages
    ]
    for key, each in counters.items():
        if each.seq > MAX_SEQ or each.total_tokens + each.tokens > MAX_SEQ:
            raise session_full(UUID(key), each.seq - each.messages, each.total_tokens)
    if rows:
        run(_TAKE_MANY, changes)
        run(_ADD, rows)
        _change_contexts(run, tenant, patches)
    return [None if seq is None else Place(seq, counters[key].total) for key, seq in zip(ids, numbers, strict=True)]


def _change_contexts(run: Run, tenant_id: str, patches: Mapping[str, str]) -> None:
    for key, patch in patches.items():
        ((context,),) = list(run(_CONTEXT, (tenant_id, key)))
        run(_SET_CONTEXT, (dumps({**loads(context), **loads(patch)}), tenant_id, key))


def _counters(run: Run, tenant_id: str, ids: Iterable[str]) -> dict[str, _Counter]:
    found = run(_COUNTERS, (tenant_id, json.dumps(list(set(ids)))))
    return {key: _Counter(seq, total, tokens) for key, seq, total, tokens in found}


def _known(run: Run, tenant_id: str, keys: Sequence[tuple[str, str | None]]) -> set[tuple[str, str]]:
    named = [key for key in keys if key[1] is not None]
    if not named:
        return set()
    return {(key, client_id) for key, client_id in run(_KNOWN, (tenant_id, json.dumps(named)))}
