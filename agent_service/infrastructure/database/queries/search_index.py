"""Bringing SQLite's search index up to date with what was appended.

Indexing a message by trigrams costs more than storing it, so appending only puts it on a list
(``session_search_pending``), and search reads what is on the list besides what is indexed. Deleting an entry of
the list indexes the message, by a trigger. The list is kept short by those who append without a writer (of single
messages, every eighth), by the writer when it has nothing else to do, by the cleanup, and, past 10,000 entries, by the
append that adds one more.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

__all__ = ["INDEX_OLDEST", "index_along", "index_in_turn", "index_oldest"]

INDEX_OLDEST: Final = """
DELETE FROM agent_service_session_search_pending
WHERE id IN (SELECT id FROM agent_service_session_search_pending ORDER BY id LIMIT ?)
"""
_BESIDES: Final = 20
_TURN: Final = 8
"""Single messages that are indexed at once. Eight cost little more than one, and a search reads as many as wait."""


def index_oldest(connection: Connection, count: int) -> int:
    """Index at most ``count`` messages of an SQLite database, in the connection's transaction; return how many."""
    return connection.exec_driver_sql(INDEX_OLDEST, (count,)).rowcount


def index_along(run: Callable[[str, tuple[int]], Any], appended: int) -> None:
    """Index as many messages as were just appended, and some more of the list.

    :param run: runs a statement in the transaction of the append.
    """
    run(INDEX_OLDEST, (appended + _BESIDES,))


def index_in_turn(run: Callable[[str, tuple[int]], Any], session_id: UUID, seq: int) -> None:
    """Index what waits if it is this message's turn: every eighth of a session, and of all first ones every eighth."""
    if (session_id.int + seq) % _TURN == 0:
        index_along(run, _TURN)
