"""Checks of arguments, before anything is sent: errors name the argument, the given value and a remedy."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agent_service.core.errors import SessionValueError

__all__ = [
    "MAX_IDENTIFIER",
    "MAX_SEQ",
    "MAX_VERSION",
    "as_identifier",
    "optional_count",
    "require_count",
    "require_identifier",
    "require_moment",
    "require_retention",
    "require_session_id",
    "require_tenant",
    "require_text",
]

MAX_IDENTIFIER = 255
"""Longest identifier in characters: what every index entry of every engine has room for."""

MAX_SEQ = 2**63 - 1
"""Largest sequence number of a message."""
MAX_VERSION = 2**31 - 1
"""Largest version of a session."""

_UUID_LENGTH = 36


def as_identifier(text: str) -> UUID | str:
    """Return a canonical UUID string (lower case, hyphens) as the UUID it is, anything else as it stands."""
    if len(text) == _UUID_LENGTH and text[8] == "-":
        try:
            parsed = UUID(text)
        except ValueError:
            return text
        return parsed if str(parsed) == text else text
    return text


def require_identifier(value: Any, name: str) -> str:
    """Return the text of an identifier: a UUID, or 1 to 255 characters of the caller's own."""
    if isinstance(value, UUID):
        return str(value)
    text = require_text(value, name)
    if not 1 <= len(text) <= MAX_IDENTIFIER:
        raise SessionValueError(f"{name} must have 1 to {MAX_IDENTIFIER} characters, has {len(text)}: {text!a:.80}")
    return text


def require_text(value: Any, name: str) -> str:
    """Return a text that every engine can store."""
    if not isinstance(value, str):
        raise SessionValueError(f"{name} must be a string, not {type(value).__name__}: {value!r:.80}")
    if "\x00" in value:
        raise SessionValueError(f"{name} holds U+0000, which the database cannot keep here; remove it: {value!a:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise SessionValueError(f"{name} holds a lone surrogate, which is no text; repair it: {value!a:.80}") from None
    return str(value)


def require_session_id(value: Any, name: str = "session_id") -> UUID:
    """Return the UUID of a session from a UUID or its string form."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise SessionValueError(
        f"{name} must be a UUID, got {type(value).__name__} {value!r:.80}; other identifiers belong in external_id"
    )


def require_tenant(value: Any) -> str:
    """Return the text that names a tenant; "" is a tenant like any other."""
    if len(require_text(value, "tenant_id")) > MAX_IDENTIFIER:
        raise SessionValueError(f"tenant_id must have at most {MAX_IDENTIFIER} characters, has {len(value)}")
    return str(value)


def require_count(value: Any, name: str, *, least: int = 1, most: int) -> int:
    """Return an integer within bounds, both included."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SessionValueError(f"{name} must be an integer from {least} to {most}, got {value!r:.80}")
    return value


def optional_count(value: Any, name: str, *, most: int) -> int | None:
    """Return an integer from 0 to ``most``, or None where none is given."""
    return None if value is None else require_count(value, name, least=0, most=most)


def require_moment(value: Any, name: str) -> datetime:
    """Return a timezone-aware datetime in UTC."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise SessionValueError(f"{name} must be a timezone-aware datetime, got {value!r:.80}; use datetime.now(UTC)")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise SessionValueError(f"{name} is outside of the calendar in UTC: {value.isoformat()}") from None


def require_retention(value: Any, name: str, now: datetime) -> datetime:
    """Return the moment that a retention time, or a moment, means now."""
    if isinstance(value, timedelta):
        if value < timedelta():
            raise SessionValueError(f"{name} must not be negative, got {value!r}")
        try:
            return now - value
        except OverflowError:
            raise SessionValueError(f"{name} reaches back further than time does: {value!r}") from None
    if isinstance(value, datetime):
        return require_moment(value, name)
    raise SessionValueError(f"{name} must be a timedelta or a moment, got {value!r:.80}; use timedelta(days=30)")
