"""Column types whose values mean the same on every engine."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, REAL, DateTime, Dialect, LargeBinary, String
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

from agent_service.core.fixed import fixed
from agent_service.infrastructure.database.values.validation import (
    MAX_IDENTIFIER,
    as_identifier,
    require_identifier,
    require_moment,
)

__all__ = ["Identifier", "JsonText", "MergeableJson", "Numbers", "UtcDateTime", "sqlite_moment", "sqlite_uuid"]


class Identifier(TypeDecorator[UUID | str]):
    """An id of the caller's own auth system, stored as text: a canonical UUID comes back as UUID, any other as str."""

    impl = String(MAX_IDENTIFIER)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else require_identifier(value, "identifier")

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | str | None:  # noqa: ARG002
        return None if value is None else as_identifier(value)


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware moment in UTC. SQLite keeps it as fixed-width text, so that it compares as it reads."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = require_moment(value, "datetime")
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class JsonText(TypeDecorator[Any]):
    """JSON kept as the text it was written as: key order, float form and U+0000 survive. Read values are fixed."""

    impl = JSON
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        return fixed(value)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)


class MergeableJson(JsonText):
    """JSON that PostgreSQL can merge in place (jsonb): values come back equal, U+0000 cannot be stored."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else JSON())


class Numbers(TypeDecorator[Any]):
    """A list of numbers of single precision on PostgreSQL; SQLite keeps none."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(REAL()) if dialect.name == "postgresql" else LargeBinary())


def sqlite_moment(value: datetime) -> str:
    """Return a moment as :class:`UtcDateTime` keeps it on SQLite, for statements that go to the driver."""
    return require_moment(value, "datetime").replace(tzinfo=None).isoformat(" ", "microseconds")


def sqlite_uuid(value: UUID) -> str:
    """Return a UUID as SQLAlchemy's ``Uuid`` keeps it on SQLite, for statements that go to the driver."""
    return value.hex
