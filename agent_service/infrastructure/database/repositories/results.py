"""What the repository answers with, beside sessions and messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["CursorPage", "PaginatedResult", "SessionStats"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SessionStats:
    """Totals over a user's sessions; deleted ones are not counted, expired ones are not active."""

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
