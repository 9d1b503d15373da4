"""What can be the name of a PostgreSQL schema, and what can stand before the name of every table."""

import re
from typing import Final

__all__ = ["LONGEST_NAME", "require_schema", "require_table_prefix"]

LONGEST_NAME: Final = 63
"""Bytes of an identifier; PostgreSQL cuts off what is longer."""
_LONGEST_PREFIX: Final = 20
"""Bytes of a prefix, so that the longest name it is put before still fits."""
_ALLOWED: Final = re.compile(r"[^\W\d][\w $-]*\Z")
_RESERVED_SCHEMAS: Final = ("pg_", "information_schema")


def require_schema(value: str) -> str:
    """Return a name that a schema can have.

    :raises ValueError: it cannot be one; the message says why.
    """
    _require(value, LONGEST_NAME)
    if value.startswith(_RESERVED_SCHEMAS):
        raise ValueError(f"is PostgreSQL's own, got {value!r:.80}; choose another schema")
    if value != value.rstrip():
        raise ValueError(f"ends with a space, got {value!r:.80}")
    return value


def require_table_prefix(value: str) -> str:
    """Return what can stand before the names of tables; "" is nothing.

    :raises ValueError: it cannot; the message says why.
    """
    if value == "":
        return value
    _require(value, _LONGEST_PREFIX)
    if value.lower().startswith("sqlite_"):
        raise ValueError(f"begins with sqlite_, which SQLite keeps for itself, got {value!r:.80}")
    return value


def _require(value: str, longest: int) -> None:
    if not isinstance(value, str) or not _ALLOWED.match(value):
        raise ValueError(
            "must begin with a letter or underscore, followed by letters, digits, underscores, hyphens, spaces or $, "
            f"got {value!r:.80}"
        )
    if len(value.encode()) > longest:
        raise ValueError(f"must have at most {longest} bytes, got {len(value.encode())}: {value!r:.80}")
