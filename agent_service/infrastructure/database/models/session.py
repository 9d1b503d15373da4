"""A conversation of one user with one agent."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Enum,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Text,
    Uuid,
    inspect,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.elements import conv

from agent_service.core.errors import SessionValueError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.values.types import Identifier, JsonText, MergeableJson, UtcDateTime
from agent_service.infrastructure.database.values.validation import (
    MAX_IDENTIFIER,
    as_identifier,
    require_identifier,
    require_moment,
    require_session_id,
    require_tenant,
    require_text,
)

__all__ = ["Session", "SessionStatus", "set_own_fields"]

_ACTIVE = text("status = 'active'")
_IS_FORK = text("parent_session_id IS NOT NULL")
_IS_DELETED = text("deleted_at IS NOT NULL")

_NEW: Final = {
    "last_seq": 0, "total_messages": 0, "total_tokens": 0, "version": 1, "parent_session_id": None, "fork_seq": None,
    "created_at": None, "updated_at": None, "last_activity_at": None, "completed_at": None, "deleted_at": None,
    "watched_until": None,
}  # fmt: skip
"""Fields that only the package sets, as a new session has them."""
_OF_FORKS: Final = frozenset({"parent_session_id", "fork_seq"})


class SessionStatus(StrEnum):
    """The status of a session. Any status may follow any other."""

    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def parse(cls, value: Any) -> "SessionStatus":
        """Return the status named; a SessionValueError lists the known ones."""
        try:
            return cls(value)
        except ValueError:
            known = ", ".join(repr(each.value) for each in cls)
            raise SessionValueError(f"status must be one of {known}, got {value!r:.80}") from None


class Session(Base):
    """The row of a session: who, what, its context, and counters that every append keeps exact.

    ``messages`` is loaded by :meth:`SessionRepository.get_session_with_messages` only; elsewhere reading it raises.
    ``user_id`` is a UUID or any string of up to 255 characters; ``external_id``, unique per tenant, holds the id that
    another framework gave the conversation. ``context`` and ``metadata`` (attribute ``session_metadata``) are JSON
    objects; once stored, changing one in place is a SessionValueError, because that would be lost. ``version`` counts
    the changes of the session's own fields (title, status, context, metadata, ...) that the repository makes; appends
    count ``last_seq`` instead. All moments are timezone-aware UTC. Values are checked when they are assigned:
    SessionValueError. Callers set ``id``, ``external_id``, ``user_id``, ``agent_id``, ``title``, ``status``,
    ``context``, ``metadata`` and ``expires_at``; other fields are the package's, and assigning them is a
    SessionValueError, as is another ``id`` or ``tenant_id`` of a session that is stored. Two tenants may use the same
    id: a session's key is its tenant and its id.
    """

    __tablename__ = "agent_service_sessions"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "id"),
        ForeignKeyConstraint(
            ["tenant_id", "parent_session_id"],
            ["agent_service_sessions.tenant_id", "agent_service_sessions.id"],
            name=conv("agent_service_fk_sessions_parent"),
        ),
        Index("agent_service_uq_sessions_external_id", "tenant_id", "external_id", unique=True),
        Index("agent_service_ix_sessions_user", "tenant_id", "user_id", "last_activity_at", "id"),
        Index("agent_service_ix_sessions_agent", "tenant_id", "agent_id", "last_activity_at", "id"),
        Index("agent_service_ix_sessions_expiry", "expires_at", postgresql_where=_ACTIVE, sqlite_where=_ACTIVE),
        Index(
            "agent_service_ix_sessions_children",
            "tenant_id",
            "parent_session_id",
            postgresql_where=_IS_FORK,
            sqlite_where=_IS_FORK,
        ),
        Index(
            "agent_service_ix_sessions_forks", "tenant_id", "user_id", postgresql_where=_IS_FORK, sqlite_where=_IS_FORK
        ),
        Index(
            "agent_service_ix_sessions_deleted", "deleted_at", postgresql_where=_IS_DELETED, sqlite_where=_IS_DELETED
        ),
        Column("truncations", Text),
    )
    # Not an attribute: only what removes messages, and tells followers, reads it (queries/truncations.py). Everything
    # else works at revisions that do not have it yet.
    __mapper_args__: Any = MappingProxyType({"exclude_properties": ("truncations",)})

    id: Mapped[UUID] = mapped_column(Uuid)
    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))
    external_id: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    user_id: Mapped[UUID | str] = mapped_column(Identifier)
    agent_id: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    title: Mapped[str | None] = mapped_column(Text)
    status: Mapped[SessionStatus] = mapped_column(
        Enum(
            SessionStatus,
            name="status",
            native_enum=False,
            create_constraint=True,
            length=16,
            values_callable=lambda statuses: [each.value for each in statuses],
        )
    )
    context: Mapped[dict[str, Any]] = mapped_column(MergeableJson())
    session_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", JsonText())
    last_seq: Mapped[int] = mapped_column(BigInteger)
    total_messages: Mapped[int] = mapped_column(BigInteger)
    total_tokens: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    parent_session_id: Mapped[UUID | None] = mapped_column(Uuid)
    fork_seq: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_activity_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    watched_until: Mapped[datetime | None] = mapped_column(UtcDateTime)

    messages: Mapped[list[SessionMessage]] = relationship(
        SessionMessage, order_by=SessionMessage.seq, lazy="raise", viewonly=True
    )

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **values: Any) -> None:
        if metadata is not None:
            values["session_metadata"] = metadata
        defaults = {"id": uuid7(), "status": SessionStatus.ACTIVE, "context": {}, "session_metadata": {}}
        set_own_fields(self, **_NEW)
        super().__init__(**{**defaults, **values})

    @validates("id", "tenant_id", include_removes=True)
    def _check_key(self, name: str, value: Any, is_remove: bool) -> Any:
        given: Any = require_session_id(value, name) if name == "id" else value
        if name == "tenant_id" and value is not None:
            given = require_tenant(value)
        if inspect(self).key is not None and (is_remove or given != self.__dict__.get(name)):
            raise SessionValueError(f"{name} of a stored session is never changed; create() another session")
        return given

    @validates(*_NEW, include_removes=True)
    def _refuse(self, name: str, value: Any, is_remove: bool) -> Any:
        if is_remove or value != self.__dict__.get(name):
            way = "fork() makes one" if name in _OF_FORKS else "import_user() restores a session with its history"
            raise SessionValueError(
                f"{name} of a session is set by the package only, got {value!r:.80}; leave it out ({way})"
            )
        return value

    @validates("user_id")
    def _check_user(self, name: str, value: Any) -> UUID | str:
        return as_identifier(require_identifier(value, name))

    @validates("agent_id", "external_id")
    def _check_identifier(self, name: str, value: Any) -> str | None:
        return None if value is None else require_identifier(value, name)

    @validates("title")
    def _check_title(self, name: str, value: Any) -> str | None:
        return None if value is None else require_text(value, name)

    @validates("status")
    def _check_status(self, name: str, value: Any) -> SessionStatus:  # noqa: ARG002
        return SessionStatus.parse(value)

    @validates("expires_at")
    def _check_moment(self, name: str, value: Any) -> datetime | None:
        return None if value is None else require_moment(value, name)

    def __repr__(self) -> str:
        return f"Session(id={str(self.id)!r}, title={self.title!a:.60}, status={self.status.value!r})"


def set_own_fields(session: Session, **values: Any) -> None:
    """Set fields that only the package sets; those that are not given are as a new session has them."""
    for name, value in {**_NEW, **values}.items():
        set_committed_value(session, name, value)
