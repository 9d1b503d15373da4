"""Threads of checkpoints, as agent frameworks save the state of a graph: what a run resumes from.

A thread has checkpoints, and writes that tasks made towards the next one. The values of channels lie apart, in a
*space* under their versions: a checkpoint names the versions it consists of, so a value that did not change is stored
once. Every thread writes into a space of its own. A copied thread shares the spaces of its source, which nobody writes
to from then on: see :class:`CheckpointShare`.

Names of the framework are compared byte by byte, whatever the collation of the database, because the greatest id of a
checkpoint is the latest one.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, Integer, LargeBinary, PrimaryKeyConstraint, String, Text, Uuid, text
from sqlalchemy.orm import Mapped, mapped_column

from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import UtcDateTime
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER

__all__ = ["Checkpoint", "CheckpointBlob", "CheckpointShare", "CheckpointThread", "CheckpointWrite"]

_NAME = Text().with_variant(Text(collation="C"), "postgresql")
_OF_A_USER = text("user_id IS NOT NULL")
_OF_A_RUN = text("run_id IS NOT NULL")


class CheckpointThread(Base):
    """A thread. ``id`` is what its rows refer to; ``space`` is where it writes values.

    ``active_at`` is when something was last written to it, some minutes earlier at most.
    """

    __tablename__ = "agent_service_checkpoint_threads"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "thread_id"),
        Index("agent_service_uq_checkpoint_threads_id", "tenant_id", "id", unique=True),
        Index(
            "agent_service_ix_checkpoint_threads_user",
            "tenant_id",
            "user_id",
            postgresql_where=_OF_A_USER,
            sqlite_where=_OF_A_USER,
        ),
        Index("agent_service_ix_checkpoint_threads_active", "active_at"),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    thread_id: Mapped[str] = mapped_column(_NAME)
    id: Mapped[UUID] = mapped_column(Uuid)
    space: Mapped[UUID] = mapped_column(Uuid)
    user_id: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    active_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CheckpointShare(Base):
    """A space that a thread reads and nobody writes to any more. The thread that has it alone may remove it.

    Of several values of one version, that of the space with the greatest ``rank`` counts, and the thread's own first.
    """

    __tablename__ = "agent_service_checkpoint_shares"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "thread", "space"),
        Index("agent_service_ix_checkpoint_shares_space", "tenant_id", "space"),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    thread: Mapped[UUID] = mapped_column(Uuid)
    space: Mapped[UUID] = mapped_column(Uuid)
    rank: Mapped[int] = mapped_column(Integer)


class Checkpoint(Base):
    """A checkpoint: ``document`` and ``meta`` are a framework's, each with the name of its format.

    ``versions`` is a JSON object of channels and their versions. ``replayed`` is a JSON list of channels whose values
    are rebuilt from writes of earlier checkpoints; None: there are none. ``facts`` is a JSON object with those texts of
    the metadata that can be searched for.
    """

    __tablename__ = "agent_service_checkpoints"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "thread", "namespace", "checkpoint_id"),
        Index("agent_service_ix_checkpoints_newest", "tenant_id", "checkpoint_id", "thread", "namespace"),
        Index(
            "agent_service_ix_checkpoints_run",
            "tenant_id",
            "run_id",
            postgresql_where=_OF_A_RUN,
            sqlite_where=_OF_A_RUN,
        ),
    )

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    thread: Mapped[UUID] = mapped_column(Uuid)
    namespace: Mapped[str] = mapped_column(_NAME)
    checkpoint_id: Mapped[str] = mapped_column(_NAME)
    parent_id: Mapped[str | None] = mapped_column(_NAME)
    versions: Mapped[str] = mapped_column(Text)
    replayed: Mapped[str | None] = mapped_column(Text)
    facts: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str | None] = mapped_column(_NAME)
    format: Mapped[str] = mapped_column(Text)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    meta_format: Mapped[str] = mapped_column(Text)
    meta: Mapped[bytes] = mapped_column(LargeBinary)


class CheckpointBlob(Base):
    """The value that a channel has at a version."""

    __tablename__ = "agent_service_checkpoint_blobs"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "space", "namespace", "channel", "version"),)

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    space: Mapped[UUID] = mapped_column(Uuid)
    namespace: Mapped[str] = mapped_column(_NAME)
    channel: Mapped[str] = mapped_column(_NAME)
    version: Mapped[str] = mapped_column(_NAME)
    format: Mapped[str] = mapped_column(Text)
    value: Mapped[bytes] = mapped_column(LargeBinary)


class CheckpointWrite(Base):
    """What a task wrote to a channel after a checkpoint, towards the next one.

    ``place`` is its place among the writes of its task; below 0 it is of a special kind, and the last one counts.
    """

    __tablename__ = "agent_service_checkpoint_writes"
    __table_args__ = (PrimaryKeyConstraint("tenant_id", "thread", "namespace", "checkpoint_id", "task_id", "place"),)

    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    thread: Mapped[UUID] = mapped_column(Uuid)
    namespace: Mapped[str] = mapped_column(_NAME)
    checkpoint_id: Mapped[str] = mapped_column(_NAME)
    task_id: Mapped[str] = mapped_column(_NAME)
    place: Mapped[int] = mapped_column(Integer, autoincrement=False)
    task_path: Mapped[str] = mapped_column(Text)
    channel: Mapped[str] = mapped_column(_NAME)
    format: Mapped[str] = mapped_column(Text)
    value: Mapped[bytes] = mapped_column(LargeBinary)
