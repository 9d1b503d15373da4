"""Dates in header fields."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["http_date"]


def http_date(text: str) -> datetime:
    """Return the moment that a field names (RFC 9110, 5.6.7).

    :raises ValueError: it cannot be read.
    """
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, OverflowError) as exc:  # no date at all, or numbers that no date has
        raise ValueError(f"no date: {text!a:.80}") from exc
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
