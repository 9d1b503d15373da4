"""Results of the repository, beside sessions and messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from agent_service.infrastructure.database.models.session import Session

__all__ = ["CounterDrift", "CursorPage", "ImportResult", "PaginatedResult", "SearchHit", "SessionStats", "Truncation"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Totals over sessions; deleted ones are not counted, expired ones are not active."""

    total_sessions: int
    active_sessions: int
    total_messages: int
    total_tokens: int

    @property
    def avg_messages_per_session(self) -> float:
        """Messages per session; 0.0 without sessions."""
        return self.total_messages / self.total_sessions if self.total_sessions else 0.0


@dataclass(frozen=True, slots=True)
class PaginatedResult(Generic[T]):
    """One page of a numbered listing, beginning with page 1. A page past the last one is empty."""

    items: Sequence[T]
    total: int
    page: int
    page_size: int

    @property
    def total_pages(self) -> int:
        """How many pages there are; 0 when there is nothing."""
        return -(-self.total // self.page_size)

    @property
    def has_next(self) -> bool:
        """Whether a later page has items."""
        return self.page < self.total_pages

    @property
    def has_prev(self) -> bool:
        """Whether an earlier page has items."""
        return 1 < self.page <= self.total_pages + 1 and self.total > 0


@dataclass(frozen=True, slots=True)
class CursorPage(Generic[T]):
    """One page of a listing that is walked from start to end; ``next_cursor`` is None on the last one."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A message that contains what was searched for.

    ``snippet`` is the text around the first occurrence, each occurrence in it between ``**``; it is the message's own
    text otherwise, so escape it for HTML. ``rank`` is from 0 to 1: more occurrences in a shorter message rank higher.
    """

    session: Session
    seq: int
    snippet: str
    rank: float


@dataclass(frozen=True, slots=True)
class CounterDrift:
    """Wrong counters of a session: what was stored, and what was counted."""

    session_id: UUID
    total_messages: tuple[int, int]
    total_tokens: tuple[int, int]
    last_seq: tuple[int, int]

    @property
    def wrong(self) -> bool:
        """Whether any counter differs."""
        return any(stored != counted for stored, counted in (self.total_messages, self.total_tokens, self.last_seq))

    def counted(self) -> dict[str, int]:
        """Return the counters as they should be."""
        return {name: getattr(self, name)[1] for name in ("total_messages", "total_tokens", "last_seq")}


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import added, and how many sessions existed already and were left alone."""

    sessions: int
    messages: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Truncation:
    """Messages of a followed session were removed: forget those numbered ``from_seq`` and above.

    Those that are still there, and the ones that came instead, follow.
    """

    session_id: UUID
    from_seq: int
