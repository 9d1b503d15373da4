"""Sums over many sessions, from counters; and a recount that checks the counters."""

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any, Final, Literal, overload
from uuid import UUID

from sqlalchemy import select, update

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.lineage import counted
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.scope import of_tenant
from agent_service.infrastructure.database.queries.stats import GroupBy, totals
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.repositories.results import CounterDrift, SessionStats
from agent_service.infrastructure.database.values.validation import (
    require_identifier,
    require_moment,
    require_session_id,
)

__all__ = ["SessionStatistics"]

_PAGE: Final = 500
"""Sessions that are recounted by one statement."""


class SessionStatistics(RepositoryBase):
    """The part of the repository that sums up."""

    @overload
    async def get_session_stats(
        self,
        user_id: UUID | str | None = None,
        *,
        agent_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        group_by: None = None,
    ) -> SessionStats: ...
    @overload
    async def get_session_stats(
        self,
        user_id: UUID | str | None = None,
        *,
        agent_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        group_by: Literal["agent"],
    ) -> dict[str | None, SessionStats]: ...
    @overload
    async def get_session_stats(
        self,
        user_id: UUID | str | None = None,
        *,
        agent_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        group_by: Literal["day"],
    ) -> dict[date, SessionStats]: ...
    async def get_session_stats(
        self,
        user_id: UUID | str | None = None,
        *,
        agent_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        group_by: GroupBy | None = None,
    ) -> SessionStats | dict[str | None, SessionStats] | dict[date, SessionStats]:
        """Sum up the tenant's sessions from counters that every append keeps: messages are not scanned.

        A fork counts what it shows.

        :param user_id: only this user's sessions.
        :param agent_id: only this agent's sessions.
        :param since: only sessions created at this moment or later.
        :param until: only sessions created before this moment.
        :param group_by: ``"agent"`` gives a dict of sums by ``agent_id``; ``"day"`` one by the day of creation in UTC.
            Agents and days without sessions are left out; days come in order.
        """
        if group_by not in (None, "agent", "day"):
            raise SessionValueError(f"group_by must be None, 'agent' or 'day', got {group_by!r:.80}")
        scope = self._scope(user_id)
        if agent_id is not None:
            scope.append(Session.agent_id == require_identifier(agent_id, "agent_id"))
        if since is not None:
            scope.append(Session.created_at >= require_moment(since, "since"))
        if until is not None:
            scope.append(Session.created_at < require_moment(until, "until"))
        statement = totals(self._dialect(), self._now(), group_by, *scope)
        with database_errors("sum up sessions"):
            rows = [dict(row) for row in (await self._db.execute(statement)).mappings()]
        if group_by is None:
            return _stats(rows[0])
        return {row.pop("key"): _stats(row) for row in rows}

    async def recount(self, session_id: UUID | str | None = None) -> list[CounterDrift]:
        """Count the messages of a session, or of all the tenant's, row by row, and repair wrong counters.

        It reads every message. Sessions are locked only while their own counters are repaired, in the caller's
        transaction.

        :return: the counters that were wrong; an empty list means that all were right.
        :raises SessionNotFoundError: there is no such session.
        """
        if session_id is not None:
            session = await self._require(require_session_id(session_id))
            return await self._repair([session.id]) if await self._suspects([session.id]) else []
        found: list[CounterDrift] = []
        last: UUID | None = None
        while page := await self._ids(last):
            found += await self._repair(await self._suspects(page))
            last = page[-1]
        return found

    async def _ids(self, after: UUID | None) -> list[UUID]:
        statement = select(Session.id).where(*self._scope()).order_by(Session.id).limit(_PAGE)
        with database_errors("recount sessions"):
            return list(await self._db.scalars(statement if after is None else statement.where(Session.id > after)))

    async def _suspects(self, ids: list[UUID]) -> list[UUID]:
        return [drift.session_id for drift in await self._compare(ids)]

    async def _repair(self, suspects: list[UUID]) -> list[CounterDrift]:
        """Compare again while the rows are locked: an append may have come between the two readings."""
        if not suspects:
            return []
        with database_errors("recount sessions"):
            await self._db.execute(lock_sessions(self._dialect(), *self._scope(), Session.id.in_(suspects)))
        drifts = await self._compare(suspects)
        with database_errors("recount sessions"):
            for drift in drifts:
                values = drift.counted()
                statement = update(Session).where(*of_tenant(self._tenant_id, drift.session_id)).values(**values)
                await self._db.execute(statement, execution_options={"synchronize_session": False})
                self._note(drift.session_id, values)
        return drifts

    async def _compare(self, ids: Iterable[UUID]) -> list[CounterDrift]:
        wanted = (Session.tenant_id == self._tenant_id, Session.id.in_(list(ids)))
        counters = select(Session.id, Session.total_messages, Session.total_tokens, Session.last_seq).where(*wanted)
        with database_errors("recount sessions"):
            stored = (await self._db.execute(counters)).all()
            rows = {row.id: row for row in await self._db.execute(counted(*wanted))}
        return [drift for each in stored if (drift := _drift(each, rows.get(each.id))) is not None]


def _stats(row: dict[str, Any]) -> SessionStats:
    return SessionStats(**{name: int(value) for name, value in row.items()})


def _drift(stored: Any, row: Any) -> CounterDrift | None:
    messages, tokens, last_seq = (row.messages, int(row.tokens), row.last_seq) if row else (0, 0, 0)
    drift = CounterDrift(
        session_id=stored.id,
        total_messages=(stored.total_messages, messages),
        total_tokens=(stored.total_tokens, tokens),
        last_seq=(stored.last_seq, max(stored.last_seq, last_seq)),
    )
    return drift if drift.wrong else None
