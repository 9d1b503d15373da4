"""Appending many messages to a session at once."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from agent_service.core.tracing import measured, traced
from agent_service.infrastructure.database.append.batch import Batch, Counters
from agent_service.infrastructure.database.append.measured import counted
from agent_service.infrastructure.database.append.message import PendingMessage, accept_messages, identity_of
from agent_service.infrastructure.database.append.statements import append_many, find_earlier
from agent_service.infrastructure.database.engine.servers import MESSAGES
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.scope import of_tenant, one
from agent_service.infrastructure.database.repositories.messages import SessionMessages
from agent_service.infrastructure.database.transactions.isolation import run_first
from agent_service.infrastructure.database.values.validation import require_session_id

__all__ = ["SessionBatches"]


class SessionBatches(SessionMessages):
    """The part of the repository that appends messages, one or many at once."""

    async def add_messages_to_session(
        self,
        session_id: UUID | str,
        messages: Iterable[Mapping[str, Any]],
        *,
        role: str | Sequence[str | None] | None = None,
        client_ids: Sequence[str | None] | None = None,
    ) -> list[SessionMessage]:
        """Append messages in their order, all or none, and return them as stored.

        They get consecutive numbers, in a few statements however many there are.

        :param messages: each as for :meth:`add_message_to_session`.
        :param role: of those that have none: one for all, or a list of one for each, or None in its place.
        :param client_ids: one for each message, or None in its place. A message that was appended under its client id
            before, or earlier in the list, is not added again; the first one is returned in its place.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: a message cannot be kept exactly, or there are not as many client ids or roles as
            messages; nothing was sent.
        """
        key = require_session_id(session_id)
        return await self._append(key, accept_messages(key, messages, role, client_ids))

    async def _append(self, key: UUID, pending: Sequence[PendingMessage]) -> list[SessionMessage]:
        now = self._now()
        batch = Batch(self._tenant_id, list(_unique(pending)), now, self._expiry(now))
        with (
            counted("repository", len(pending)),
            traced(self._server, "append", MESSAGES, session_id=key),
            database_errors("append messages"),
        ):
            with measured(self._server, "append", MESSAGES):
                appended = await self._db.run_sync(run_first, partial(_append, key=key, batch=batch))
            if appended is None:
                raise self._not_found(key)
            if self._loaded(key) is not None:
                await self._note_counters(key)
        self._limits.warn_if_long(key, appended.total_messages, self._tenant_id)
        return [appended.stored[identity_of(message)] for message in pending]

    async def _note_counters(self, key: UUID) -> None:
        columns = (getattr(Session, name) for name in Counters._fields)
        row = (await self._db.execute(select(*columns).where(*of_tenant(self._tenant_id, key)))).one()
        self._note(key, row._asdict())


def _unique(messages: Iterable[PendingMessage]) -> Iterable[PendingMessage]:
    """Return the first message of each key, in their order."""
    first: dict[Any, PendingMessage] = {}
    for message in messages:
        first.setdefault(identity_of(message), message)
    return first.values()


class _Appended(NamedTuple):
    """What is stored, by the identity of the messages, and how many the session holds if any was added, else 0."""

    stored: dict[Any, SessionMessage]
    total_messages: int


def _append(connection: Connection, key: UUID, batch: Batch) -> _Appended | None:
    """Append, and return what is stored; None: there is no such session."""
    # Once the session's row is locked, nobody else appends under the same client ids.
    if connection.execute(lock_sessions(connection.dialect.name, *one(batch.tenant_id, key))).first() is None:
        return None
    if not batch.messages:
        return _Appended({}, 0)
    placed = list(zip(batch.messages, append_many(connection, batch), strict=True))
    missing = [message.key for message, place in placed if place is None and message.key]
    earlier = find_earlier(connection, batch.tenant_id, missing)
    stored = {
        identity_of(message): batch.stored(message, place.seq) if place else earlier[identity_of(message)]
        for message, place in placed
    }
    return _Appended(stored, max((place.total_messages for _, place in placed if place), default=0))
