"""Going on from an earlier point of a conversation, as another one."""

from typing import TYPE_CHECKING, Self
from uuid import UUID

from agent_service.core.errors import SessionNotFoundError, SessionValueError
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.infrastructure.database.values.validation import MAX_SEQ, require_count, require_identifier
from agent_service.integrations.openai_agents.base import SessionBase
from agent_service.integrations.openai_agents.lasting import to_its_end
from agent_service.integrations.openai_agents.usage import without_usage

if TYPE_CHECKING:
    from agent_service.integrations.openai_agents.sdk import Wrapper

__all__ = ["ForkedSession"]


class ForkedSession(SessionBase):
    """The part of a session that forks."""

    async def fork(self, session_id: str, *, at: int | str | None = None, wrapper: "Wrapper | None" = None) -> Self:
        """Store a session that shows this one's items up to one of them, and return it.

        No item is copied, so it costs the same at any length. What is added to one of the two later does not show in
        the other. Usage is counted from the beginning.

        :param session_id: the new session's id.
        :param at: the last item that the fork shows: its number (0 for none), or its own ``id`` or ``call_id``, of
            which the latest is taken. A text is searched for from the end backwards. None is the last item.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: ``session_id`` is taken.
        :raises SessionValueError: there is no such item.
        """
        name = require_identifier(session_id, "session_id")
        if at is not None and not isinstance(at, str):
            require_count(at, "at", least=0, most=MAX_SEQ)

        async def work(repo: SessionRepository, key: UUID) -> Session | None:
            seq = await _find(repo, key, at) if isinstance(at, str) else at
            if seq is None:
                session = await repo.get(key)
                seq = 0 if session is None else session.last_seq
            fork = await repo.fork(key, seq)
            fork.external_id = name
            fork.session_metadata = without_usage(fork.session_metadata)
            return await repo.update(fork)

        if await to_its_end(self._changing(self._owner(wrapper), work, None)) is None:
            raise SessionNotFoundError(f"there is no session of session_id {self.session_id!r}; add items before")
        forked: Self = self._same(name)
        return forked


async def _find(repo: SessionRepository, key: UUID, item_id: str) -> int:
    """Return the number of the latest item that has an id."""
    before: int | None = None
    while page := await repo.get_messages(key, limit=200, before_seq=before):
        for message in reversed(page):
            if item_id in (message.data.get("id"), message.data.get("call_id")):
                return message.seq
        before = page[0].seq
    raise SessionValueError(f"at names no item of the session: {item_id!r:.80}; read_items() returns their numbers")
