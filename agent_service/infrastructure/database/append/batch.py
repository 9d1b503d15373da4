"""What one transaction appends, and what the database says about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from agent_service.infrastructure.database.append.message import PendingMessage
from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["Batch", "Counters", "Place"]


@dataclass(slots=True, eq=False)
class Batch:
    """The messages that one transaction appends, to any sessions of a tenant. No two of them have the same key.

    :param now: their ``created_at``, and the sessions' last activity.
    :param expires_at: when the sessions expire now, unless they expire later already.
    """

    tenant_id: str
    messages: Sequence[PendingMessage]
    now: datetime
    expires_at: datetime

    def stored(self, message: PendingMessage, seq: int) -> SessionMessage:
        """Return one of the messages as a query would load it, once it was stored under this number."""
        return SessionMessage.stored(
            session_id=message.session_id,
            seq=seq,
            client_id=message.client_id,
            role=message.role,
            search_text=message.search_text,
            data=message.data,
            token_count=message.token_count,
            created_at=self.now,
            tenant_id=self.tenant_id,
        )


class Place(NamedTuple):
    """The number that a message got, and how many messages its session holds after the whole batch."""

    seq: int
    total_messages: int


class Counters(NamedTuple):
    """The session's row after one append; ``last_seq`` is the new message's number."""

    last_seq: int
    total_messages: int
    total_tokens: int
    last_activity_at: datetime
    updated_at: datetime
    expires_at: datetime
