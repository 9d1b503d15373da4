"""Waiting for SQLite's locks in short intervals, so that an abandoned wait ends."""

import re
import sqlite3
import time
from collections.abc import Callable
from typing import Final, TypeVar

from agent_service.core.backoff import Backoff
from agent_service.core.deadline import Deadline
from agent_service.core.milliseconds import to_milliseconds

__all__ = ["may_write", "patiently"]

T = TypeVar("T")

_PIECE: Final = 0.1
"""Seconds that SQLite itself waits at a time."""
_PAUSES: Final = Backoff(0.005, _PIECE)
_READS: Final = ("SELECT", "PRAGMA", "EXPLAIN", "VALUES")
_WRITES: Final = re.compile(r"\b(INSERT|UPDATE|DELETE|REPLACE\s+INTO)\b")
_WORDS: Final = ("INSERT", "UPDATE", "DELETE", "REPLACE")


def may_write(statement: str) -> bool:
    """Whether a statement may need the write lock."""
    first = statement.lstrip()[:7].upper()
    if first.startswith("WITH"):
        # Most statements have none of the words; looking for them costs far less than the pattern does.
        text = statement.upper()
        return any(word in text for word in _WORDS) and _WRITES.search(text) is not None
    return not first.startswith(_READS)


def patiently(
    raw: sqlite3.Connection, attempt: Callable[[], T], *, wanted: Callable[[], bool], patience: float | None = None
) -> T:
    """Call ``attempt`` again while another connection has the lock, in the connection's own thread.

    :param wanted: whether a caller still waits for the result.
    :param patience: seconds after which the database's own error is raised; None: the connection's busy timeout.
    """
    (given,) = raw.execute("PRAGMA busy_timeout").fetchone()
    seconds = given / 1000 if patience is None else patience
    raw.execute(f"PRAGMA busy_timeout = {to_milliseconds(min(seconds, _PIECE))}").fetchone()
    try:
        return _repeatedly(raw, attempt, wanted, Deadline.after(seconds))
    finally:
        raw.execute(f"PRAGMA busy_timeout = {given}").fetchone()


def _repeatedly(raw: sqlite3.Connection, attempt: Callable[[], T], wanted: Callable[[], bool], deadline: Deadline) -> T:
    failures, changes = 0, raw.total_changes
    while True:
        asked = time.monotonic()
        try:
            return attempt()
        except sqlite3.OperationalError as exc:
            waited = time.monotonic() - asked >= _PIECE / 2
            # Within a transaction SQLite refuses at once what waiting cannot help; and rows that are written stay so.
            hopeless = not _is_busy(exc) or (raw.in_transaction and not waited) or raw.total_changes != changes
            if hopeless or deadline.over or not wanted():
                raise
        if not waited:
            time.sleep(_PAUSES.pause(failures))
            failures += 1


def _is_busy(exc: sqlite3.OperationalError) -> bool:
    code = getattr(exc, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT
