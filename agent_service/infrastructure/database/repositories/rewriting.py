"""Removing what was said last in a session: one message, all of them, or an end that others take the place of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from agent_service.core.errors import SessionConflictError, SessionValueError
from agent_service.infrastructure.database.append.message import PendingMessage, accept_messages
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.maintenance.suffix import remove_suffix
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.catalog import channel_of
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.lineage import counted
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.scope import of_tenant, one
from agent_service.infrastructure.database.queries.session_keys import SessionKey
from agent_service.infrastructure.database.queries.truncations import TRUNCATIONS, announce, removed_again
from agent_service.infrastructure.database.repositories.batches import SessionBatches
from agent_service.infrastructure.database.repositories.history import SessionHistory
from agent_service.infrastructure.database.values.validation import (
    MAX_SEQ,
    optional_count,
    require_count,
    require_session_id,
)

__all__ = ["SessionRewriting"]

_UNSYNCHRONIZED: Any = {"synchronize_session": False}


class SessionRewriting(SessionBatches, SessionHistory):
    """The part of the repository that removes messages, and puts others in their place.

    Numbers are never given out again: new messages go on after ``last_seq``, which removing does not change, without
    gaps among them. So a history has a gap where messages were removed, and nowhere else. Forks keep what they show.
    """

    async def pop_message(self, session_id: UUID | str) -> SessionMessage | None:
        """Remove the last message and return it, or None when there is none. Its number is not given out again.

        However many callers pop at once, each gets a message of its own. Forks of the session keep the message; a fork
        that has none of its own left stops showing its parent's last. Subscriptions are not told:
        :meth:`replace_suffix` does that.

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
            counts = (await self._db.execute(lock)).first()
        if counts is None:
            await self._require(key)
            return None
        # The row is locked now, so the last message stays the last one.
        (message,) = await self._read(key, 1, None, None, None)
        self._db.expunge(message)
        with database_errors("remove a message"):
            await self._remove(key, message.seq, message.seq)
            tokens = Session.total_tokens - (message.token_count or 0)
            fork_seq = {} if message.session_id == key else {"fork_seq": message.seq - 1}
            stored = await self._set(key, total_tokens=tokens, **fork_seq)
        self._note(key, {**counts._asdict(), **stored})
        return message

    async def clear_messages(self, session_id: UUID | str, *, expected_seq: int | None = None) -> int:
        """Remove all messages and keep the session, with its id, context and ``last_seq``; return how many there were.

        What :meth:`replace_suffix` says of removing holds here too.

        :param expected_seq: clear only if this is the session's ``last_seq``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: the expectation does not hold; nothing was changed.
        """
        key = require_session_id(session_id)
        removed, _ = await self._rewrite(key, 1, (), expected_seq)
        return removed

    async def replace_suffix(
        self,
        session_id: UUID | str,
        from_seq: int,
        messages: Iterable[Mapping[str, Any]],
        *,
        role: str | Sequence[str | None] | None = None,
        client_ids: Sequence[str | None] | None = None,
        expected_seq: int | None = None,
    ) -> list[SessionMessage]:
        """Remove the messages numbered ``from_seq`` and above, append others, and return these as stored.

        All or nothing, and nobody sees a state in between. The new ones are numbered after ``last_seq``. It counts
        ``version`` up, which appending does not: a reader's ``expected_version`` notices that messages were removed.
        Subscriptions with ``truncations=True`` are told.

        :param from_seq: 1 to the session's ``last_seq`` + 1, which removes nothing.
        :param messages: as for :meth:`add_messages_to_session`, as are ``role`` and ``client_ids``; none removes only.
            A client id whose message is removed is free again.
        :param expected_seq: replace only if this is the session's ``last_seq``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: the expectation does not hold; nothing was changed.
        :raises SessionValueError: a message cannot be kept exactly, or the session has not come as far as ``from_seq``;
            nothing was changed.
        """
        key = require_session_id(session_id)
        first = require_count(from_seq, "from_seq", most=MAX_SEQ)
        _, stored = await self._rewrite(key, first, accept_messages(key, messages, role, client_ids), expected_seq)
        return stored

    async def _rewrite(
        self, key: UUID, first: int, pending: Sequence[PendingMessage], expected_seq: int | None
    ) -> tuple[int, list[SessionMessage]]:
        wanted = optional_count(expected_seq, "expected_seq", most=MAX_SEQ)
        with database_errors("remove messages"):
            async with self._db.begin_nested():
                found = await self._lock(key, first, wanted)
                gone = (await self._db.execute(counted(*of_tenant(self._tenant_id, key), above=first - 1))).first()
                if gone is not None:
                    self._note(key, await self._take_out(key, first, found, gone))
                stored = await self._append(key, pending) if pending else []
        return gone.messages if gone is not None else 0, stored

    async def _lock(self, key: UUID, first: int, wanted: int | None) -> Any:
        """Lock a session, and the ancestors whose messages it may hand down; return last_seq and truncations."""
        line = [owner for owner, _ in await self._segments(key)]
        family = (Session.tenant_id == self._tenant_id, Session.id.in_(line))
        await self._db.execute(lock_sessions(self._dialect(), *family))
        state = select(Session.last_seq, TRUNCATIONS).where(*one(self._tenant_id, key))
        found = (await self._db.execute(state)).first()
        if found is None:
            raise self._not_found(key)
        if wanted is not None and found.last_seq != wanted:
            raise SessionConflictError(
                f"session {key} is at last_seq {found.last_seq}, expected was {wanted}; read what is new, decide again"
            )
        if first > found.last_seq + 1:
            raise SessionValueError(
                f"from_seq must be at most {found.last_seq + 1}, after the last of session {key}, got {first}"
            )
        return found

    async def _take_out(self, key: UUID, first: int, found: Any, gone: Any) -> dict[str, Any]:
        """Remove what was counted, and return what the session's row says now."""
        await self._remove(key, first, found.last_seq)
        of_session = of_tenant(self._tenant_id, key)
        shown = update(Session).where(*of_session, Session.fork_seq >= first).values(fork_seq=first - 1)
        await self._db.execute(shown, execution_options=_UNSYNCHRONIZED)
        removed = removed_again(found.truncations, found.last_seq, first)
        await self._db.execute(update(Session.__table__).where(*of_session).values(truncations=removed))  # type: ignore[arg-type]
        if self._dialect() == "postgresql":
            connection = await self._db.connection()
            channel = await connection.run_sync(lambda sync: channel_of(sync, names_of(sync)))
            await self._db.execute(announce(channel, self._tenant_id, key))
        return await self._set(
            key,
            total_messages=Session.total_messages - gone.messages,
            total_tokens=Session.total_tokens - int(gone.tokens),
            version=Session.version + 1,
            updated_at=self._now(),
        )

    async def _remove(self, key: UUID, first: int, last: int) -> None:
        for fork_id in await remove_suffix(self._db, SessionKey(self._tenant_id, key), first, last):
            self._note(fork_id, {"fork_seq": first - 1})

    async def _set(self, key: UUID, **values: Any) -> dict[str, Any]:
        """Store values of a session, and return what is stored now."""
        columns = [getattr(Session, name) for name in ("fork_seq", *values) if name != "fork_seq"]
        changed = update(Session).where(*of_tenant(self._tenant_id, key)).values(**values)
        returning = changed.returning(Session.fork_seq, *columns)
        return (await self._db.execute(returning, execution_options=_UNSYNCHRONIZED)).one()._asdict()
