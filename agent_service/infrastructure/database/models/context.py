"""A context document under its key."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from agent_service.infrastructure.database.models.base import Base

__all__ = ["ContextEntry"]


class ContextEntry(Base):
    """One entry of a key-value table: see :class:`~agent_service.infrastructure.database.contexts.table.KeyValueTable`.

    ``key`` is the key itself, or a digest where the key is too long for an index; ``long_key`` is the whole key then.
    """

    __tablename__ = "agent_service_context_store"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)
    long_key: Mapped[str | None] = mapped_column(Text)
