"""Appending many messages to a session at once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session as SyncSession

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.append.batch import BatchAppend, Entry
from agent_service.infrastructure.database.append.batch_statement import append_batch, find_earlier
from agent_service.infrastructure.database.append.incoming import accept_message
from agent_service.infrastructure.database.append.statement import Counters
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.locks import hold
from agent_service.infrastructure.database.queries.scope import of_tenant, one
from agent_service.infrastructure.database.repositories.messages import SessionMessages
from agent_service.infrastructure.database.transactions.isolation import run_first
from agent_service.infrastructure.database.values.validation import require_identifier, require_session_id

__all__ = ["SessionBatches"]


class SessionBatches(SessionMessages):
    """The part of the repository that appends messages, one or many at once."""

    async def add_messages_to_session(
        self,
        session_id: UUID | str,
        messages: Iterable[Mapping[str, Any]],
        *,
        client_ids: Sequence[str | None] | None = None,
    ) -> list[SessionMessage]:
        """Append messages in their order, all or none, and return them as stored.

        They get consecutive numbers, in a few statements however many there are.

        :param messages: each as for :meth:`add_message_to_session`.
        :param client_ids: one for each message, or None in its place. A message that was appended under its client id
            before, or earlier in the list, is not added again; the first one is returned in its place.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: a message cannot be kept exactly, or there are not as many client ids as messages;
            nothing was sent.
        """
        key = require_session_id(session_id)
        entries = _entries(key, messages, client_ids)
        now = self._now()
        batch = BatchAppend(self._tenant_id, list(_unique(entries)), now, self._expiry(now))
        with database_errors("append messages"):
            stored = await self._db.run_sync(_append, key, batch)
            if stored is None:
                raise self._not_found(key)
            await self._note_counters(key)
        return [stored[_identity(entry)] for entry in entries]

    async def _note_counters(self, key: UUID) -> None:
        columns = (getattr(Session, name) for name in Counters._fields)
        row = (await self._db.execute(select(*columns).where(*of_tenant(self._tenant_id, key)))).one()
        self._note(key, row._asdict())
        self._limits.warn_if_long(key, row.total_messages)


def _entries(key: UUID, messages: Any, client_ids: Any) -> list[Entry]:
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise SessionValueError(f"messages must be a list of dicts, got {type(messages).__name__} {messages!r:.80}")
    accepted = [accept_message(each) for each in messages]
    if client_ids is None:
        return [Entry(key, each) for each in accepted]
    if isinstance(client_ids, str | bytes) or not isinstance(client_ids, Sequence) or len(client_ids) != len(accepted):
        raise SessionValueError(
            f"client_ids must be a list of an id or None for each of {len(accepted)} messages, got {client_ids!r:.80}"
        )
    checked = [
        None if each is None else require_identifier(each, f"client_ids[{index}]")
        for index, each in enumerate(client_ids)
    ]
    return [Entry(key, message, client_id) for message, client_id in zip(accepted, checked, strict=True)]


def _identity(entry: Entry) -> Any:
    return entry.key or id(entry)


def _unique(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Return the first entry of each key, in their order."""
    first: dict[Any, Entry] = {}
    for entry in entries:
        first.setdefault(_identity(entry), entry)
    return first.values()


def _append(db: SyncSession, key: UUID, batch: BatchAppend) -> dict[Any, SessionMessage] | None:
    """Append and give the messages by the identity of their entries; None: there is no such session."""
    return run_first(db, lambda connection: _append_held(connection, key, batch))


def _append_held(connection: Connection, key: UUID, batch: BatchAppend) -> dict[Any, SessionMessage] | None:
    # Once the session's row is held, nobody else appends under the same client ids.
    if connection.execute(hold(connection.dialect.name, *one(batch.tenant_id, key))).first() is None:
        return None
    if not batch.entries:
        return {}
    placed = list(zip(batch.entries, append_batch(connection, batch), strict=True))
    missing = [entry.key for entry, place in placed if place is None and entry.key]
    earlier = find_earlier(connection, batch.tenant_id, missing)
    return {
        _identity(entry): batch.stored(entry, place.seq) if place else earlier[_identity(entry)]
        for entry, place in placed
    }
