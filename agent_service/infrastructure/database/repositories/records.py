"""Sessions one at a time: create, read, change."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, inspect, literal, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.attributes import set_committed_value

from agent_service.core.errors import SessionConflictError, SessionValueError, TransactionConflictError
from agent_service.core.fixed import fixed
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session, SessionStatus, set_own_fields
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.scope import one, visible
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.validation import require_identifier, require_session_id

__all__ = ["SessionRecords", "check_documents"]

_CHANGEABLE = (
    "user_id", "agent_id", "external_id", "title", "status", "context", "session_metadata", "expires_at",
)  # fmt: skip

_DOCUMENTS = ("context", "session_metadata")


class SessionRecords(RepositoryBase):
    """The part of the repository that handles single sessions."""

    async def create(self, session: Session) -> Session:
        """Store a new session; its ``id`` may be the caller's.

        Its moments are set to now, and ``expires_at`` to now + SESSION_EXPIRY_HOURS unless given.

        :raises SessionConflictError: the id or external id is taken; the transaction goes on.
        :raises SessionValueError: a value cannot be stored.
        """
        return await self._create(session)

    async def _create(self, session: Session, **own_fields: Any) -> Session:
        """Store a new session, with what only the package sets beside its moments."""
        self._complete(session, own_fields)
        taken = SessionConflictError(
            f"the id {session.id} or the external_id {session.external_id!r} belongs to another session; "
            "load that one, or choose another"
        )
        if inspect(session).key is not None or self._loaded(session.id) is not None:
            raise taken
        with database_errors("create a session"):
            try:
                async with self._db.begin_nested():
                    self._db.add(session)
            except IntegrityError as exc:
                raise taken from exc
        _set(session, _documents(session))
        return session

    def _complete(self, session: Session, own_fields: Mapping[str, Any]) -> None:
        if session.user_id is None:
            raise SessionValueError("user_id is missing; give the user the session belongs to")
        if session.tenant_id not in {None, self._tenant_id}:
            raise SessionValueError(
                f"tenant_id of the session is {session.tenant_id!r}, of the repository {self._tenant_id!r}"
            )
        check_documents(session)
        now = self._now()
        session.tenant_id = self._tenant_id
        session.expires_at = self._expiry(now) if session.expires_at is None else session.expires_at
        moments = {"created_at": now, "updated_at": now, "last_activity_at": now}
        ended = None if session.status is SessionStatus.ACTIVE else now
        set_own_fields(session, **own_fields, **moments, completed_at=ended)

    async def get(self, session_id: UUID | str, *, lock: bool = False) -> Session | None:
        """Return a session, or None.

        :param lock: until the caller's transaction ends, nobody else changes the session or appends to it; they wait.
        """
        key = require_session_id(session_id)
        if lock:
            with database_errors("lock a session"):
                await self._db.execute(lock_sessions(self._dialect(), *one(self._tenant_id, key)))
        session: Session | None = await self._first("read a session", self._one(key))
        return session

    async def get_by_external_id(self, external_id: str) -> Session | None:
        """Return the session that carries another framework's id, or None."""
        given = require_identifier(external_id, "external_id")
        statement = select(Session).where(Session.external_id == given, *visible(self._tenant_id))
        session: Session | None = await self._first("read a session", statement)
        return session

    async def get_or_create(
        self,
        external_id: str,
        *,
        user_id: UUID | str,
        agent_id: str | None = None,
        title: str | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
    ) -> Session:
        """Return the user's session that carries this external id; store one first where there is none.

        However many callers and processes do so at once, there is one session, and all get it. What else is given is
        for a new session only. :func:`external_id_of` makes one id of an application, a user and an id.

        :raises SessionConflictError: the session is another user's, or it was deleted: a hidden session keeps its
            external id until :meth:`restore` brings it back, or :meth:`delete` with ``hard=True`` removes it.
        :raises SessionValueError: a value cannot be stored.
        """
        given, owner = require_identifier(external_id, "external_id"), require_identifier(user_id, "user_id")
        session = await self.get_by_external_id(given)
        if session is None:
            new = Session(
                external_id=given,
                user_id=user_id,
                agent_id=agent_id,
                title=title,
                context={} if context is None else context,
                metadata=metadata,
                expires_at=expires_at,
            )
            try:
                return await self.create(new)
            except SessionConflictError as exc:
                session = await self.get_by_external_id(given)
                if session is None:
                    raise await self._why_hidden(given) from exc
        if str(session.user_id) != owner:
            raise SessionConflictError(
                f"the session of external_id {given!r} is another user's; choose an external id of this user's own"
            )
        return session

    async def _why_hidden(self, external_id: str) -> SessionConflictError:
        theirs = (Session.tenant_id == self._tenant_id, Session.external_id == external_id)
        with database_errors("read a session"):
            hidden = await self._db.scalar(select(Session.id).where(*theirs, Session.deleted_at.is_not(None)))
        if hidden is None:
            return TransactionConflictError(
                f"another transaction stored the session of external_id {external_id!r}, or removed it, and this one "
                "does not see that; begin it again"
            )
        return SessionConflictError(
            f"session {hidden} has the external_id {external_id!r} and was deleted; restore() it, or remove it by "
            "delete(..., hard=True)"
        )

    async def update(self, session: Session) -> Session:
        """Store what was assigned to a session's attributes since it was loaded, whichever session block loaded it.

        Only those columns are written, so counters and what others changed stay; ``version`` counts up. A context or
        metadata that was assigned replaces what is stored; to leave what others change at the same time, use
        :meth:`update_session_context` and :meth:`update_session_metadata`.

        :raises SessionNotFoundError: the session is not there (any more), was never stored, or is another tenant's.
        :raises SessionConflictError: the external id is taken; the transaction goes on, and the attributes are again
            what is stored.
        """
        # The id alone may name another session: every tenant may have one with this id.
        if inspect(session).identity != (self._tenant_id, session.id):
            raise self._not_found(session.id)
        check_documents(session)
        changed, stored = _changes(session)
        # Mark the attributes as stored first, so that SQLAlchemy does not flush them again outside the savepoint.
        _set(session, changed | _documents(session))
        with database_errors("update a session"):
            try:
                async with self._db.begin_nested():
                    row = (await self._db.execute(self._update(session, changed))).first()
            except IntegrityError as exc:
                taken = session.external_id
                _set(session, stored)
                raise SessionConflictError(
                    f"the external_id {taken!r} belongs to another session; choose another"
                ) from exc
        if row is None:
            raise self._not_found(session.id)
        _set(session, row._asdict())
        return session

    def _update(self, session: Session, changed: Mapping[str, Any]) -> Any:
        now = self._now()
        ended = func.coalesce(Session.completed_at, literal(now, Session.completed_at.type))
        return (
            update(Session)
            .where(*one(self._tenant_id, session.id))
            .values(
                **changed,
                version=Session.version + 1,
                updated_at=now,
                completed_at=None if session.status is SessionStatus.ACTIVE else ended,
            )
            .returning(Session.version, Session.updated_at, Session.completed_at)
            .execution_options(synchronize_session=False)
        )

    def _one(self, key: UUID) -> Any:
        return select(Session).where(*one(self._tenant_id, key))


def _changes(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what was assigned since the session was loaded, and what is stored instead."""
    attributes = inspect(session).attrs
    histories = {name: attributes[name].history for name in _CHANGEABLE}
    changed = {name: next(iter(history.added)) for name, history in histories.items() if history.added}
    return changed, {name: next(iter(histories[name].deleted)) for name in changed if histories[name].deleted}


def _documents(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in _DOCUMENTS}


def _set(session: Session, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        set_committed_value(session, name, fixed(value) if name in _DOCUMENTS else value)


def check_documents(session: Session) -> None:
    """Refuse a context or metadata that cannot be kept exactly."""
    encode_document(session.context, "context", nul=False)
    encode_document(session.session_metadata, "metadata", nul=True)
