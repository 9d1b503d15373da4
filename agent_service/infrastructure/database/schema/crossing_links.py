"""Invalid parents, which earlier versions allowed: of another tenant, the session itself, or missing ones.

A parent can be missing on SQLite only, where a connection did not check foreign keys. Such links are removed before the
new keys forbid them. The session keeps its own messages and shows nothing of the other tenant's any more; its counters,
and those of its forks, are counted again.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, text

__all__ = ["cut_links"]

logger = logging.getLogger("agent_service.database")

_CUT_CROSSING: Final = text("""
UPDATE agent_service_sessions SET parent_session_id = NULL, fork_seq = NULL WHERE id IN (
    SELECT child.id FROM agent_service_sessions AS child
    JOIN agent_service_sessions AS parent ON parent.id = child.parent_session_id
    WHERE child.parent_session_id IS NOT NULL AND parent.tenant_id <> child.tenant_id
) RETURNING id
""")
_CUT_LOST: Final = text("""
UPDATE agent_service_sessions SET parent_session_id = NULL, fork_seq = NULL
WHERE parent_session_id IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM agent_service_sessions AS p WHERE p.id = agent_service_sessions.parent_session_id)
RETURNING id
""")
# Forks of forks, which contain every circle. They are walked here, at a cost linear in the chain's length; PostgreSQL
# plans a quadratic join for tables that were never analyzed.
_CHAINED: Final = text("""
SELECT child.id, child.parent_session_id FROM agent_service_sessions AS child
JOIN agent_service_sessions AS parent ON parent.id = child.parent_session_id
WHERE child.parent_session_id IS NOT NULL AND parent.parent_session_id IS NOT NULL
""")
_CUT: Final = text("UPDATE agent_service_sessions SET parent_session_id = NULL, fork_seq = NULL WHERE id = :id")
_FORKS: Final = text("SELECT id FROM agent_service_sessions WHERE parent_session_id = :id")
_RECOUNT: Final = text("""
WITH RECURSIVE line (owner, parent, fork_seq, upto) AS (
    SELECT id, parent_session_id, fork_seq, CAST(9223372036854775807 AS bigint)
    FROM agent_service_sessions WHERE id = :id
    UNION ALL
    SELECT s.id, s.parent_session_id, s.fork_seq, CASE WHEN line.fork_seq < upto THEN line.fork_seq ELSE upto END
    FROM line JOIN agent_service_sessions AS s ON s.id = line.parent
), shown AS (
    SELECT m.token_count FROM agent_service_session_messages AS m
    JOIN line ON m.session_id = line.owner AND m.seq <= line.upto
)
UPDATE agent_service_sessions SET
    total_messages = (SELECT count(*) FROM shown),
    total_tokens = (SELECT coalesce(sum(token_count), 0) FROM shown)
WHERE id = :id
""")


def cut_links(connection: Connection) -> None:
    """Remove links that cross tenants or form a circle, and log how many. Keys are still the old ones."""
    crossing = set(connection.scalars(_CUT_CROSSING))
    lost = set(connection.scalars(_CUT_LOST))
    circles = _in_circles({row[0]: row[1] for row in connection.execute(_CHAINED)})
    for each in sorted(circles):
        connection.execute(_CUT, {"id": each})
    if not crossing | lost | circles:
        return
    for each in _with_forks(connection, crossing | lost | circles):
        connection.execute(_RECOUNT, {"id": each})
    logger.warning(
        "cut %d sessions off from parents of another tenant, %d from parents that led back to themselves, and %d from "
        "parents that are not there; they keep their own messages", len(crossing), len(circles), len(lost),
    )  # fmt: skip


def _in_circles(parents: Mapping[Any, Any]) -> set[Any]:
    """Return the sessions that are their own ancestors; each is visited once."""
    found: set[Any] = set()
    seen: set[Any] = set()
    for start in parents:
        walk: dict[Any, None] = {}
        each = start
        while each in parents and each not in seen:
            seen.add(each)
            walk[each] = None
            each = parents[each]
        if each in walk:
            path = list(walk)
            found |= {*path[path.index(each) :]}
    return found


def _with_forks(connection: Connection, ids: Iterable[Any]) -> set[Any]:
    found, left = set(ids), list(ids)
    while left:
        forks = set(connection.scalars(_FORKS, {"id": left.pop()})) - found
        found |= forks
        left += forks
    return found
