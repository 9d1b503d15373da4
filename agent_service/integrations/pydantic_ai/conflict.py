"""What a save raises where another writer came first."""

from pydantic_ai.conversation_store import ConversationConflict

from agent_service.core.errors import SessionConflictError

__all__ = ["StoredConversationConflict"]


class StoredConversationConflict(ConversationConflict, SessionConflictError):  # noqa: N818 - as the framework names it
    """The conversation changed since it was loaded: the framework's error, and this package's as well.

    ``conversation_id`` names it. Load it again and repeat; nothing was stored.
    """
