"""One message of a session's history."""

from collections.abc import Iterator, KeysView
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Text,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, validates
from sqlalchemy.sql.elements import conv

from agent_service.core.errors import SessionValueError
from agent_service.core.fixed import fixed, plain
from agent_service.infrastructure.database.models.base import Base
from agent_service.infrastructure.database.values.types import JsonText, UtcDateTime
from agent_service.infrastructure.database.values.validation import MAX_IDENTIFIER

__all__ = ["SessionMessage"]


class SessionMessage(Base):
    """A stored message. It is never changed (SessionValueError): a reader's earlier history stays as it was.

    ``message["content"]`` and :meth:`to_dict` give what was added, exactly; ``role`` is the role in that dict, or else
    the one that was given beside it. ``seq`` is its place in the session: 1, 2, ...
    Its key begins with the tenant, as the session's does, so no message can belong to another tenant's session.
    """

    __tablename__ = "agent_service_session_messages"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "session_id", "seq"),
        ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["agent_service_sessions.tenant_id", "agent_service_sessions.id"],
            name=conv("agent_service_fk_session_messages_session"),
            ondelete="CASCADE",
        ),
        Index(
            "agent_service_uq_session_messages_client",
            "tenant_id",
            "session_id",
            "client_id",
            unique=True,
            postgresql_where=text("client_id IS NOT NULL"),
            sqlite_where=text("client_id IS NOT NULL"),
        ),
    )

    session_id: Mapped[UUID] = mapped_column(Uuid)
    seq: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    client_id: Mapped[str | None] = mapped_column(String(MAX_IDENTIFIER))
    role: Mapped[str] = mapped_column(Text)
    search_text: Mapped[str | None] = mapped_column("content", Text)
    data: Mapped[dict[str, Any]] = mapped_column(JsonText())
    token_count: Mapped[int | None] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    tenant_id: Mapped[str] = mapped_column(String(MAX_IDENTIFIER))

    @classmethod
    def stored(cls, **values: Any) -> "SessionMessage":
        """Return the message that a row holds, as a query would load it but belonging to no session object."""
        message: SessionMessage = cls.__mapper__.class_manager.new_instance()
        message.__dict__.update(values, data=fixed(values["data"]))
        return message

    @validates(
        "session_id", "seq", "client_id", "role", "search_text", "data", "token_count", "created_at", "tenant_id",
        include_removes=True,
    )  # fmt: skip
    def _refuse(self, name: str, _value: Any, _is_remove: bool) -> NoReturn:
        raise SessionValueError(f"{name} of a message is never changed; append another one, or pop_message() the last")

    @property
    def content(self) -> Any:
        """The message's content as it was added: text, a list of parts, or None."""
        return self.data.get("content")

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that was added, exactly; changing it changes nothing here."""
        copy: dict[str, Any] = plain(self.data)
        return copy

    def keys(self) -> KeysView[str]:
        """Return the keys of the dict that was added, in its order."""
        return self.data.keys()

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __repr__(self) -> str:
        return f"SessionMessage(session_id={str(self.session_id)!r}, seq={self.seq}, role={self.role!r})"
