"""Sessions in lists: of a user or an agent, by page or cursor, and counted."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, tuple_

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories.base import MAX_ROWS, RepositoryBase
from agent_service.infrastructure.database.repositories.results import CursorPage, PaginatedResult
from agent_service.infrastructure.database.values.validation import require_count, require_identifier, require_text

__all__ = ["SessionListing"]

_MAX_OFFSET: Final = 2**31 - 1
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
        return await self._list(self._scope(user_id, active_only=active_only), limit, offset)

    async def get_recent_sessions(self, user_id: UUID | str, *, hours: float = 24.0, limit: int = 50) -> list[Session]:
        """Return a user's sessions with activity in the last ``hours``, active or not."""
        if not isinstance(hours, int | float) or isinstance(hours, bool) or not 0 < hours <= 876_000:
            raise SessionValueError(f"hours must be a number above 0, up to 876000, got {hours!r:.80}")
        since = self._now() - timedelta(hours=hours)
        return await self._list([*self._scope(user_id), Session.last_activity_at >= since], limit)

    async def get_sessions_by_agent(
        self, agent_id: str, *, active_only: bool = False, limit: int = 50, offset: int = 0
    ) -> list[Session]:
        """Return an agent's sessions with all users."""
        scope = self._scope(active_only=active_only)
        return await self._list([*scope, Session.agent_id == require_identifier(agent_id, "agent_id")], limit, offset)

    async def get_session_by_title(self, user_id: UUID | str, title: str) -> Session | None:
        """Return the user's latest session with exactly this title, or None."""
        scope = [*self._scope(user_id), Session.title == require_text(title, "title")]
        return next(iter(await self._list(scope, 1)), None)

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
        scope = self._scope(user_id)
        if status is not None:
            scope.append(Session.status == SessionStatus.parse(status))
        if agent_id is not None:
            scope.append(Session.agent_id == require_identifier(agent_id, "agent_id"))
        total = await self._count(scope)
        items = await self._list(scope, page_size, (page - 1) * page_size)
        return PaginatedResult(items, total, page, page_size)

    async def get_user_sessions_page(
        self, user_id: UUID | str, *, limit: int = 50, cursor: str | None = None
    ) -> CursorPage[Session]:
        """Return the next ``limit`` of a user's sessions; every page costs the same, however deep.

        :param cursor: ``next_cursor`` of the page before; None for the first page.
        :raises SessionValueError: if the cursor does not come from this method.
        """
        require_count(limit, "limit", most=MAX_ROWS)
        scope = self._scope(user_id)
        if cursor is not None:
            position = tuple_(Session.last_activity_at, Session.id)
            scope.append(
                position < tuple_(*_decode_cursor(cursor), types=[Session.last_activity_at.type, Session.id.type])
            )
        found = await self._all("list sessions", _ordered(scope).limit(limit + 1))
        items = found[:limit]
        return CursorPage(items, _encode_cursor(items[-1]) if len(found) > limit else None)

    async def count_active_sessions(self, user_id: UUID | str | None = None) -> int:
        """Count the active sessions of a user, or of all."""
        return await self._count(self._scope(user_id, active_only=True))

    async def _list(self, scope: list[ColumnElement[bool]], limit: int, offset: int = 0) -> list[Session]:
        require_count(limit, "limit", most=MAX_ROWS)
        require_count(offset, "offset", least=0, most=_MAX_OFFSET)
        return await self._all("list sessions", _ordered(scope).limit(limit).offset(offset))

    async def _count(self, scope: list[ColumnElement[bool]]) -> int:
        with database_errors("count sessions"):
            return (await self._db.execute(select(func.count()).select_from(Session).where(*scope))).scalar_one()


def _ordered(scope: list[ColumnElement[bool]]) -> Select[Any]:
    return select(Session).where(*scope).order_by(Session.last_activity_at.desc(), Session.id.desc())


def _encode_cursor(session: Session) -> str:
    micros = (session.last_activity_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(micros.to_bytes(8, "big", signed=True) + session.id.bytes).decode()


def _decode_cursor(cursor: Any) -> tuple[datetime, UUID]:
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        return _EPOCH + int.from_bytes(raw[:8], "big", signed=True) * _MICROSECOND, UUID(bytes=raw[8:])
    except (TypeError, ValueError, OverflowError, binascii.Error) as exc:
        raise SessionValueError(f"cursor is none that a page gave: {cursor!r:.80}; start again with None") from exc
