"""Items that agents remember: documents under a namespace and a key, and the vectors by which they are found."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKeyConstraint, Index, PrimaryKeyConstraint, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import MergeableJson, Numbers, UtcDateTime
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER

__all__ = ["ItemVector", "StoredItem"]

_EXPIRES = text("expires_at IS NOT NULL")


class StoredItem(Base):
    """One item. ``namespace`` is a path as :mod:`~agent_service.infrastructure.database.items.places` writes it.

    ``content`` is the text that searches look through; None: the item is not searched by text. From ``expires_at`` on,
    by the database's clock, its time is over; reads that refresh it move that to ``ttl`` seconds from then.
    """

    __tablename__ = "agent_service_store_items"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "namespace", "key"),
        Index("agent_service_ix_store_items_expiry", "expires_at", postgresql_where=_EXPIRES, sqlite_where=_EXPIRES),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    namespace: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    value: Mapped[Any] = mapped_column(MergeableJson)
    content: Mapped[str | None] = mapped_column(Text)
    ttl: Mapped[float | None] = mapped_column(Float(53))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class ItemVector(Base):
    """One embedded text of an item; ``place`` says which. Empty on SQLite, which compares no vectors.

    ``embedding`` is an array of numbers, which every PostgreSQL has; pgvector compares it as one of its own.
    """

    __tablename__ = "agent_service_store_vectors"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "namespace", "key", "place"),
        ForeignKeyConstraint(
            ["tenant_id", "namespace", "key"],
            [
                "agent_service_store_items.tenant_id",
                "agent_service_store_items.namespace",
                "agent_service_store_items.key",
            ],
            ondelete="CASCADE",
        ),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    namespace: Mapped[str] = mapped_column(Text)
    key: Mapped[str] = mapped_column(Text)
    place: Mapped[str] = mapped_column(Text)
    embedding: Mapped[Any] = mapped_column(Numbers)
