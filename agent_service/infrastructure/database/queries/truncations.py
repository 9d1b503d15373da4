"""What followers of a session need to know about messages that were removed.

A session's row keeps a short list of ``[seq, from_seq]`` as JSON, the oldest first: when ``seq`` was the last number
given out, the messages from ``from_seq`` on were removed. An entry that a later one covers is left out, so ``from_seq``
grows along the list. Beyond :data:`MOST` entries the two oldest become one that covers both.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Select, Text, cast, func, select

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import of_tenant

__all__ = [
    "TRUNCATIONS",
    "Removed",
    "announce",
    "first_to_forget",
    "read_removed",
    "removed_again",
    "truncations_of",
]

MOST: Final = 50
TRUNCATIONS: Final[Any] = Session.__table__.c.truncations


class Removed(NamedTuple):
    """The messages from ``from_seq`` on were removed when ``seq`` was the last number that had been given out."""

    seq: int
    from_seq: int


def read_removed(text: str | None) -> list[Removed]:
    """Return the entries of a session's list."""
    return [] if text is None else [Removed(*each) for each in json.loads(text)]


def removed_again(text: str | None, seq: int, from_seq: int) -> str:
    """Return the list with one more entry.

    :param seq: the last number that was given out; not below that of any entry.
    """
    entries = [each for each in read_removed(text) if each.from_seq < from_seq]
    if not (entries and entries[-1].seq == seq):
        entries.append(Removed(seq, from_seq))
    if len(entries) > MOST:
        entries[:2] = [Removed(entries[1].seq, entries[0].from_seq)]
    return json.dumps(entries, separators=(",", ":"))


def first_to_forget(entries: Iterable[Removed], after_seq: int, upto: int) -> int | None:
    """Return from which number on messages were removed that a follower has, or was about to get; None: none of them.

    :param after_seq: it has the messages up to this number.
    :param upto: and was about to get those up to this one.
    """
    return next((each.from_seq for each in entries if each.seq >= after_seq and each.from_seq <= upto), None)


def truncations_of(tenant_id: str, session_id: UUID) -> Select[Any]:
    """Select a session's list."""
    return select(TRUNCATIONS).where(*of_tenant(tenant_id, session_id))


def announce(channel: str, tenant_id: str, session_id: UUID) -> Select[Any]:
    """Notify the followers of a session, if it has any, when the transaction commits (PostgreSQL)."""
    watched = (*of_tenant(tenant_id, session_id), Session.watched_until > func.now())
    return select(func.pg_notify(channel, cast(Session.id, Text))).where(*watched)
