"""Conversations whose histories are trees of entries: many records may end in the same tree."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, PrimaryKeyConstraint, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.elements import conv

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import UtcDateTime
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER

__all__ = ["ConversationEntryRow", "ConversationRow"]

# Other indexes do not begin with the tenant where they can: before PostgreSQL knows how many rows a tenant has, it
# takes an index that begins with the tenant for as good as the primary key, and then reads all rows of the tenant.
_HAS_BRANCHES = text("branches <> '[]'")


class ConversationEntryRow(Base):
    """One entry of a history, after its parent. It is never changed.

    ``data`` is JSON that only the writer of the entry knows, of a ``kind``. ``family_id`` is shared by all records and
    entries that came from the same first record.
    """

    __tablename__ = "agent_service_conversation_entries"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "entry_id"),
        ForeignKeyConstraint(
            ["tenant_id", "parent_id"],
            ["agent_service_conversation_entries.tenant_id", "agent_service_conversation_entries.entry_id"],
            name=conv("agent_service_fk_conversation_entries_parent"),
        ),
        Index("agent_service_ix_conversation_entries_parent", "parent_id", "tenant_id"),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    entry_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    parent_id: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    family_id: Mapped[UUID] = mapped_column(Uuid)
    kind: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    data: Mapped[str] = mapped_column(Text)


class ConversationRow(Base):
    """What is kept of a conversation besides its entries: where its history ends, and which ends it has left.

    ``branches`` is a JSON list of entry ids, and ``data`` JSON that only the writer knows. ``updated_at`` is the
    writer's moment, by which records are listed; ``saved_at`` is the database's own, by which they are removed.
    """

    __tablename__ = "agent_service_conversation_records"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "conversation_id"),
        ForeignKeyConstraint(
            ["tenant_id", "head_id"],
            ["agent_service_conversation_entries.tenant_id", "agent_service_conversation_entries.entry_id"],
            name=conv("agent_service_fk_conversation_records_head"),
        ),
        Index("agent_service_ix_conversation_records_updated", "tenant_id", "updated_at"),
        Index("agent_service_ix_conversation_records_scope", "scope", "tenant_id", "updated_at"),
        Index("agent_service_ix_conversation_records_head", "head_id", "tenant_id"),
        Index(
            "agent_service_ix_conversation_records_branched",
            "family_id",
            "tenant_id",
            postgresql_where=_HAS_BRANCHES,
            sqlite_where=_HAS_BRANCHES,
        ),
        Index("agent_service_ix_conversation_records_saved", "saved_at"),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    conversation_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    family_id: Mapped[UUID] = mapped_column(Uuid)
    head_id: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    scope: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    branches: Mapped[str] = mapped_column(Text)
    revision: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    data: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    saved_at: Mapped[datetime] = mapped_column(UtcDateTime)
