"""Storing an event: right after what its session object knows, with its state, in one commit."""

from typing import NamedTuple
from uuid import UUID

from google.adk.events.event import Event
from google.adk.sessions.session import Session
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.context.database import DatabaseContextStore
from agent_service.core.errors import SessionConflictError, SessionNotFoundError, TransactionConflictError
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.adk.errors import AdkSessionNotFoundError, AdkStaleSessionError
from agent_service.integrations.adk.events import client_id_of, document_of, role_of, timestamp_of
from agent_service.integrations.adk.identity import app_key, session_key, user_key
from agent_service.integrations.adk.place import Place
from agent_service.integrations.adk.reading import last_documents
from agent_service.integrations.adk.scopes import Scopes, split
from agent_service.integrations.adk.stored import StoredSession

__all__ = ["Append", "Known"]


class Known(NamedTuple):
    """Which stored session an object is, and the number of the last event that it knows."""

    row_id: UUID
    seq: int


class Append:
    """Stores events of one tenant's sessions.

    An event, and the session's own state with it, travel by the writer: many sessions' events in one commit. Where an
    event changes the state of the app or user too, it is a transaction of its own.
    """

    def __init__(self, place: Place, states: DatabaseContextStore, tenant_id: str) -> None:
        self._place = place
        self._states = states
        self._tenant_id = tenant_id

    async def __call__(self, session: Session, event: Event) -> tuple[Known, int]:
        """Store the event and return what the session knew before, and the event's number.

        Another number than the next one is that of an equal event that was stored before.
        """
        document = document_of(event)
        scopes = split(document["actions"]["state_delta"])
        known = await self._known(session)
        try:
            if scopes.app or scopes.user:
                return known, await self._with_shared(session, event, document, known, scopes)
            writer = await self._place.writer()
            stored = await writer.append(
                known.row_id,
                document,
                role=role_of(event),
                client_id=client_id_of(document),
                expected_seq=known.seq,
                context=scopes.session or None,
                tenant_id=self._tenant_id,
            )
        except TransactionConflictError:
            raise
        except SessionConflictError as exc:
            raise _stale(session) from exc
        except SessionNotFoundError as exc:
            raise _missing(session) from exc
        return known, stored.seq

    async def share(self, db: AsyncSession, app_name: str, user_id: str, scopes: Scopes) -> None:
        """Change the state of an app and of a user, always in this order, so that none wait in a circle."""
        states = self._states.within(db, savepoints=False)
        if scopes.app:
            await states.update(app_key(self._tenant_id, app_name), scopes.app)
        if scopes.user:
            await states.update(user_key(self._tenant_id, app_name, user_id), scopes.user)

    async def _with_shared(
        self, session: Session, event: Event, document: dict[str, object], known: Known, scopes: Scopes
    ) -> int:
        async with self._place.transaction() as db:
            repo = SessionRepository(db, self._tenant_id)
            stored = await repo.add_message_to_session(
                known.row_id,
                document,
                role=role_of(event),
                client_id=client_id_of(document),
                expected_seq=known.seq,
            )
            # One that was stored before, with its state, is an object of this database session; a new one is not.
            if stored not in db:
                if scopes.session:
                    await repo.update_session_context(known.row_id, scopes.session)
                await self.share(db, session.app_name, session.user_id, scopes)
            return stored.seq

    async def _known(self, session: Session) -> Known:
        if isinstance(session, StoredSession) and session.row_id is not None:
            return Known(session.row_id, session.known_seq)
        return await self._compared(session)

    async def _compared(self, session: Session) -> Known:
        """Find out what an object knows that was not read here: made by hand, copied, or sent between processes.

        It is up to date if its last event is the last one stored, or it was updated as late.
        """
        async with self._place.transaction() as db:
            repo = SessionRepository(db, self._tenant_id)
            row = await repo.get_by_external_id(session_key(session.app_name, session.user_id, session.id))
            if row is None:
                raise _missing(session)
            async for last in last_documents(repo, row, 1):
                same = bool(session.events) and session.events[-1].id == last.get("id")
                if not same and session.last_update_time < timestamp_of(last):
                    raise _stale(session)
                break
            return Known(row.id, row.last_seq)


def _stale(session: Session) -> AdkStaleSessionError:
    return AdkStaleSessionError(
        f"session {session.id!r:.80} was changed since it was read, so the event is not stored; read it by "
        "get_session() and decide again"
    )


def _missing(session: Session) -> AdkSessionNotFoundError:
    return AdkSessionNotFoundError(
        f"Session {session.id!r:.80} of user {session.user_id!r:.80} not found; create_session() stores it first"
    )
