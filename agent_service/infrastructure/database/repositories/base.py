"""The base of every part of the session repository: the caller's database session, the tenant, limits and the clock."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.util import identity_key

from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.errors import SessionNotFoundError
from agent_service.core.tracing import Server
from agent_service.infrastructure.database.engine.servers import server_of
from agent_service.infrastructure.database.errors.sessions import session_not_found
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.limits import SessionLimits, limits_from_settings
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.reads import Read
from agent_service.infrastructure.database.queries.scope import one, visible
from agent_service.infrastructure.database.transactions.clock import database_now
from agent_service.infrastructure.database.transactions.own_sessions import accept_session
from agent_service.infrastructure.database.transactions.tenants import serve_tenant
from agent_service.infrastructure.database.values.validation import require_identifier, require_tenant

__all__ = ["MAX_ROWS", "RepositoryBase"]

T = TypeVar("T")

MAX_ROWS: Final = 1_000
"""Most sessions one call returns."""


class RepositoryBase:
    """Sessions of one tenant, within the caller's transaction: nothing is committed here.

    :param db: an open AsyncSession: from :func:`get_session`, or of the caller's own engine (aiosqlite or asyncpg).
    :param tenant_id: whose sessions these are; "" is a tenant like any other, never "all".
    :param limits: replaces what the settings say.
    :param clock: where "now" comes from. Without one, it is this host's clock for the stamps of what is written, and
        the database's for what decides about removing sessions: when one was deleted, is expired, is to be purged.
    :raises SessionValueError: ``db`` is a session that cannot be used.
    """

    def __init__(
        self,
        db: AsyncSession,
        tenant_id: str = "",
        *,
        limits: SessionLimits | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._tenant_id = require_tenant(tenant_id)
        self._db = accept_session(db)
        serve_tenant(self._db, self._tenant_id)
        self._limits = limits or limits_from_settings()
        self._clock = clock

    @property
    def tenant_id(self) -> str:
        """Whose sessions these are."""
        return self._tenant_id

    def _now(self) -> datetime:
        return self._clock.now()

    async def _database_now(self) -> datetime:
        return await database_now(self._db, self._clock)

    def _expiry(self, now: datetime) -> datetime:
        return now + self._limits.expiry

    def _server(self) -> Server:
        """Return where the session's database is, for traces and metrics."""
        return server_of(self._db.get_bind().engine)

    def _dialect(self) -> str:
        return self._db.get_bind().dialect.name

    def _scope(self, user_id: UUID | str | None = None) -> list[ColumnElement[bool]]:
        scope = list(visible(self._tenant_id))
        if user_id is not None:
            require_identifier(user_id, "user_id")
            scope.append(Session.user_id == user_id)
        return scope

    async def _objects(self, action: str, read: Read[T], values: Mapping[str, Any]) -> list[T]:
        """Run a prepared query as :meth:`_all` runs others."""
        with database_errors(action):
            return await self._db.run_sync(read.objects, values)

    async def _all(self, action: str, statement: Select[Any]) -> list[Any]:
        """Run a query and return its objects as the database has them now, even those that were loaded before."""
        with database_errors(action):
            rows = await self._db.scalars(statement, execution_options={"populate_existing": True})
            return list(rows)

    async def _first(self, action: str, statement: Select[Any]) -> Any:
        return next(iter(await self._all(action, statement.limit(1))), None)

    def _loaded(self, session_id: UUID) -> Session | None:
        loaded = self._db.sync_session.identity_map
        return loaded.get(identity_key(Session, (self._tenant_id, session_id))) if len(loaded) else None

    def _note(self, session_id: UUID, values: Mapping[str, Any]) -> None:
        """Bring a Session that is already loaded up to date with what a statement of ours just stored."""
        loaded = self._loaded(session_id)
        if loaded is not None:
            for name, value in values.items():
                set_committed_value(loaded, name, value)

    async def _require(self, key: UUID) -> Session:
        session: Session | None = await self._first("read a session", select(Session).where(*one(self._tenant_id, key)))
        if session is None:
            raise self._not_found(key)
        return session

    def _not_found(self, session_id: UUID) -> SessionNotFoundError:
        return session_not_found(session_id, self._tenant_id)
