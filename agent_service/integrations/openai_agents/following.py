"""Items with their numbers, and as they come."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import UUID

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories.results import Truncation
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.integrations.openai_agents.base import SessionBase
from agent_service.integrations.openai_agents.lasting import to_its_end
from agent_service.integrations.openai_agents.stored import StoredItem

if TYPE_CHECKING:
    from agent_service.integrations.openai_agents.sdk import Wrapper

__all__ = ["FollowedSession"]


class FollowedSession(SessionBase):
    """The part of a session that others look at."""

    async def read_items(
        self,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 50,
        wrapper: "Wrapper | None" = None,
    ) -> list[StoredItem]:
        """Return items with their numbers: the last ones, or the first ones after a number.

        :param after: only items after this number.
        :param before: only items before this number.
        :param limit: 1 to 10,000.
        """

        async def read(repo: SessionRepository, key: UUID) -> list[SessionMessage]:
            return await repo.get_messages(key, after_seq=after, before_seq=before, limit=limit)

        found: list[SessionMessage] = await self._reading(self._owner(wrapper), read, [])
        return [StoredItem.of(message) for message in found]

    async def follow(
        self, *, after: int = 0, until: asyncio.Event | None = None, wrapper: "Wrapper | None" = None
    ) -> AsyncGenerator[StoredItem | Truncation, None]:
        """Return every item after a number as it is committed by any process, in order, without end.

        Where a compaction or :meth:`clear_session` removed items that were delivered, a ``Truncation`` says from which
        number on to forget them; what is there now follows. ``pop_item`` is not told. The session is stored where
        there is none yet. It holds no connection while it waits; ``SessionRepository.subscribe`` says more.

        :param after: the last number that is known already; 0 begins at the beginning.
        :param until: ends it when it is set.
        """
        owner = self._owner(wrapper)
        key = await to_its_end(self._existing(owner))
        async with self._place().session(read_committed=True) as db:
            feed = SessionRepository(db, owner.tenant_id).subscribe(key, after_seq=after, until=until, truncations=True)
        async with aclosing(feed):
            async for event in feed:
                yield event if isinstance(event, Truncation) else StoredItem.of(event)
