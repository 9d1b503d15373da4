"""Forking: a session that continues from an earlier point of another one."""

from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.lineage import counted
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.scope import of_tenant, one
from agent_service.infrastructure.database.repositories.records import SessionRecords
from agent_service.infrastructure.database.values.validation import MAX_SEQ, require_count, require_session_id

__all__ = ["SessionForking"]


class SessionForking(SessionRecords):
    """The part of the repository that forks."""

    async def fork(self, session_id: UUID | str, seq: int) -> Session:
        """Create a session that shows this one's messages up to ``seq`` and continues numbering after it.

        No message is copied: the cost is that of counting the messages after ``seq``. User, agent, title, context and
        metadata are the session's of now. What happens to one of the two later does not show in the other; forks of
        forks are forks like any other.

        :param seq: 0 to the session's ``last_seq``; 0 shows nothing.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: the session has not come as far as ``seq``.
        """
        key = require_session_id(session_id)
        require_count(seq, "seq", least=0, most=MAX_SEQ)
        with database_errors("fork a session"):
            # Locked, so that nothing is removed from the parent's history before the fork exists.
            await self._db.execute(lock_sessions(self._dialect(), *one(self._tenant_id, key), shared=True))
        parent = await self._require(key)
        if seq > parent.last_seq:
            raise SessionValueError(f"seq must be at most {parent.last_seq}, the last of session {key}, got {seq}")
        with database_errors("fork a session"):
            left_out = (await self._db.execute(counted(*of_tenant(self._tenant_id, key), above=seq))).first()
        fork = Session(
            user_id=parent.user_id,
            agent_id=parent.agent_id,
            title=parent.title,
            context=parent.context,
            metadata=parent.session_metadata,
        )
        return await self._create(
            fork,
            parent_session_id=key,
            fork_seq=seq,
            last_seq=seq,
            total_messages=parent.total_messages - (left_out.messages if left_out else 0),
            total_tokens=parent.total_tokens - (left_out.tokens if left_out else 0),
        )
