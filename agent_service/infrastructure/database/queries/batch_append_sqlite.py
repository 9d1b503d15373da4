"""Appending many messages at once on SQLite: the write lock is taken first, and the rest done step by step behind it.

Statements go to the driver as they stand here, each once for the whole batch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Uuid, false, update
from sqlalchemy.types import TypeEngine

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.batch import BatchAppend, Place
from agent_service.infrastructure.database.types import UtcDateTime

__all__ = ["append_sqlite"]

_LOCK = update(Session).where(false()).values(last_seq=Session.last_seq)

_COUNTERS = """
SELECT id, last_seq, total_messages FROM sessions
WHERE id IN (SELECT value FROM json_each(?)) AND tenant_id = ? AND deleted_at IS NULL
"""

_KNOWN = """
SELECT session_id, client_id FROM session_messages
WHERE (session_id, client_id) IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))
"""

_TAKE = """
UPDATE sessions SET
    last_seq = last_seq + ?,
    total_messages = total_messages + ?,
    total_tokens = total_tokens + ?,
    last_activity_at = max(last_activity_at, ?),
    updated_at = max(updated_at, ?),
    expires_at = max(expires_at, ?)
WHERE id = ?
"""

_ADD = """
INSERT INTO session_messages (session_id, seq, client_id, role, content, data, token_count, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(slots=True)
class _Counter:
    """A session's numbers while a batch is counted into them."""

    seq: int
    total: int
    messages: int = 0
    tokens: int = 0

    def add(self, tokens: int | None) -> None:
        self.seq += 1
        self.total += 1
        self.messages += 1
        self.tokens += tokens or 0


def append_sqlite(connection: Connection, batch: BatchAppend) -> list[Place | None]:
    """Append in the connection's transaction; None for each entry that was not added."""
    as_id, as_moment = _stored_form(connection, Uuid()), _stored_form(connection, UtcDateTime())
    ids = [as_id(entry.session_id) for entry in batch.entries]
    now, until = as_moment(batch.now), as_moment(batch.expires_at)
    connection.execute(_LOCK)
    counters = _counters(connection, batch.tenant_id, ids)
    known = _known(connection, [(key, entry.client_id) for key, entry in zip(ids, batch.entries, strict=True)])
    places: list[Place | None] = [None] * len(ids)
    rows: list[tuple[Any, ...]] = []
    for index, (key, entry) in enumerate(zip(ids, batch.entries, strict=True)):
        counter, message = counters.get(key), entry.message
        if counter is None or (key, entry.client_id) in known:
            continue
        counter.add(message.token_count)
        places[index] = Place(counter.seq, 0)
        rows.append(
            (
                key,
                counter.seq,
                entry.client_id,
                message.role,
                message.search_text,
                message.text,
                message.token_count,
                now,
            )
        )
    if not rows:
        return places
    changes = [
        (each.messages, each.messages, each.tokens, now, now, until, key)
        for key, each in counters.items()
        if each.messages
    ]
    connection.exec_driver_sql(_TAKE, changes)
    connection.exec_driver_sql(_ADD, rows)
    return [place and Place(place.seq, counters[key].total) for key, place in zip(ids, places, strict=True)]


def _stored_form(connection: Connection, kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Give the function that brings a value into the form in which its column holds it."""
    processor = kind.dialect_impl(connection.dialect).bind_processor(connection.dialect)
    return processor if processor is not None else lambda value: value


def _counters(connection: Connection, tenant_id: str, ids: list[str]) -> dict[str, _Counter]:
    found = connection.exec_driver_sql(_COUNTERS, (json.dumps(list(set(ids))), tenant_id))
    return {key: _Counter(seq, total) for key, seq, total in found}


def _known(connection: Connection, keys: list[tuple[str, str | None]]) -> set[tuple[str, str]]:
    named = [key for key in keys if key[1] is not None]
    if not named:
        return set()
    return {(key, client_id) for key, client_id in connection.exec_driver_sql(_KNOWN, (json.dumps(named),))}
