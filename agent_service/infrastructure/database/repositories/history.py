"""Reading the messages of a session."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm.attributes import set_committed_value

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import history, lineage
from agent_service.infrastructure.database.queries.lineage import Segment
from agent_service.infrastructure.database.queries.reads import Read, load_by_orm
from agent_service.infrastructure.database.queries.scope import one
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.repositories.token_window import TokenWindow
from agent_service.infrastructure.database.values.validation import (
    MAX_SEQ,
    optional_count,
    require_count,
    require_session_id,
    require_text,
)

__all__ = ["MAX_MESSAGES", "SessionHistory"]

MAX_MESSAGES: Final = 10_000
"""Most messages one call of ``get_messages`` returns."""
DEFAULT_LIMIT: Final = 50
PAGE: Final = 200
"""Messages that are in memory at once while a history is walked."""


class SessionHistory(RepositoryBase):
    """The part of the repository that reads what is said in a session."""

    async def get_messages(
        self,
        session_id: UUID | str,
        *,
        limit: int | None = None,
        before_seq: int | None = None,
        after_seq: int | None = None,
        roles: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> list[SessionMessage]:
        """Return messages in their order: the last ones, or the first ones after ``after_seq``.

        The cost is that of the messages read, however long the session is. With ``max_tokens`` as many are given as
        fit: a message costs its own ``token_count``, else an estimate of 4 characters a token. That window never ends
        between a tool call and its result: it rather ends before both. It is empty when not even the first fits.

        :param limit: 1 to 10,000; by default 50, and with ``max_tokens`` 10,000.
        :param before_seq: only messages before this number.
        :param after_seq: only messages after this number.
        :param roles: only messages of these roles; the others cost no tokens. A rare role is searched for backwards.
        :param max_tokens: tokens that the messages may cost together.
        :raises SessionNotFoundError: there is no such session.
        """
        key = require_session_id(session_id)
        budget = optional_count(max_tokens, "max_tokens", most=MAX_SEQ)
        default = DEFAULT_LIMIT if budget is None else MAX_MESSAGES
        most = require_count(default if limit is None else limit, "limit", most=MAX_MESSAGES)
        before = optional_count(before_seq, "before_seq", most=MAX_SEQ)
        after = optional_count(after_seq, "after_seq", most=MAX_SEQ)
        wanted = None if roles is None else _require_roles(roles)
        if budget is None:
            messages = await self._read(key, most, before, after, wanted)
            return messages if after is not None else messages[::-1]
        window = TokenWindow(budget, most, backward=after is None)
        async for message in self._walk(key, before, after, wanted):
            if not window.add(message):
                break
        return window.fitting()

    async def iter_messages(self, session_id: UUID | str) -> AsyncIterator[SessionMessage]:
        """Return every message from the first to the last one there is now, in constant memory.

        Read page by page in the caller's transaction, so other statements may come between.

        :raises SessionNotFoundError: there is no such session.
        """
        session = await self._require(require_session_id(session_id))
        async for message in self._walk(session.id, session.last_seq + 1, 0, None):
            yield message

    async def get_session_with_messages(self, session_id: UUID | str) -> Session | None:
        """Return a session with all its messages in ``session.messages``, or None. Long sessions: ``iter_messages``."""
        statement = select(Session).where(*one(self._tenant_id, require_session_id(session_id)))
        session: Session | None = await self._first("read a session", statement)
        if session is not None:
            if session.parent_session_id is None:
                messages = await self._all("read messages", history.everything(self._tenant_id, session.id))
            else:
                messages = [message async for message in self._walk_line(session.id, session.last_seq)]
            set_committed_value(session, "messages", messages)
        return session

    async def _walk(
        self, key: UUID, before: int | None, after: int | None, roles: Sequence[str] | None
    ) -> AsyncIterator[SessionMessage]:
        while True:
            page = await self._read(key, PAGE, before, after, roles)
            for message in page:
                yield message
            if len(page) < PAGE:
                return
            if after is None:
                before = page[-1].seq
            else:
                after = page[-1].seq

    async def _read(
        self, key: UUID, limit: int, before: int | None, after: int | None, roles: Sequence[str] | None
    ) -> list[SessionMessage]:
        """Return messages in the order they are counted from; of a fork, its ancestors' too."""
        values, bounds = _values(self._tenant_id, key, limit, before, after)
        rows = await self._messages(history.window(bounds), values, roles)
        parent = rows[0][1] if rows else (await self._require(key)).parent_session_id
        if parent is None:
            return [message for message, _ in rows]
        return await self._read_along(key, limit, before, after, roles)

    async def _walk_line(self, key: UUID, last_seq: int) -> AsyncIterator[SessionMessage]:
        """Return everything a session shows, whether the session itself is hidden or not."""
        after = 0
        while page := await self._read_along(key, PAGE, last_seq + 1, after, None):
            for message in page:
                yield message
            after = page[-1].seq

    async def _read_along(
        self, key: UUID, limit: int, before: int | None, after: int | None, roles: Sequence[str] | None
    ) -> list[SessionMessage]:
        line = await self._segments(key)
        while True:
            messages = await self._read_line(line, limit, before, after, roles)
            now = await self._segments(key)
            if now == line:
                return messages
            line = (
                now  # An ancestor's messages were copied to forks meanwhile; a reader between its rows could miss them.
            )

    async def _read_line(
        self, line: list[Segment], limit: int, before: int | None, after: int | None, roles: Sequence[str] | None
    ) -> list[SessionMessage]:
        messages: list[SessionMessage] = []
        for owner, upto in line if after is None else line[::-1]:
            end = min(upto, MAX_SEQ if before is None else before - 1)
            if len(messages) < limit and end > (after or 0):
                values, bounds = _values(self._tenant_id, owner, limit - len(messages), min(end + 1, MAX_SEQ), after)
                messages += [each for each, _ in await self._messages(history.own(bounds), values, roles)]
        return messages

    async def _messages(
        self, read: Read[SessionMessage], values: Mapping[str, Any], roles: Sequence[str] | None
    ) -> list[tuple[SessionMessage, UUID | None]]:
        with database_errors("read messages"):
            if roles is None:
                return await self._db.run_sync(read.pairs, values)
            # A list of any length is no parameter; the ORM writes one for each role.
            statement = read.statement.where(SessionMessage.role.in_(roles))
            return await self._db.run_sync(load_by_orm, statement, values)

    async def _segments(self, key: UUID) -> list[Segment]:
        with database_errors("read messages"):
            return [Segment(*row) for row in await self._db.execute(lineage.segments(self._tenant_id, key))]


def _values(
    tenant_id: str, session_id: UUID, limit: int, before: int | None, after: int | None
) -> tuple[dict[str, Any], history.Bounds]:
    """Return the parameters of a read of messages, and which of its bounds are given."""
    bounds = {name: each for name, each in (("before_seq", before), ("after_seq", after)) if each is not None}
    return {"tenant_id": tenant_id, "session_id": session_id, "limit": limit, **bounds}, tuple(bounds)


def _require_roles(roles: Any) -> list[str]:
    if isinstance(roles, str | bytes) or not isinstance(roles, Iterable):
        raise SessionValueError(f"roles must be a list such as ['user', 'assistant'], got {roles!r:.80}")
    return [require_text(each, f"roles[{index}]") for index, each in enumerate(roles)]
