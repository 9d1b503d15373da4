"""What clients send: the bodies of requests."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID

from fastapi import Body
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, WithJsonSchema

from agent_service.infrastructure.database.models.session import SessionStatus
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER, MAX_SEQ

__all__ = [
    "MAX_BATCH",
    "BatchItem",
    "ContextIn",
    "ForkIn",
    "Message",
    "MessageIn",
    "Patch",
    "SessionIn",
    "SessionPatch",
]

MAX_BATCH: Final = 1_000
"""Most messages in one batch."""

_Identifier: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_IDENTIFIER)]

_MESSAGE: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A message, kept exactly as it is sent; it may have further fields of any JSON.",
    "properties": {
        "role": {
            "type": "string",
            "minLength": 1,
            "description": "Required, unless a role is given beside the message.",
            "examples": ["user", "assistant", "system", "tool"],
        },
        "content": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {}}, {"type": "null"}],
            "description": "A text, a list of parts, or null.",
        },
        "token_count": {"type": "integer", "minimum": 0, "description": "What the message costs; counted up."},
    },
    "additionalProperties": True,
}

Message: TypeAlias = Annotated[dict[str, Any], WithJsonSchema(_MESSAGE)]

MessageIn: TypeAlias = Annotated[
    dict[str, Any],
    WithJsonSchema(_MESSAGE),
    Body(
        openapi_examples={
            "text": {"value": {"role": "user", "content": "Why does this test fail?", "token_count": 7}},
            "parts": {"value": {"role": "user", "content": [{"type": "text", "text": "What is on this picture?"}]}},
            "tool call": {"value": {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1"}]}},
        }
    ),
]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionIn(_In):
    """A session to create. Whatever is left out gets its default."""

    id: UUID | None = Field(None, description="Your own id: sending the request again then creates no second session.")
    external_id: _Identifier | None = Field(None, description="The id that another system gave the conversation.")
    user_id: _Identifier | None = Field(None, description="Whose session it is; by default the caller's.")
    agent_id: _Identifier | None = None
    title: str | None = None
    status: SessionStatus = SessionStatus.ACTIVE
    context: dict[str, Any] = Field(default_factory=dict, examples=[{"language": "python"}])
    metadata: dict[str, Any] = Field(default_factory=dict, examples=[{"source": "web"}])
    expires_at: AwareDatetime | None = Field(None, description="By default SESSION_EXPIRY_HOURS from now.")


class SessionPatch(_In):
    """The fields of a session to change. What is left out stays as it is."""

    external_id: _Identifier | None = None
    agent_id: _Identifier | None = None
    title: str | None = None
    # A factory keeps the default, which means nothing here, out of the schema; null is none of the values.
    status: SessionStatus = Field(default_factory=lambda: SessionStatus.ACTIVE)
    expires_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class BatchItem(_In):
    """One message of a batch."""

    message: Message
    role: str | None = Field(None, min_length=1, description="The role of a message that has none of its own.")
    client_id: _Identifier | None = Field(
        None, description="Your own id of this message, as Idempotency-Key is of one."
    )


class ForkIn(_In):
    """Where the fork begins."""

    seq: int = Field(ge=0, le=MAX_SEQ, description="Number of the last message that the fork shows; 0 shows none.")


class Patch(_In):
    """A change of a context or of metadata."""

    values: dict[str, Any] = Field(default_factory=dict, description="Keys to set; null is a value like any other.")
    delete_keys: list[str] = Field(default_factory=list, description="Keys to remove; missing ones are ignored.")
    deep: bool = Field(default=False, description="Merge objects into the stored objects, at every level.")


ContextIn: TypeAlias = Annotated[dict[str, Any], Body(examples=[{"language": "python", "mode": "debug"}])]
