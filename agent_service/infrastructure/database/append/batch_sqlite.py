"""Appending many messages at once on SQLite: the write lock is taken first, and the rest done step by step behind it.

Statements go to the driver as they stand here, each once for the whole batch.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Dialect, Uuid
from sqlalchemy.types import TypeEngine

from agent_service.infrastructure.database.append.batch import BatchAppend, Place
from agent_service.infrastructure.database.errors.sessions import session_full
from agent_service.infrastructure.database.queries.locks import TAKE_WRITE_LOCK
from agent_service.infrastructure.database.queries.search_index import index_along
from agent_service.infrastructure.database.values.types import UtcDateTime
from agent_service.infrastructure.database.values.validation import MAX_SEQ

__all__ = ["Run", "append_locked", "append_sqlite"]

_COUNTERS = """
SELECT id, last_seq, total_messages, total_tokens FROM agent_service_sessions
WHERE tenant_id = ? AND id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL
"""

_KNOWN = """
SELECT session_id, client_id FROM agent_service_session_messages
WHERE tenant_id = ?
    AND (session_id, client_id) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""

_TAKE = """
UPDATE agent_service_sessions SET
    last_seq = last_seq + ?,
    total_messages = total_messages + ?,
    total_tokens = total_tokens + ?,
    last_activity_at = max(last_activity_at, ?),
    updated_at = max(updated_at, ?),
    expires_at = max(expires_at, ?)
WHERE tenant_id = ? AND id = ?
"""

_ADD = """
INSERT INTO agent_service_session_messages
    (session_id, seq, client_id, role, content, data, token_count, created_at, tenant_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class Run(Protocol):
    """Runs a statement of the driver's: with a tuple of parameters, or for each tuple of a list. Gives its rows."""

    def __call__(self, statement: str, parameters: tuple[Any, ...] | list[tuple[Any, ...]], /) -> Iterable[Any]: ...


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


def append_sqlite(connection: Connection, batch: BatchAppend) -> list[Place | None]:
    """Append in the connection's transaction; None for each entry that was not added."""
    connection.execute(TAKE_WRITE_LOCK)
    places = append_locked(connection.exec_driver_sql, connection.dialect, batch)
    index_along(connection, len(places))
    return places


def append_locked(run: Run, dialect: Dialect, batch: BatchAppend) -> list[Place | None]:
    """Append in a transaction that holds the write lock; None for each entry that was not added."""
    as_id, as_moment = _stored_form(dialect, Uuid()), _stored_form(dialect, UtcDateTime())
    ids = [as_id(entry.session_id) for entry in batch.entries]
    tenant, now, until = batch.tenant_id, as_moment(batch.now), as_moment(batch.expires_at)
    counters = _counters(run, tenant, ids)
    known = _known(run, tenant, [(key, entry.client_id) for key, entry in zip(ids, batch.entries, strict=True)])
    numbers: list[int | None] = []
    rows: list[tuple[Any, ...]] = []
    for key, entry in zip(ids, batch.entries, strict=True):
        counter, message = counters.get(key), entry.message
        if counter is None or (key, entry.client_id) in known:
            numbers.append(None)
            continue
        counter.add(message.token_count)
        numbers.append(counter.seq)
        values = (message.role, message.search_text, message.text, message.token_count, now, tenant)
        rows.append((key, counter.seq, entry.client_id, *values))
    changes = [
        (each.messages, each.messages, each.tokens, now, now, until, tenant, key)
        for key, each in counters.items()
        if each.messages
    ]
    for key, each in counters.items():
        # Past its largest integer SQLite goes on with a float.
        if each.seq > MAX_SEQ or each.total_tokens + each.tokens > MAX_SEQ:
            raise session_full(UUID(key), each.seq - each.messages, each.total_tokens)
    if rows:
        run(_TAKE, changes)
        run(_ADD, rows)
    return [None if seq is None else Place(seq, counters[key].total) for key, seq in zip(ids, numbers, strict=True)]


def _stored_form(dialect: Dialect, kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Return the function that brings a value into the form in which its column holds it."""
    processor = kind.dialect_impl(dialect).bind_processor(dialect)
    return processor if processor is not None else lambda value: value


def _counters(run: Run, tenant_id: str, ids: Iterable[str]) -> dict[str, _Counter]:
    found = run(_COUNTERS, (tenant_id, json.dumps(list(set(ids)))))
    return {key: _Counter(seq, total, tokens) for key, seq, total, tokens in found}


def _known(run: Run, tenant_id: str, keys: Sequence[tuple[str, str | None]]) -> set[tuple[str, str]]:
    named = [key for key in keys if key[1] is not None]
    if not named:
        return set()
    return {(key, client_id) for key, client_id in run(_KNOWN, (tenant_id, json.dumps(named)))}
