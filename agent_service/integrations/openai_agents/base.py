"""The base of every part of a session: where its rows are, whose they are, and one transaction for each call."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from agent_service.core.errors import SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.infrastructure.database.transactions.isolation import one_snapshot
from agent_service.infrastructure.database.values.validation import require_identifier
from agent_service.integrations.openai_agents.owner import Owner, Owners, TenantId, UserId
from agent_service.integrations.openai_agents.sdk import settings_of

if TYPE_CHECKING:
    from agents import SessionSettings

    from agent_service.integrations.openai_agents.sdk import Wrapper

__all__ = ["SessionBase"]

T = TypeVar("T")


class SessionBase:
    """What the parts of :class:`DatabaseSession` share."""

    session_id: str
    if TYPE_CHECKING:
        session_settings: SessionSettings | None  # As the protocol has it; type checkers refuse a property there.
    else:

        @property
        def session_settings(self) -> "SessionSettings | None":
            """The SDK's settings of this session; ``limit`` is how many items ``get_items`` returns by default."""
            if self._settings is None:
                self._settings = settings_of(None)
            return self._settings

        @session_settings.setter
        def session_settings(self, given: "SessionSettings | dict[str, Any] | None") -> None:
            self._settings = settings_of(given)

    def __init__(
        self,
        session_id: str,
        *,
        user_id: UserId,
        tenant_id: TenantId = "",
        agent_id: str | None = None,
        database: DatabaseManager | None = None,
        writer: SessionWriter | None = None,
        session_settings: "SessionSettings | dict[str, Any] | None" = None,
    ) -> None:
        self.session_id = require_identifier(session_id, "session_id")
        self._settings: SessionSettings | None = None
        if session_settings is not None:
            self.session_settings = settings_of(session_settings)
        self._owners = Owners(user_id, tenant_id)
        self._agent_id = None if agent_id is None else require_identifier(agent_id, "agent_id")
        if database is not None and not isinstance(database, DatabaseManager):
            raise SessionValueError(f"database must be a DatabaseManager, got {type(database).__name__}")
        if writer is not None and not isinstance(writer, SessionWriter):
            raise SessionValueError(f"writer must be a SessionWriter, got {type(writer).__name__}")
        self._database = database
        self._writer = writer
        self._known: tuple[Owner, UUID] | None = None
        self._same: Callable[..., Any] = partial(
            type(self),
            user_id=user_id,
            tenant_id=tenant_id,
            agent_id=agent_id,
            database=database,
            writer=writer,
            session_settings=session_settings,
        )
        """Makes a session of another id in the same place."""

    def _owner(self, wrapper: "Wrapper | None") -> Owner:
        return self._owners.of(wrapper)

    async def _reading(self, owner: Owner, work: Callable[[SessionRepository, UUID], Awaitable[T]], nothing: T) -> T:
        """Read what the session is at one moment, however many statements that takes.

        :param nothing: the answer where there is no such session.
        """
        return await self._attempt(owner, self._look_up, work, nothing, one_moment=True)

    async def _changing(self, owner: Owner, work: Callable[[SessionRepository, UUID], Awaitable[T]], nothing: T) -> T:
        """Change the session in one transaction, or answer ``nothing`` where there is none."""
        return await self._attempt(owner, self._look_up, work, nothing)

    async def _writing(self, owner: Owner, work: Callable[[SessionRepository, UUID], Awaitable[T]]) -> T:
        """Change the session in one transaction, which stores it first where there is none."""
        return await self._attempt(owner, self._create, work, cast("T", None))

    async def _existing(self, owner: Owner) -> UUID:
        """Return the session's own id, once it is committed; store it first where there is none."""
        known = self._known_to(owner)
        return await self._writing(owner, _own_id) if known is None else known

    def _known_to(self, owner: Owner) -> UUID | None:
        return self._known[1] if self._known is not None and self._known[0] == owner else None

    def _forget(self) -> None:
        self._known = None

    def _place(self) -> DatabaseManager:
        return get_database() if self._database is None else self._database

    async def _attempt(
        self,
        owner: Owner,
        find: Callable[[SessionRepository, Owner], Awaitable[UUID | None]],
        work: Callable[[SessionRepository, UUID], Awaitable[T]],
        nothing: T,
        *,
        one_moment: bool = False,
    ) -> T:
        async def transact(key: UUID | None) -> T:
            async with self._place().session(read_committed=not one_moment) as db:
                repo = SessionRepository(db, owner.tenant_id)
                if one_moment:
                    await one_snapshot(db)
                key = key or await find(repo, owner)
                result = nothing if key is None else await work(repo, key)
            if key is not None:
                self._known = owner, key
            return result

        known = self._known_to(owner)
        try:
            return await transact(known)
        except SessionNotFoundError:
            if known is None:
                raise
        # It was removed since, and there may be another one of this session_id.
        self._forget()
        return await transact(None)

    async def _look_up(self, repo: SessionRepository, owner: Owner) -> UUID | None:
        session = await repo.get_by_external_id(self.session_id)
        if session is None:
            return None
        if str(session.user_id) != str(owner.user_id):
            raise SessionConflictError(f"the session of session_id {self.session_id!r} is another user's")
        return session.id

    async def _create(self, repo: SessionRepository, owner: Owner) -> UUID:
        session = await repo.get_or_create(self.session_id, user_id=owner.user_id, agent_id=self._agent_id)
        return session.id


async def _own_id(_repo: SessionRepository, key: UUID) -> UUID:
    return key
