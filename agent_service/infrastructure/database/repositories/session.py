"""The repository of sessions."""

from agent_service.infrastructure.database.repositories.context import SessionContext
from agent_service.infrastructure.database.repositories.feed import SessionFeed
from agent_service.infrastructure.database.repositories.forking import SessionForking
from agent_service.infrastructure.database.repositories.lifecycle import SessionLifecycle
from agent_service.infrastructure.database.repositories.metadata import SessionMetadata
from agent_service.infrastructure.database.repositories.portability import SessionPortability
from agent_service.infrastructure.database.repositories.retention import SessionRetention
from agent_service.infrastructure.database.repositories.rewriting import SessionRewriting
from agent_service.infrastructure.database.repositories.search import SessionSearch
from agent_service.infrastructure.database.repositories.statistics import SessionStatistics

__all__ = ["SessionRepository"]


class SessionRepository(
    SessionForking,
    SessionRewriting,
    SessionFeed,
    SessionPortability,
    SessionContext,
    SessionMetadata,
    SessionSearch,
    SessionStatistics,
    SessionLifecycle,
    SessionRetention,
):
    """Sessions of one tenant, their messages and their context, within the caller's transaction.

    ::

        async with get_session() as db:
            repo = SessionRepository(db)
            session = await repo.create(Session(user_id=user_id, agent_id="code_agent", title="Debug"))
            await repo.add_message_to_session(session.id, {"role": "user", "content": "Help me"})

    Every method sees the sessions of its tenant that are not deleted, and no others. Session ids are UUIDs or their
    string form. All methods raise SessionValueError for invalid arguments, before anything is sent;
    DatabaseUnavailableError when the database cannot be reached, DatabaseError when it fails otherwise.
    """
