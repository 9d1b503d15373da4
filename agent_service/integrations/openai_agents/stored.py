"""An item with its place in the session."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast

from agent_service.infrastructure.database.models.message import SessionMessage

if TYPE_CHECKING:
    from agent_service.integrations.openai_agents.sdk import Item

__all__ = ["StoredItem", "items_of"]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item, its number in the session, and when it was stored.

    Numbers count up in the order of commits and are never given out again.
    """

    seq: int
    item: "Item"
    created_at: datetime

    @classmethod
    def of(cls, message: SessionMessage) -> "StoredItem":
        """Return a stored message as an item."""
        return cls(message.seq, item_of(message), message.created_at)


def item_of(message: SessionMessage) -> "Item":
    """Return the item that a message holds, exactly as it was added; it is the caller's own."""
    return cast("Item", message.to_dict())


def items_of(messages: list[SessionMessage]) -> "list[Item]":
    """Return the items of messages in their order."""
    return [item_of(message) for message in messages]
