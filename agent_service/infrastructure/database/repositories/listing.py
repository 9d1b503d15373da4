"""Sessions in lists: of a user or an agent, by page or cursor, and counted."""

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.queries.listing import counted, ids_of, listed
from agent_service.infrastructure.database.queries.scope import visible
from agent_service.infrastructure.database.repositories.base import MAX_ROWS, RepositoryBase
from agent_service.infrastructure.database.repositories.results import CursorPage, PaginatedResult
from agent_service.infrastructure.database.values.validation import require_count, require_identifier, require_text

__all__ = ["SessionListing"]

_MAX_OFFSET: Final = 2**31 - 1
_PAGE: Final = 500
"""Sessions that one statement of :meth:`SessionListing.iter_sessions` reads."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SessionListing(RepositoryBase):
    """The part of the repository that lists.

    Every list is ordered by the latest activity first, and by id where that is equal. "Active" is: status ACTIVE and
    not expired.
    """

    async def get_user_sessions(
        self,
        user_id: UUID | str,
        active_only: bool = True,
        limit: int = 50,
        offset: int = 0,
    ) -> list[Session]:
        """Return a user's sessions. ``limit`` is 1 to 1,000."""
        return await self._list(self._of_user(user_id, active_only=active_only), limit, offset)

    async def get_recent_sessions(self, user_id: UUID | str, *, hours: float = 24.0, limit: int = 50) -> list[Session]:
        """Return a user's sessions with activity in the last ``hours``, active or not."""
        if not isinstance(hours, int | float) or isinstance(hours, bool) or not 0 < hours <= 876_000:
            raise SessionValueError(f"hours must be a number above 0, up to 876000, got {hours!r:.80}")
        since = self._now() - timedelta(hours=hours)
        return await self._list({**self._of_user(user_id), "since": since}, limit)

    async def get_sessions_by_agent(
        self, agent_id: str, *, active_only: bool = False, limit: int = 50, offset: int = 0
    ) -> list[Session]:
        """Return an agent's sessions with all users."""
        wanted = {**self._wanted(active_only=active_only), "agent_id": require_identifier(agent_id, "agent_id")}
        return await self._list(wanted, limit, offset)

    async def get_session_by_title(self, user_id: UUID | str, title: str) -> Session | None:
        """Return the user's latest session with exactly this title, or None."""
        wanted = {**self._of_user(user_id), "title": require_text(title, "title")}
        return next(iter(await self._list(wanted, 1)), None)

    async def get_paginated_user_sessions(
        self,
        user_id: UUID | str,
        page: int = 1,
        page_size: int = 20,
        *,
        status: SessionStatus | str | None = None,
        agent_id: str | None = None,
    ) -> PaginatedResult[Session]:
        """Return one page of a user's sessions with the total. Deep pages cost their offset; a cursor does not.

        :param page: 1 is the first.
        :param page_size: 1 to 1,000.
        :param status: only sessions with this stored status.
        :raises SessionValueError: if page, size or status is invalid.
        """
        require_count(page_size, "page_size", most=MAX_ROWS)
        require_count(page, "page", most=_MAX_OFFSET // page_size)
        wanted = self._of_user(user_id)
        if status is not None:
            wanted["status"] = SessionStatus.parse(status)
        if agent_id is not None:
            wanted["agent_id"] = require_identifier(agent_id, "agent_id")
        total = await self._count(wanted)
        items = await self._list(wanted, page_size, (page - 1) * page_size)
        return PaginatedResult(items, total, page, page_size)

    async def get_user_sessions_page(
        self, user_id: UUID | str, *, limit: int = 50, cursor: str | None = None
    ) -> CursorPage[Session]:
        """Return the next ``limit`` of a user's sessions; every page costs the same, however deep.

        :param cursor: ``next_cursor`` of the page before; None for the first page.
        :raises SessionValueError: if the cursor does not come from this method.
        """
        require_count(limit, "limit", most=MAX_ROWS)
        wanted = self._of_user(user_id)
        if cursor is not None:
            wanted["moment"], wanted["last_id"] = _decode_cursor(cursor)
        found = await self._read_list(wanted, limit + 1, 0)
        items = found[:limit]
        return CursorPage(items, _encode_cursor(items[-1]) if len(found) > limit else None)

    async def iter_sessions(
        self, *, user_id: UUID | str | None = None, agent_id: str | None = None
    ) -> AsyncIterator[Session]:
        """Return every session of a user, of an agent or of the tenant, ordered by id, a page of 500 at a time.

        One statement reads the ids, so none is left out or given twice because it changed meanwhile; what each session
        says is as its page finds it, and one that was deleted by then is left out. Read in the caller's transaction, so
        other statements may come between. Cost grows with the sessions returned; memory with 16 bytes for each.
        """
        wanted = self._wanted(user_id)
        if agent_id is not None:
            wanted["agent_id"] = require_identifier(agent_id, "agent_id")
        with database_errors("list sessions"):
            values = {**wanted, "tenant_id": self._tenant_id}
            ids = list(await self._db.scalars(ids_of(tuple(wanted)), values))
        for start in range(0, len(ids), _PAGE):
            page = select(Session).where(*visible(self._tenant_id), Session.id.in_(ids[start : start + _PAGE]))
            for session in await self._all("list sessions", page.order_by(Session.id)):
                yield session

    async def count_active_sessions(self, user_id: UUID | str | None = None) -> int:
        """Count the active sessions of a user, or of all."""
        return await self._count(self._wanted(user_id, active_only=True))

    def _of_user(self, user_id: UUID | str, *, active_only: bool = False) -> dict[str, Any]:
        """Return the values of conditions that name a user: None is nobody's, and not everybody's."""
        return self._wanted(require_identifier(user_id, "user_id"), active_only=active_only)

    def _wanted(self, user_id: UUID | str | None = None, *, active_only: bool = False) -> dict[str, Any]:
        """Return the values of a list's conditions; ``queries/listing.py`` knows the conditions."""
        wanted: dict[str, Any] = {}
        if user_id is not None:
            wanted["user_id"] = require_identifier(user_id, "user_id")
        if active_only:
            wanted["now"] = self._now()
        return wanted

    async def _list(self, wanted: Mapping[str, Any], limit: int, offset: int = 0) -> list[Session]:
        require_count(limit, "limit", most=MAX_ROWS)
        require_count(offset, "offset", least=0, most=_MAX_OFFSET)
        return await self._read_list(wanted, limit, offset)

    async def _read_list(self, wanted: Mapping[str, Any], limit: int, offset: int) -> list[Session]:
        values = {**wanted, "tenant_id": self._tenant_id, "limit": limit, "offset": offset}
        return await self._objects("list sessions", listed(tuple(wanted)), values)

    async def _count(self, wanted: Mapping[str, Any]) -> int:
        with database_errors("count sessions"):
            values = {**wanted, "tenant_id": self._tenant_id}
            total: int = await self._db.run_sync(counted(tuple(wanted)).scalar, values)
        return total


def _encode_cursor(session: Session) -> str:
    micros = (session.last_activity_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(micros.to_bytes(8, "big", signed=True) + session.id.bytes).decode()


def _decode_cursor(cursor: Any) -> tuple[datetime, UUID]:
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        return _EPOCH + int.from_bytes(raw[:8], "big", signed=True) * _MICROSECOND, UUID(bytes=raw[8:])
    except (TypeError, ValueError, OverflowError, binascii.Error) as exc:
        raise SessionValueError(f"cursor is none that a page gave: {cursor!r:.80}; start again with None") from exc
