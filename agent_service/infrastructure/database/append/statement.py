"""Appending one message: the session's row hands out the number, in the statement that stores the message.

The UPDATE locks the row until the transaction ends, so numbers are given in the order of commits and a rolled back
append takes its number back with it: 1, 2, 3 without a gap, under any number of writers. A reader never sees earlier
history change.

On PostgreSQL it is one statement. Two appends of the same ``client_id`` at the same time are the one case it cannot
decide alone (each looked for the other before it waited for the row): the later one's INSERT does nothing, and the
number it took is given back before anyone else can see it. On SQLite two statements do the same behind the write lock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Integer, String, bindparam, exists, func, insert, or_, update
from sqlalchemy import Uuid as UuidType
from sqlalchemy.engine import Connection

from agent_service.infrastructure.database.append.incoming import IncomingMessage
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.driver import fetch_row
from agent_service.infrastructure.database.queries.search_index import index_along
from agent_service.infrastructure.database.values.types import UtcDateTime
from agent_service.infrastructure.database.values.validation import MAX_SEQ

__all__ = ["APPEND_ALONE_POSTGRES", "APPEND_POSTGRES", "Append", "Counters", "append", "parameters_for_postgres"]


@dataclass(frozen=True, slots=True)
class Append:
    """What is to be appended, where, and under which conditions."""

    tenant_id: str
    session_id: UUID
    message: IncomingMessage
    now: datetime
    expires_at: datetime
    client_id: str | None = None
    expected_seq: int | None = None
    expected_version: int | None = None


class Counters(NamedTuple):
    """The session's row after an append; ``last_seq`` is the new message's number."""

    last_seq: int
    total_messages: int
    total_tokens: int
    last_activity_at: datetime
    updated_at: datetime
    expires_at: datetime


_TAKE_AND_ADD = """
WITH taken AS (
    UPDATE agent_service_sessions SET
        last_seq = last_seq + 1,
        total_messages = total_messages + 1,
        total_tokens = total_tokens + coalesce($7::int, 0),
        last_activity_at = greatest(last_activity_at, $8::timestamptz),
        updated_at = greatest(updated_at, $8::timestamptz),
        expires_at = greatest(expires_at, $9::timestamptz)
    WHERE tenant_id = $2::varchar AND id = $1::uuid AND deleted_at IS NULL
        AND ($3::varchar IS NULL
             OR NOT EXISTS (
                SELECT FROM agent_service_session_messages
                WHERE tenant_id = $2::varchar AND session_id = $1::uuid AND client_id = $3::varchar
             ))
        AND ($10::bigint IS NULL OR last_seq = $10::bigint)
        AND ($11::int IS NULL OR version = $11::int)
    RETURNING last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at
), added AS (
    INSERT INTO agent_service_session_messages
        (session_id, seq, client_id, role, content, data, token_count, created_at, tenant_id)
    SELECT $1::uuid, last_seq, $3::varchar, $4::text, $5::text, $6::json, $7::int, $8::timestamptz, $2::varchar
    FROM taken
{answer}
"""

APPEND_POSTGRES = _TAKE_AND_ADD.replace(
    "{answer}",
    """
    ON CONFLICT (tenant_id, session_id, client_id) WHERE client_id IS NOT NULL DO NOTHING
    RETURNING seq
)
SELECT last_seq, total_messages, total_tokens, last_activity_at, updated_at, expires_at, (SELECT seq FROM added)
FROM taken
""",
)

APPEND_ALONE_POSTGRES = _TAKE_AND_ADD.replace("{answer}", ") SELECT 0, last_seq, total_messages FROM taken")
"""The same as a transaction by itself, which can give nothing back: of two appends of one client id at the same time
the later one fails, on the unique index. Repeating it finds the other's message."""

_GIVE_BACK_POSTGRES = """
UPDATE agent_service_sessions
SET last_seq = last_seq - 1, total_messages = total_messages - 1, total_tokens = total_tokens - $3::int
WHERE tenant_id = $1::varchar AND id = $2::uuid
"""

