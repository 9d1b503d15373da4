"""Reading as many items as a call asks for, however many the database returns at once."""

from uuid import UUID

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.repositories.history import MAX_MESSAGES
from agent_service.infrastructure.database.repositories.session import SessionRepository

__all__ = ["between", "latest"]


async def latest(repo: SessionRepository, key: UUID, wanted: int | None) -> list[SessionMessage]:
    """Return the last messages, page by page where they are more than one call returns."""
    pages: list[list[SessionMessage]] = []
    before, left = None, wanted
    while left is None or left > 0:
        size = MAX_MESSAGES if left is None else min(left, MAX_MESSAGES)
        page = await repo.get_messages(key, limit=size, before_seq=before)
        pages.append(page)
        if len(page) < size:
            break
        before, left = page[0].seq, None if left is None else left - size
    return [message for page in reversed(pages) for message in page]


async def between(repo: SessionRepository, key: UUID, after_seq: int, before_seq: int) -> list[SessionMessage]:
    """Return the messages between two numbers."""
    found: list[SessionMessage] = []
    while page := await repo.get_messages(key, limit=MAX_MESSAGES, after_seq=after_seq, before_seq=before_seq):
        found += page
        after_seq = page[-1].seq
    return found
