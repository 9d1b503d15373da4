"""Check names: of a PostgreSQL schema, and the prefix of all table names."""

import re
from typing import Final

__all__ = ["LONGEST_NAME", "require_schema", "require_table_prefix"]

LONGEST_NAME: Final = 63
"""The most bytes of an identifier; PostgreSQL truncates longer ones."""
_LONGEST_PREFIX: Final = 20
"""The most bytes of a prefix, so that the longest name with it still fits."""
_ALLOWED: Final = re.compile(r"[^\W\d][\w $-]*\Z")
_RESERVED_SCHEMAS: Final = ("pg_", "information_schema")


def require_schema(value: str) -> str:
    """Return the name of a schema, checked.

    :raises ValueError: it cannot be one; the message says why.
    """
    _require(value, LONGEST_NAME)
    if value.startswith(_RESERVED_SCHEMAS):
        raise ValueError(f"is PostgreSQL's own, got {value!r:.80}; choose another schema")
    if value != value.rstrip():
        raise ValueError(f"ends with a space, got {value!r:.80}")
    return value


def require_table_prefix(value: str) -> str:
    """Return the prefix of table names, checked; "" is none.

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
