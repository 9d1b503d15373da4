"""What the REST API answers, built from our objects without another query."""

from datetime import date, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session, SessionStatus
from agent_service.infrastructure.database.repositories.results import (
    CursorPage,
    PaginatedResult,
    SearchHit,
    SessionStats,
)

__all__ = [
    "ContextOut",
    "ErasedOut",
    "MessageOut",
    "MetadataOut",
    "NumberedSessionPage",
    "SearchHitOut",
    "SessionOut",
    "SessionPage",
    "StatsGroupOut",
    "StatsOut",
]

_ID = "0198f3c2-7a51-7c3e-9d24-5b1f0a6e8c11"
_MOMENT = "2026-01-15T09:30:00Z"

_Name = Annotated[str, BeforeValidator(str)]
"""A user's id, which is a UUID or a text of up to 255 characters."""


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class SessionOut(_Out):
    """A conversation of one user with one agent."""

    id: UUID
    external_id: str | None = Field(description="The id that another system gave the conversation; unique.")
    user_id: _Name = Field(description="Whose session it is.")
    agent_id: str | None
    title: str | None
    status: SessionStatus
    context: dict[str, Any] = Field(description="What the agent keeps beside the messages.")
    metadata: dict[str, Any] = Field(validation_alias="session_metadata", description="What the application keeps.")
    last_seq: int = Field(description="Number of the latest message; 0 when there was none.")
    total_messages: int
    total_tokens: int
    version: int = Field(description="Counts the changes of the session's own fields. Appending does not change it.")
    parent_session_id: UUID | None = Field(description="The session that this one was forked from.")
    fork_seq: int | None = Field(description="Number of the last message that it shows of its parent.")
    created_at: datetime
    updated_at: datetime
    last_activity_at: datetime
    expires_at: datetime
    completed_at: datetime | None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _ID, "external_id": None, "user_id": "ada", "agent_id": "code_agent", "title": "Debug",
                    "status": "active", "context": {"language": "python"}, "metadata": {"source": "web"},
                    "last_seq": 2, "total_messages": 2, "total_tokens": 31, "version": 1, "parent_session_id": None,
                    "fork_seq": None, "created_at": _MOMENT, "updated_at": _MOMENT, "last_activity_at": _MOMENT,
                    "expires_at": "2026-01-16T09:30:00Z", "completed_at": None,
                }
            ]
        }
    )  # fmt: skip

    @classmethod
    def of(cls, session: Session) -> Self:
        """Return what is shown of a session."""
        return cls.model_validate(session)


class MessageOut(_Out):
    """A message as it is stored. Messages are never changed."""

    seq: int = Field(description="Its place in the session. Numbers grow with each commit; none is given twice.")
    role: str = Field(description="The role of the message, or the one that was given beside it.")
    client_id: str | None = Field(description="The Idempotency-Key, or the client_id, under which it was appended.")
    created_at: datetime
    message: dict[str, Any] = Field(validation_alias="data", description="What was appended, exactly.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "seq": 2, "role": "assistant", "client_id": "8e03978e-40d5-43dd-bc93-6894a57f9324",
                    "created_at": _MOMENT,
                    "message": {"role": "assistant", "content": "Which line?", "token_count": 3},
                }
            ]
        }
    )  # fmt: skip

    @classmethod
    def of(cls, message: SessionMessage) -> Self:
        """Return what is shown of a message."""
        return cls.model_validate(message)


class SessionPage(BaseModel):
    """One page of a list that is walked from start to end."""

    items: list[SessionOut]
    next_cursor: str | None = Field(description="Give it as cursor for the next page; null on the last one.")

    @classmethod
    def of(cls, page: CursorPage[Session]) -> Self:
        """Return what is shown of a page."""
        return cls(items=[SessionOut.of(each) for each in page.items], next_cursor=page.next_cursor)


class NumberedSessionPage(BaseModel):
    """One page of a numbered list, with the total."""

    items: list[SessionOut]
    total: int
    page: int = Field(description="1 is the first.")
    page_size: int
    total_pages: int
    has_next: bool
    has_prev: bool

    @classmethod
    def of(cls, page: PaginatedResult[Session]) -> Self:
        """Return what is shown of a page."""
        return cls(
            items=[SessionOut.of(each) for each in page.items],
            total=page.total,
            page=page.page,
            page_size=page.page_size,
            total_pages=page.total_pages,
            has_next=page.has_next,
            has_prev=page.has_prev,
        )


class SearchHitOut(_Out):
    """A message that contains what was searched for."""

    session: SessionOut
    seq: int
    snippet: str = Field(
        description="The text around the first occurrence, each occurrence between **. It is not HTML: escape it."
    )
    rank: float = Field(description="From 0 to 1: more occurrences in a shorter message rank higher.")

    @classmethod
    def of(cls, hit: SearchHit) -> Self:
        """Return what is shown of a hit."""
        return cls.model_validate(hit)


class StatsOut(_Out):
    """Sums over sessions that are not deleted."""

    total_sessions: int
    active_sessions: int = Field(description="Sessions whose status is active and that have not expired.")
    total_messages: int
    total_tokens: int
    avg_messages_per_session: float

    @classmethod
    def of(cls, stats: SessionStats) -> Self:
        """Return what is shown of sums."""
        return cls.model_validate(stats)


class StatsGroupOut(BaseModel):
    """The sums of one agent, or of one day of creation in UTC."""

    key: str | date | None = Field(description="The agent_id, or the day; null for sessions without an agent.")
    stats: StatsOut


class ContextOut(_Out):
    """A session's context, and the version of the session it belongs to."""

    version: int
    context: dict[str, Any]

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2, "context": {"language": "python"}}]})

    @classmethod
    def of(cls, session: Session) -> Self:
        """Return what is shown of a session's context."""
        return cls.model_validate(session)


class MetadataOut(_Out):
    """A session's metadata, and the version of the session they belong to."""

    version: int
    metadata: dict[str, Any] = Field(validation_alias="session_metadata")

    model_config = ConfigDict(json_schema_extra={"examples": [{"version": 2, "metadata": {"source": "web"}}]})

    @classmethod
    def of(cls, session: Session) -> Self:
        """Return what is shown of a session's metadata."""
        return cls.model_validate(session)


class ErasedOut(BaseModel):
    """What an erasure removed for good."""

    sessions: int = Field(description="How many sessions there were, hidden ones too.")
