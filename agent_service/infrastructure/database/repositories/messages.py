"""A session's history and its context: what every turn of a conversation reads and writes."""

from collections.abc import Mapping
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session as SyncSession

from agent_service.core.errors import SessionConflictError
from agent_service.core.logging import logger
from agent_service.infrastructure.database.documents import encode_document
from agent_service.infrastructure.database.errors import database_errors
from agent_service.infrastructure.database.incoming import accept_message
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import context as context_queries
from agent_service.infrastructure.database.queries import history
from agent_service.infrastructure.database.queries.append import Append, Counters, append
from agent_service.infrastructure.database.queries.scope import one
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.validation import require_count, require_identifier, require_session_id

__all__ = ["MAX_MESSAGES", "SessionMessages"]

MAX_MESSAGES: Final = 10_000
"""Most messages one call of ``get_messages`` returns."""

_MAX_SEQ = 2**63 - 1
_MAX_VERSION = 2**31 - 1


class SessionMessages(RepositoryBase):
    """The part of the repository that handles what is said in a session."""

    async def add_message_to_session(
        self,
        session_id: UUID | str,
        message: Mapping[str, Any],
        *,
        client_id: str | None = None,
        expected_seq: int | None = None,
        expected_version: int | None = None,
    ) -> SessionMessage:
        """Append a message and return it as stored, with its sequence number.

        One atomic statement. It also counts the message and its ``token_count``, and moves ``last_activity_at`` and
        ``expires_at`` on. Past SESSION_MAX_MESSAGES a warning is logged and the message is added all the same.

        :param message: a dict with a ``role``, a ``content`` (text, None or a list of parts) and any further JSON.
        :param client_id: the caller's own id of this message. Appending it again adds nothing and gives the first one.
        :param expected_seq: append only if this is the session's ``last_seq`` (0: none yet).
        :param expected_version: append only if this is the session's ``version``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: an expectation does not hold.
        :raises SessionValueError: the message cannot be kept exactly; nothing was sent.
        """
        now = self._now()
        order = Append(
            tenant_id=self._tenant_id,
            session_id=require_session_id(session_id),
            message=accept_message(message),
            now=now,
            expires_at=self._expiry(now),
            client_id=None if client_id is None else require_identifier(client_id, "client_id"),
            expected_seq=_optional(expected_seq, "expected_seq", _MAX_SEQ),
            expected_version=_optional(expected_version, "expected_version", _MAX_VERSION),
        )
        with database_errors("append a message"):
            counters = await self._db.run_sync(_append, order)
        if counters is None:
            return await self._explain(order)
        self._note(order.session_id, counters._asdict())
        self._warn_if_long(order.session_id, counters.total_messages)
        return SessionMessage.stored(
            session_id=order.session_id,
            seq=counters.last_seq,
            client_id=order.client_id,
            role=order.message.role,
            search_text=order.message.search_text,
            data=order.message.data,
            token_count=order.message.token_count,
            created_at=now,
        )

    async def _explain(self, order: Append) -> SessionMessage:
        """Find out why nothing was appended: the message is there already, or an error says what is wrong."""
        session = await self._first("append a message", select(Session).where(*one(self._tenant_id, order.session_id)))
        if session is None:
            raise self._not_found(order.session_id)
        if order.client_id is not None:
            by_client_id = history.by_client_id(self._tenant_id, order.session_id, order.client_id)
            stored = await self._first("append a message", by_client_id)
            if stored is not None:
                return cast("SessionMessage", stored)
        expected = {"last_seq": order.expected_seq, "version": order.expected_version}
        wanted = ", ".join(f"{name} {value}" for name, value in expected.items() if value is not None)
        raise SessionConflictError(
            f"session {order.session_id} is at last_seq {session.last_seq}, version {session.version}; "
            f"the message expected {wanted}; read what is new and decide again"
        )

    def _warn_if_long(self, session_id: UUID, count: int) -> None:
        if count > self._limits.max_messages:
            logger.warning(
                "session %s holds %d messages, more than SESSION_MAX_MESSAGES (%d)",
                session_id, count, self._limits.max_messages,
            )  # fmt: skip

    async def get_messages(
        self, session_id: UUID | str, *, limit: int = 50, before_seq: int | None = None, after_seq: int | None = None
    ) -> list[SessionMessage]:
        """Give up to ``limit`` messages in their order: the last ones, or the first ones after ``after_seq``.

        :param before_seq: only messages before this number.
        :param after_seq: only messages after this number.
        :raises SessionNotFoundError: there is no such session.
        """
        key = require_session_id(session_id)
        statement = history.window(
            self._tenant_id,
            key,
            limit=require_count(limit, "limit", most=MAX_MESSAGES),
            before_seq=_optional(before_seq, "before_seq", _MAX_SEQ),
            after_seq=_optional(after_seq, "after_seq", _MAX_SEQ),
        )
        messages = await self._all("read messages", statement)
        if not messages:
            await self._require(key)
        return messages if after_seq is not None else messages[::-1]

    async def pop_message(self, session_id: UUID | str) -> SessionMessage | None:
        """Remove the last message and return it; None when there is none. Its number is not given out again.

        :raises SessionNotFoundError: there is no such session.
        """
        key = require_session_id(session_id)
        lock = (
            update(Session)
            .where(*one(self._tenant_id, key), Session.total_messages > 0)
            .values(total_messages=Session.total_messages - 1, updated_at=self._now())
            .returning(Session.total_messages, Session.updated_at)
            .execution_options(synchronize_session=False)
        )
        with database_errors("remove a message"):
            counted = (await self._db.execute(lock)).first()
            if counted is not None:
                # The row's lock is held now, so the last message this statement sees stays the last one.
                message, total_tokens = await self._remove_last(key)
                self._note(key, {**counted._asdict(), "total_tokens": total_tokens})
                return message
        await self._require(key)
        return None

    async def _remove_last(self, key: UUID) -> tuple[SessionMessage, int]:
        last = select(func.max(SessionMessage.seq)).where(SessionMessage.session_id == key).scalar_subquery()
        columns = SessionMessage.__table__.c
        removed = delete(SessionMessage).where(SessionMessage.session_id == key, SessionMessage.seq == last)
        row = (
            await self._db.execute(removed.returning(*columns), execution_options={"synchronize_session": False})
        ).one()
        values = dict(
            zip(
                ("session_id", "seq", "client_id", "role", "search_text", "data", "token_count", "created_at"),
                row,
                strict=True,
            )
        )
        tokens = (
            update(Session)
            .where(Session.id == key)
            .values(total_tokens=Session.total_tokens - (values["token_count"] or 0))
            .returning(Session.total_tokens)
            .execution_options(synchronize_session=False)
        )
        return SessionMessage.stored(**values), (await self._db.execute(tokens)).scalar_one()

    async def update_session_context(
        self, session_id: UUID | str, context: Mapping[str, Any], *, expected_version: int | None = None
    ) -> dict[str, Any]:
        """Set the given keys of the context, keep the others, and return the whole; ``version`` counts up.

        Atomic: merges that happen at the same time all stay. None is a value like any other.

        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: ``expected_version`` is not the session's version.
        :raises SessionValueError: a value cannot be kept, U+0000 and lone surrogates among them; nothing was sent.
        """
        key = require_session_id(session_id)
        patch, _ = encode_document(context, "context", nul=False)
        version = _optional(expected_version, "expected_version", _MAX_VERSION)
        statement = context_queries.merge(self._dialect(), self._tenant_id, key, patch, version)
        with database_errors("update the context"):
            row = (await self._db.execute(statement)).first()
        if row is None:
            session = await self._require(key)
            raise SessionConflictError(
                f"session {key} is at version {session.version}, expected was {version}; read it and decide again"
            )
        self._note(key, {"version": row.version, "context": row.context})
        return dict(row.context)

    async def _require(self, key: UUID) -> Session:
        session = await self._first("read a session", select(Session).where(*one(self._tenant_id, key)))
        if session is None:
            raise self._not_found(key)
        return cast("Session", session)


def _append(db: SyncSession, order: Append) -> Counters | None:
    if db.new or db.dirty:
        db.flush()
    return append(db.connection(), order)


def _optional(value: int | None, name: str, most: int) -> int | None:
    return None if value is None else require_count(value, name, least=0, most=most)
