"""Appending to a session: what every turn of a conversation writes."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast
from uuid import UUID

from sqlalchemy import select

from agent_service.core.errors import SessionConflictError
from agent_service.core.tracing import measured, traced
from agent_service.infrastructure.database.append.batch import Batch
from agent_service.infrastructure.database.append.measured import counted
from agent_service.infrastructure.database.append.message import PendingMessage, accept_message
from agent_service.infrastructure.database.append.statements import append_one
from agent_service.infrastructure.database.engine.servers import MESSAGES
from agent_service.infrastructure.database.errors.sessions import session_full
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import history
from agent_service.infrastructure.database.queries.scope import one
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.transactions.isolation import run_first
from agent_service.infrastructure.database.values.validation import (
    MAX_SEQ,
    MAX_VERSION,
    optional_count,
)

__all__ = ["SessionMessages"]


class SessionMessages(RepositoryBase):
    """The part of the repository that appends what is said in a session."""

    async def add_message_to_session(
        self,
        session_id: UUID | str,
        message: Mapping[str, Any],
        *,
        role: str | None = None,
        client_id: str | None = None,
        expected_seq: int | None = None,
        expected_version: int | None = None,
    ) -> SessionMessage:
        """Append a message and return it as stored, with its sequence number.

        One atomic statement. It also counts the message and its ``token_count``, and moves ``last_activity_at`` and
        ``expires_at`` on. Past SESSION_MAX_MESSAGES a warning is logged and the message is added all the same.

        :param message: a dict with a ``role``, a ``content`` (text, None or a list of parts) and any further JSON.
        :param role: of a message that has none, such as an item or event of a framework: any JSON object, which is
            stored as it is. A message with a role keeps its own.
        :param client_id: the caller's own id of this message. Appending it again adds nothing and gives the first one.
        :param expected_seq: append only if this is the session's ``last_seq`` (0: none yet).
        :param expected_version: append only if this is the session's ``version``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: an expectation does not hold.
        :raises SessionValueError: the message cannot be kept exactly; nothing was sent.
        """
        pending = accept_message(session_id, message, client_id, role)
        seq = optional_count(expected_seq, "expected_seq", most=MAX_SEQ)
        version = optional_count(expected_version, "expected_version", most=MAX_VERSION)
        now = self._clock.now()
        batch = Batch(self._tenant_id, (pending,), now, now + self._limits.expiry)
        append = partial(append_one, batch=batch, expected_seq=seq, expected_version=version)
        with counted("repository"), traced(self._server, "append", MESSAGES, session_id=pending.session_id):
            with measured(self._server, "append", MESSAGES), database_errors("append a message"):
                counters = await self._db.run_sync(run_first, append)
            if counters is None:
                return await self._explain(pending, seq, version)
        self._note(pending.session_id, counters._asdict())
        self._limits.warn_if_long(pending.session_id, counters.total_messages, self._tenant_id)
        return batch.stored(pending, counters.last_seq)

    async def _explain(self, message: PendingMessage, seq: int | None, version: int | None) -> SessionMessage:
        """Find out why nothing was appended: the message is there already, or an error says what is wrong."""
        key = message.session_id
        session = await self._first("append a message", select(Session).where(*one(self._tenant_id, key)))
        if session is None:
            raise self._not_found(key)
        if message.client_id is not None:
            by_client_id = history.by_client_id(self._tenant_id, key, message.client_id)
            stored = await self._first("append a message", by_client_id)
            if stored is not None:
                return cast("SessionMessage", stored)
        if session.last_seq >= MAX_SEQ or session.total_tokens > MAX_SEQ - (message.token_count or 0):
            raise session_full(key, session.last_seq, session.total_tokens)
        expected = {"last_seq": seq, "version": version}
        wanted = ", ".join(f"{name} {value}" for name, value in expected.items() if value is not None)
        raise SessionConflictError(
            f"session {key} is at last_seq {session.last_seq}, version {session.version}; "
            f"the message expected {wanted}; read what is new and decide again",
            version=session.version,
        )
