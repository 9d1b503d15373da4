"""ADK's session service, on the package's sessions and contexts."""

from collections.abc import Mapping
from typing import Any, Self

from google.adk.events.event import Event
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from agent_service.context.database import DatabaseContextStore
from agent_service.context.key_locks import KeyLocks
from agent_service.core.errors import SessionConflictError, SessionValueError, TransactionConflictError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.models.session import Session as StoredRow
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.transactions.isolation import one_snapshot
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.validation import require_identifier, require_tenant
from agent_service.integrations.adk.appending import Append
from agent_service.integrations.adk.errors import AdkSessionExistsError
from agent_service.integrations.adk.events import json_state, timestamp_of
from agent_service.integrations.adk.identity import may_be, own_id, session_key, user_key
from agent_service.integrations.adk.place import Place
from agent_service.integrations.adk.reading import listed, session_of, shared_state, wanted_documents
from agent_service.integrations.adk.scopes import Scopes, is_temporary, split
from agent_service.integrations.adk.stored import StoredSession, first_metadata

__all__ = ["AdkSessionService"]


class AdkSessionService(BaseSessionService):
    """Sessions of ADK's agents in PostgreSQL or SQLite.

    ::

        async with AdkSessionService() as service:
            runner = Runner(app_name="support", agent=agent, session_service=service)

    A session is one of the package's: its events are messages, numbered in the order of their commits, its state is the
    session's context. State of an app and of a user are contexts. An event is stored with all its state, or not at
    all. Use one service per process; on the database of the settings it works on any number of event loops.

    :param engine: the database, on the event loop that it belongs to; it is not closed here. None is the one of the
        settings.
    :param tenant_id: whose sessions and state these are.
    :raises SessionValueError: an argument cannot be used.
    """

    def __init__(self, engine: AsyncEngine | DatabaseManager | None = None, *, tenant_id: str = "") -> None:
        self._place = Place(engine)
        self._tenant_id = require_tenant(tenant_id)
        self._states = DatabaseContextStore(session_factory=self._place.transaction)
        self._append = Append(self._place, self._states, self._tenant_id)
        self._locks = KeyLocks()

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: Mapping[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Store a new session and return it.

        :param state: by ADK's prefixes: ``app:``, ``user:``, ``temp:``, which is dropped, or the session's own.
        :param session_id: an id of the caller's, unique for the app and user; white space around it is removed.
        :raises AdkSessionExistsError: there is such a session; nothing was changed.
        :raises SessionValueError: an id, or a value of the state, cannot be stored; nothing was changed.
        """
        require_identifier(app_name, "app_name")
        require_identifier(user_id, "user_id")
        given = (own_id(session_id) if session_id else "") or platform_uuid.new_uuid()
        kept = {key: value for key, value in (state or {}).items() if not is_temporary(key)}
        scopes = split(encode_document(json_state(kept, "state"), "state", nul=True)[1])
        row = StoredRow(
            external_id=session_key(app_name, user_id, given),
            user_id=user_id,
            agent_id=app_name,
            context=scopes.session,
            metadata=first_metadata(given, platform_time.get_time()),
        )
        try:
            async with self._place.transaction() as db:
                row = await self._repo(db).create(row)
                shared = await self._share(db, app_name, user_id, scopes)
                return session_of(row, app_name, shared, None, ())
        except TransactionConflictError:
            raise
        except SessionConflictError as exc:
            raise AdkSessionExistsError(
                f"user {user_id!r:.80} of app {app_name!r:.80} has a session {given!r:.80}, or had one that was "
                "hidden; choose another id, or leave it out"
            ) from exc

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """Return a session with its state and events, or None.

        The cost is that of the events returned, however many there are. State and events are of one moment.

        :param config: ``num_recent_events``: at most so many of the last ones, 0 for none; ``after_timestamp``: only
            those behind the last one that is older than this moment, in seconds since 1970. Both may be given.
        """
        async with self._place.transaction(reads_only=True) as db:
            repo = self._repo(db)
            await one_snapshot(db)
            row = await self._row(repo, app_name, user_id, session_id)
            if row is None:
                return None
            documents, last = await wanted_documents(repo, row, config)
            shared = await shared_state(self._states, db, self._tenant_id, app_name, user_id)
            updated = None if last is None else timestamp_of(last)
            return session_of(row, app_name, shared, updated, documents)

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """Return all sessions of an app, or of one of its users, with state and without events.

        They are ordered by their last update, the oldest first. They are read 500 at a time, so the cost of each is
        the same however many there are.
        """
        if not may_be(app_name) or (user_id is not None and not may_be(user_id)):
            return ListSessionsResponse()
        async with self._place.transaction() as db:
            sessions = await listed(self._repo(db), db, self._states, app_name, user_id)
        return ListSessionsResponse(sessions=list(sessions))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Remove a session and its events for good, if there is one. State of the app and user stays."""
        async with self._place.transaction() as db:
            repo = self._repo(db)
            row = await self._row(repo, app_name, user_id, session_id)
            if row is not None:
                await repo.delete(row.id, hard=True)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state that a user's sessions share, by keys without the prefix ``user:``."""
        return await self._states.get(user_key(self._tenant_id, app_name, user_id)) or {}

    async def forget_user(self, *, app_name: str, user_id: str) -> int:
        """Remove a user's sessions of an app, and the state that they share, for good; return how many sessions.

        :raises SessionValueError: an id cannot be one.
        """
        require_identifier(app_name, "app_name")
        require_identifier(user_id, "user_id")
        async with self._place.transaction() as db:
            repo = self._repo(db)
            ids = [row.id async for row in repo.iter_sessions(user_id=user_id, agent_id=app_name)]
            for session_id in ids:
                await repo.delete(session_id, hard=True)
            await self._states.within(db).delete(user_key(self._tenant_id, app_name, user_id))
        return len(ids)

    async def append_event(self, session: Session, event: Event) -> Event:
        """Store an event with its state, in one commit, and add both to the session object.

        An event of a stream that is ``partial`` is returned as it is. One that was stored before, with the same
        fields, is not stored again. On an error neither the session object nor the event has changed.

        :raises AdkStaleSessionError: others have appended since the session was read; read it again.
        :raises AdkSessionNotFoundError: the session is not stored here, or was deleted.
        :raises SessionValueError: a value of the event cannot be stored.
        :raises DatabaseUnavailableError: the database cannot be reached. The event may be stored; append it again to
            be sure.
        """
        if not isinstance(session, Session):
            raise SessionValueError(f"session must be an ADK Session, not {type(session).__name__}")
        if isinstance(event, Event) and event.partial:
            return event
        # Tasks that share a session object take turns: each knows what the one before has stored.
        async with self._locks.hold([_key(session)]):
            known, seq = await self._append(session, event)
            if seq != known.seq + 1:
                return event  # It was stored before; what is in the session object is the caller's affair.
            await super().append_event(session=session, event=event)
            session.last_update_time = event.timestamp
            if isinstance(session, StoredSession):
                session.know(known.row_id, seq)
        return event

    async def close(self) -> None:
        """Wait for events that are being stored, and let go of the connections. A later use opens new ones."""
        await self._place.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _share(self, db: AsyncSession, app_name: str, user_id: str, scopes: Scopes) -> Scopes:
        """Change the state of the app and of the user, and return the whole."""
        await self._append.share(db, app_name, user_id, scopes)
        return await shared_state(self._states, db, self._tenant_id, app_name, user_id)

    async def _row(self, repo: SessionRepository, app_name: str, user_id: str, session_id: str) -> StoredRow | None:
        return await repo.get_by_external_id(session_key(app_name, user_id, own_id(session_id)))

    def _repo(self, db: AsyncSession) -> SessionRepository:
        return SessionRepository(db, self._tenant_id)


def _key(session: Session) -> str:
    """Return what tells the sessions apart that tasks share."""
    if isinstance(session, StoredSession) and session.row_id is not None:
        return session.row_id.hex
    return session_key(session.app_name, session.user_id, session.id)
