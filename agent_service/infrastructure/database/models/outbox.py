"""Invalidations of caches that are committed with a transaction and applied after it: the transactional outbox."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import SmallInteger, Text, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import UtcDateTime

__all__ = ["OutboxRow"]


class OutboxRow(Base):
    """One bounded piece of work, stored from the commit that asks for it until it is done.

    ``id`` sorts by time and is never used twice. ``body`` is JSON that only :mod:`agent_service.infrastructure.outbox`
    reads; ``format`` says how. ``failed_at`` is when it turned out to be unreadable.
    """

    __tablename__ = "agent_service_cache_outbox"

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    format: Mapped[int] = mapped_column(SmallInteger)
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    failed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
