"""The statements of an append, by engine, and what they find of earlier appends."""

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select, tuple_
from sqlalchemy.orm import class_mapper

from agent_service.infrastructure.database.append import postgres, sqlite
from agent_service.infrastructure.database.append.batch import Batch, Counters, Place
from agent_service.infrastructure.database.append.message import ClientKey
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import holds, visible

__all__ = ["append_many", "append_one", "find_earlier", "find_sessions"]

_CHUNK: Final = 500
"""Keys in one IN list: drivers and engines limit what a statement may hold."""


def append_one(
    connection: Connection, batch: Batch, expected_seq: int | None = None, expected_version: int | None = None
) -> Counters | None:
    """Append a batch of one in the connection's transaction; None: its session is not there, or a condition not met.

    :param expected_seq: append only if this is the session's ``last_seq``.
    :param expected_version: append only if this is the session's ``version``.
    """
    if connection.dialect.name == "postgresql":
        return postgres.append_one(connection, batch, expected_seq, expected_version)
    return sqlite.append_one(connection, batch, expected_seq, expected_version)


def append_many(connection: Connection, batch: Batch) -> list[Place | None]:
    """Append in the connection's transaction. None: the message's session is not there, or its key was appended before.

    :raises IntegrityError: on PostgreSQL, for a message that another transaction appends at the same moment under the
        same client id; the transaction is of no use then.
    """
    if connection.dialect.name == "postgresql":
        return postgres.append_many(connection, batch)
    return sqlite.append_many(connection, batch)


def find_earlier(connection: Connection, tenant_id: str, keys: Iterable[ClientKey]) -> dict[ClientKey, SessionMessage]:
    """Return the messages of visible sessions that were appended under these keys."""
    columns = SessionMessage.__table__.c
    found: dict[ClientKey, SessionMessage] = {}
    for chunk in _chunks(keys):
        statement = (
            select(*(columns[name].label(attribute) for name, attribute in _ATTRIBUTES.items()))
            .join(Session.__table__, holds(SessionMessage))
            .where(
                columns.tenant_id == tenant_id,
                tuple_(columns.session_id, columns.client_id).in_(chunk),
                *visible(tenant_id),
            )
        )
        for row in connection.execute(statement).mappings():
            found[row["session_id"], row["client_id"]] = SessionMessage.stored(**row)
    return found


def find_sessions(connection: Connection, tenant_id: str, session_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of the sessions that are visible."""
    found: set[UUID] = set()
    for chunk in _chunks(set(session_ids)):
        found.update(connection.scalars(select(Session.id).where(*visible(tenant_id), Session.id.in_(chunk))))
    return found


_ATTRIBUTES = {attribute.columns[0].name: attribute.key for attribute in class_mapper(SessionMessage).column_attrs}


def _chunks(keys: Iterable[Any]) -> Iterable[list[Any]]:
    listed = list(keys)
    return (listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK))