_given_client_id = bindparam("given_client_id", type_=String)
_given_seq = bindparam("given_seq", type_=BigInteger)
_given_version = bindparam("given_version", type_=Integer)
_given_session = bindparam("given_session", type_=UuidType)
_given_tenant = bindparam("given_tenant", type_=String)

_TAKE_SQLITE = (
    update(Session)
    .where(
        Session.tenant_id == _given_tenant,
        Session.id == _given_session,
        Session.deleted_at.is_(None),
        or_(
            _given_client_id.is_(None),
            ~exists().where(
                SessionMessage.tenant_id == _given_tenant,
                SessionMessage.session_id == _given_session,
                SessionMessage.client_id == _given_client_id,
            ),
        ),
        or_(_given_seq.is_(None), Session.last_seq == _given_seq),
        or_(_given_version.is_(None), Session.version == _given_version),
        # Past its largest integer SQLite goes on with a float.
        Session.last_seq < MAX_SEQ,
        Session.total_tokens <= MAX_SEQ - bindparam("tokens", type_=BigInteger),
    )
    .values(
        last_seq=Session.last_seq + 1,
        total_messages=Session.total_messages + 1,
        total_tokens=Session.total_tokens + bindparam("tokens", type_=BigInteger),
        last_activity_at=func.max(Session.last_activity_at, bindparam("now", type_=UtcDateTime)),
        updated_at=func.max(Session.updated_at, bindparam("now", type_=UtcDateTime)),
        expires_at=func.max(Session.expires_at, bindparam("until", type_=UtcDateTime)),
    )
    .returning(*(getattr(Session, name) for name in Counters._fields))
    .execution_options(synchronize_session=False)
)

_ADD_SQLITE = insert(SessionMessage.__table__)  # type: ignore[arg-type]


def append(connection: Connection, order: Append) -> Counters | None:
    """Append the message in the connection's transaction; None: the row was not there or a condition did not hold."""
    return (_append_postgres if connection.dialect.name == "postgresql" else _append_sqlite)(connection, order)


def parameters_for_postgres(order: Append) -> tuple[Any, ...]:
    """Return what the statements of PostgreSQL are called with."""
    message = order.message
    return (
        order.session_id,
        order.tenant_id,
        order.client_id,
        message.role,
        message.search_text,
        message.text,
        message.token_count,
        order.now,
        order.expires_at,
        order.expected_seq,
        order.expected_version,
    )


def _append_postgres(connection: Connection, order: Append) -> Counters | None:
    row = fetch_row(connection, names_of(connection).render(APPEND_POSTGRES), parameters_for_postgres(order))
    if row is None:
        return None
    *counters, added = row
    if added is None:
        given_back = (order.tenant_id, order.session_id, order.message.token_count or 0)
        connection.exec_driver_sql(_GIVE_BACK_POSTGRES, given_back)
        return None
    found = Counters(*counters)
    if found.expires_at.tzinfo is None or found.last_activity_at.tzinfo is None or found.updated_at.tzinfo is None:
        # The driver takes the last moment of the calendar for infinity, which it gives without a time zone.
        moments = {name: getattr(found, name) for name in ("last_activity_at", "updated_at", "expires_at")}
        return found._replace(**{name: moment.replace(tzinfo=UTC) for name, moment in moments.items()})
    return found


def _append_sqlite(connection: Connection, order: Append) -> Counters | None:
    message = order.message
    row = connection.execute(
        _TAKE_SQLITE,
        {
            "given_session": order.session_id,
            "given_tenant": order.tenant_id,
            "given_client_id": order.client_id,
            "given_seq": order.expected_seq,
            "given_version": order.expected_version,
            "tokens": message.token_count or 0,
            "now": order.now,
            "until": order.expires_at,
        },
    ).first()
    if row is None:
        return None
    values: dict[str, Any] = {
        "session_id": order.session_id,
        "seq": row.last_seq,
        "client_id": order.client_id,
        "role": message.role,
        "content": message.search_text,
        "data": message.data,
        "token_count": message.token_count,
        "created_at": order.now,
        "tenant_id": order.tenant_id,
    }
    connection.execute(_ADD_SQLITE, values)
    index_along(connection, 1)
    return Counters(*row)
