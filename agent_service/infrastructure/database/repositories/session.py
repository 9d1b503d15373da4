"""The repository of sessions."""

from agent_service.infrastructure.database.repositories.lifecycle import SessionLifecycle
from agent_service.infrastructure.database.repositories.listing import SessionListing
from agent_service.infrastructure.database.repositories.messages import SessionMessages
from agent_service.infrastructure.database.repositories.records import SessionRecords

__all__ = ["SessionRepository"]


class SessionRepository(SessionRecords, SessionMessages, SessionListing, SessionLifecycle):
    """Sessions of one tenant, their messages and their context, within the caller's transaction.

    ::

        async with get_session() as db:
            repo = SessionRepository(db)
            session = await repo.create(Session(user_id=user_id, agent_id="code_agent", title="Debug"))
            await repo.add_message_to_session(session.id, {"role": "user", "content": "Help me"})

    Every method sees the sessions of its tenant that are not deleted, and no others. Session ids are UUIDs or their
    string form. All methods raise SessionValueError for arguments that cannot be, before anything is sent;
    DatabaseUnavailableError when the database cannot be reached, DatabaseError when it fails otherwise.
    """
