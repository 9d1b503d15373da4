"""A context document under its key."""

from datetime import datetime

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import UtcDateTime

__all__ = ["ContextEntry"]

_EXPIRES = text("expires_at IS NOT NULL")


class ContextEntry(Base):
    """One entry of a key-value table: see :class:`~agent_service.infrastructure.database.contexts.table.KeyValueTable`.

    ``key`` is the key itself, or a digest where the key is too long for an index; ``long_key`` is the whole key then.
    From ``expires_at`` on, by the database's clock, the entry counts as absent; None: it does not expire.
    """

    __tablename__ = "agent_service_context_store"
    __table_args__ = (
        Index("agent_service_ix_context_store_expiry", "expires_at", postgresql_where=_EXPIRES, sqlite_where=_EXPIRES),
    )

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    long_key: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
