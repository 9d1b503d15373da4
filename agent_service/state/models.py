"""The context of a user: a conversation's state, its history and the user's profile."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SerializeAsAny

__all__ = ["AgentContext", "ChatMessage", "CoachContext", "CoachingState", "UserProfile"]

StateT = TypeVar("StateT")
ProfileT = TypeVar("ProfileT")


class _Model(BaseModel):
    """Refuses unknown fields, so that neither a typo nor data of another schema is dropped silently."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, hide_input_in_errors=True)


class ChatMessage(_Model):
    """One message of a conversation."""

    role: str = Field(min_length=1)
    content: str
    timestamp: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    metadata: dict[str, Any] = Field(default_factory=dict)


class UserProfile(_Model):
    """What a coach knows about a user."""

    name: str | None = None
    goals: list[str] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)


class CoachingState(StrEnum):
    """The stages of coaching, in their usual order."""

    INTRODUCTION = "introduction"
    IDENTITY_BRAINSTORMING = "identity_brainstorming"
    IDENTITY_REFINEMENT = "identity_refinement"
    IDENTITY_VISUALIZATION = "identity_visualization"
    ACTION_PLANNING = "action_planning"
    ACCOUNTABILITY = "accountability"


class AgentContext(_Model, Generic[StateT, ProfileT]):
    """What an agent keeps about one user between two turns, with your own classes of states and profiles.

    ::

        class OrderContext(AgentContext[OrderState, Customer]):
            current_state: OrderState = OrderState.OPEN
            schema_version: int = 2

    Assignments are validated. A value that was changed in place (``conversation_history.append``) must have its
    declared type when it is saved.

    A message or profile of a subclass is refused when it is saved, because it would load as the class declared here.

    ``version`` counts the saves of a user's context and is set by the store; 0: never saved. ``schema_version`` is the
    schema of the stored data: raise its default when you change the fields, and register an upgrader
    (:func:`~agent_service.state.evolution.register_upgrader`).
    """

    user_id: str
    current_state: StateT
    conversation_history: list[SerializeAsAny[ChatMessage]] = Field(default_factory=list)
    consolidated_summary: str = ""
    user_profile: SerializeAsAny[ProfileT] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    version: int = Field(default=0, ge=0)
    schema_version: int = Field(default=1, ge=1)


class CoachContext(AgentContext[CoachingState, UserProfile]):
    """The context of a coached user."""

    current_state: CoachingState = CoachingState.INTRODUCTION
