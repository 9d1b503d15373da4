"""What is appended at once, and what comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from agent_service.infrastructure.database.append.incoming import IncomingMessage
from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["AppendEntry", "BatchAppend", "ClientKey", "Place"]

ClientKey: TypeAlias = tuple[UUID, str]
"""What makes a second append of the same message of a tenant a repetition: its session and its client id."""


@dataclass(frozen=True, slots=True)
class AppendEntry:
    """One message of a batch, and where it belongs."""

    session_id: UUID
    message: IncomingMessage
    client_id: str | None = None

    @property
    def key(self) -> ClientKey | None:
        """The message's identity, if it was given one."""
        return None if self.client_id is None else (self.session_id, self.client_id)


@dataclass(frozen=True, slots=True)
class BatchAppend:
    """What is to be appended in one transaction. No two entries have the same key."""

    tenant_id: str
    entries: Sequence[AppendEntry]
    now: datetime
    expires_at: datetime

    def stored(self, entry: AppendEntry, seq: int) -> SessionMessage:
        """Return the message that is stored for an entry."""
        message = entry.message
        return SessionMessage.stored(
            session_id=entry.session_id,
            seq=seq,
            client_id=entry.client_id,
            role=message.role,
            search_text=message.search_text,
            data=message.data,
            token_count=message.token_count,
            created_at=self.now,
            tenant_id=self.tenant_id,
        )


class Place(NamedTuple):
    """The number an entry got, and how many messages its session holds after the whole batch."""

    seq: int
    total_messages: int
