"""ADK's memory service: a search through the sessions that were added to it."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions.session import Session
from google.genai.types import Content
from sqlalchemy import BigInteger, cast, func
from sqlalchemy.ext.asyncio import AsyncEngine

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session as StoredRow
from agent_service.infrastructure.database.queries.scope import visible
from agent_service.infrastructure.database.queries.word_search import with_most_words
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.database.values.validation import require_tenant
from agent_service.integrations.adk.errors import AdkSessionNotFoundError
from agent_service.integrations.adk.events import event_of
from agent_service.integrations.adk.identity import may_be, session_key
from agent_service.integrations.adk.place import Place
from agent_service.integrations.adk.stored import StoredSession
from agent_service.integrations.adk.words import matched, text_of, words_of

__all__ = ["AdkMemoryService"]

_ADDED: Final = "google_adk_memory"
"""The key of a session's metadata that holds how far it was added to the memory."""
MEMORIES: Final = 10
"""Most memories that a search gives."""
_LOOKED_AT: Final = 50
"""Messages that a search looks through for whole words; they have most of the words as pieces of text."""


class AdkMemoryService(BaseMemoryService):
    """A memory of the sessions that :class:`AdkSessionService` has stored.

    Adding a session notes how far it is part of the memory: nothing is copied, and deleting the session removes it from
    the memory too. A search is one statement, along the index that searches of messages use.

    :param engine: the database of the session service; None is the one of the settings.
    :param tenant_id: whose sessions these are.
    :raises SessionValueError: an argument cannot be used.
    """

    def __init__(self, engine: AsyncEngine | DatabaseManager | None = None, *, tenant_id: str = "") -> None:
        self._place = Place(engine)
        self._tenant_id = require_tenant(tenant_id)

    async def add_session_to_memory(self, session: Session) -> None:
        """Make a session's events part of the memory, as far as the session object knows them.

        Adding it again adds what came since. Events that are added later are no part of it until then.

        :raises AdkSessionNotFoundError: :class:`AdkSessionService` has no such session in this database.
        """
        async with self._place.transaction() as db:
            repo = SessionRepository(db, self._tenant_id)
            row = await repo.get_by_external_id(session_key(session.app_name, session.user_id, session.id))
            if row is None:
                raise AdkSessionNotFoundError(
                    f"session {session.id!r:.80} of user {session.user_id!r:.80} is not stored here; only sessions of "
                    "AdkSessionService on the same database can be added"
                )
            seq = row.last_seq
            if isinstance(session, StoredSession) and session.row_id == row.id:
                seq = session.known_seq
            await repo.update_session_metadata(row.id, {_ADDED: {"seq": seq}})

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """Return at most ten events of a user's added sessions: those with most words of the query, the newest first.

        Words are compared whole and without case, of what was said. Of a long query the twelve longest words count.
        """
        if not isinstance(query, str):
            raise SessionValueError(f"query must be a string, not {type(query).__name__}: {query!r:.80}")
        words = words_of(query.replace("\x00", ""))
        if not words or not may_be(app_name) or not may_be(user_id):
            return SearchMemoryResponse()
        async with self._place.transaction() as db:
            SessionRepository(db, self._tenant_id)  # has the transaction say its tenant
            dialect = db.get_bind().dialect.name
            scope = (
                *visible(self._tenant_id),
                StoredRow.user_id == user_id,
                StoredRow.agent_id == app_name,
            )
            within = SessionMessage.seq <= _added_seq(dialect)
            with database_errors("search the memory"):
                found = await db.scalars(with_most_words(dialect, words, scope, within, _LOOKED_AT))
                documents = [message.to_dict() for message in found]
        scored = [(matched(words, text_of(document)), document) for document in documents]
        best = sorted((each for each in scored if each[0]), key=lambda each: -each[0])  # stable: the newest first
        return SearchMemoryResponse(memories=[_entry(document) for _, document in best[:MEMORIES]])

    async def close(self) -> None:
        """Let go of what the service holds."""
        await self._place.close()


def _added_seq(dialect: str) -> Any:
    metadata: Any = StoredRow.session_metadata
    if dialect == "sqlite":
        return func.json_extract(metadata, f'$."{_ADDED}"."seq"')
    return cast(metadata.op("->")(_ADDED).op("->>")("seq"), BigInteger)


def _entry(document: dict[str, Any]) -> MemoryEntry:
    event = event_of(document)
    moment: str | None = None
    with suppress(ValueError, OverflowError, OSError):  # outside of the calendar, such as one in milliseconds
        moment = datetime.fromtimestamp(event.timestamp, UTC).isoformat()
    return MemoryEntry(id=event.id, content=event.content or Content(), author=event.author, timestamp=moment)
