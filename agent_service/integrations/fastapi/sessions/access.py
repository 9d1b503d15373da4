"""Who may do what: the application's ``authorize`` decides, and every route asks."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from fastapi import Depends, HTTPException, Path, Query, Security, status

from agent_service.core.errors import ConfigurationError, SessionNotFoundError
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.values.validation import require_identifier, require_tenant
from agent_service.integrations.fastapi.conditions import IfMatch, require_version
from agent_service.integrations.fastapi.dependencies.database import Sessions
from agent_service.integrations.fastapi.dependencies.tenancy import Tenant

__all__ = ["Access", "Authorize", "Caller", "Operation", "SessionId", "named", "not_found", "permitted"]

Authorize: TypeAlias = Callable[..., Any]

SessionId: TypeAlias = Annotated[UUID, Path(description="The session's id.")]


class Operation(StrEnum):
    """What a request wants to do. ``authorize`` is told it as its security scope."""

    CREATE = "sessions:create"
    READ = "sessions:read"
    LIST = "sessions:list"
    SEARCH = "sessions:search"
    STATS = "sessions:stats"
    APPEND = "sessions:append"
    STREAM = "sessions:stream"
    FORK = "sessions:fork"
    UPDATE = "sessions:update"
    DELETE = "sessions:delete"
    EXPORT = "sessions:export"
    ERASE = "sessions:erase"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who makes a request, as ``authorize`` found out. Make a subclass to decide about single sessions.

    :param user_id: the user, as sessions have it.
    :param tenant_id: the user's tenant. It must be the tenant of the request, else the request is refused with 403.
    :param every_user: the caller may do everything with the sessions of every user of the tenant.
    :raises SessionValueError: an id that no session can have.
    """

    user_id: UUID | str
    tenant_id: str = ""
    every_user: bool = False

    def __post_init__(self) -> None:
        require_identifier(self.user_id, "user_id")
        require_tenant(self.tenant_id)

    def may(self, operation: Operation, session: Session) -> bool:  # noqa: ARG002 - for subclasses
        """Return whether the caller may do this with a session of the tenant.

        A session that the caller may not read does not exist for them: 404. Other operations are refused with 403.
        """
        return self.every_user or str(session.user_id) == str(self.user_id)

    def may_name(self, user_id: UUID | str) -> bool:
        """Return whether the caller may list, search, sum up, export or erase the sessions of this user."""
        return self.every_user or str(user_id) == str(self.user_id)


class Access:
    """The dependencies by which routes learn who asks, and get the session that was asked for."""

    def __init__(self, authorize: Authorize) -> None:
        if not callable(authorize):
            raise ConfigurationError(
                "authorize must be a FastAPI dependency that returns a Caller, or raises an HTTPException with 401 or "
                f"403; got {authorize!r:.80}"
            )
        self._callers = {each: Depends(_caller(authorize, each)) for each in Operation}

    def caller(self, operation: Operation) -> Any:
        """Return the dependency that is the :class:`Caller`, if the operation is permitted at all."""
        return self._callers[operation]

    def user(self, operation: Operation) -> Any:
        """Return the dependency that is the user whose sessions are asked for: ``user_id``, or the caller."""

        async def user_of(
            caller: Annotated[Caller, self.caller(operation)],
            user_id: Annotated[str | None, Query(description="Whose sessions; by default the caller's.")] = None,
        ) -> UUID | str:
            return named(caller, user_id)

        return Depends(user_of)

    def session(self, operation: Operation) -> Any:
        """Return the dependency that is the session, if the caller may do this with it."""

        async def session_of(
            session_id: SessionId, caller: Annotated[Caller, self.caller(operation)], sessions: Sessions
        ) -> Session:
            return permitted(caller, operation, await sessions.get(session_id), session_id)

        return Depends(session_of)

    def changing(self, operation: Operation) -> Any:
        """Return the dependency that is the session, for a change that If-Match may restrict.

        With If-Match the session stays locked until the change is committed, so that its version stands.
        """

        async def session_of(
            session_id: SessionId,
            caller: Annotated[Caller, self.caller(operation)],
            sessions: Sessions,
            condition: IfMatch,
        ) -> Session:
            found = await sessions.get(session_id, lock=condition is not None)
            session = permitted(caller, operation, found, session_id)
            require_version(session, condition)
            return session

        return Depends(session_of)


def _caller(authorize: Authorize, operation: Operation) -> Any:
    async def caller_of(
        caller: Annotated[Any, Security(authorize, scopes=[operation.value])], tenant: Tenant
    ) -> Caller:
        if not isinstance(caller, Caller):
            raise ConfigurationError(f"authorize must return a Caller, it returned {type(caller).__name__}")
        if caller.tenant_id != tenant:
            raise HTTPException(status.HTTP_403_FORBIDDEN, "the caller does not belong to the tenant of this request")
        return caller

    return caller_of


def named(caller: Caller, user_id: UUID | str | None) -> UUID | str:
    """Return the user that a request names, by default the caller.

    :raises HTTPException: the caller may not name this user.
    """
    if user_id is None:
        return caller.user_id
    require_identifier(user_id, "user_id")
    if not caller.may_name(user_id):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "user_id: only your own sessions are yours to ask for")
    return user_id


def permitted(caller: Caller, operation: Operation, session: Session | None, session_id: UUID | str) -> Session:
    """Return a session that the caller may do this with.

    :raises SessionNotFoundError: there is none, or the caller may not know that there is.
    :raises HTTPException: the caller may read it, and not do this.
    """
    if session is None or not caller.may(Operation.READ, session):
        raise not_found(session_id)
    if not caller.may(operation, session):
        raise HTTPException(status.HTTP_403_FORBIDDEN, f"you may read this session, and not do this: {operation.value}")
    return session


def not_found(session_id: UUID | str) -> SessionNotFoundError:
    """Return the error for a session that does not exist for the caller, whatever the reason."""
    return SessionNotFoundError(f"there is no session {session_id}")
