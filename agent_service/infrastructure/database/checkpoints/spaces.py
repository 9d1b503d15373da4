"""The spaces that threads share: letting go of them, and taking over what is still needed.

Whoever calls these functions has locked the threads' rows.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection

from agent_service.infrastructure.database.checkpoints.statements import Statement

__all__ = ["keep_needed_values", "let_go"]

_SHARED: Final = Statement("""
SELECT space FROM agent_service_checkpoint_shares WHERE tenant_id = $1 AND thread IN KEYS($2)
""")
_LOCK: Final = Statement("""
SELECT thread, space FROM agent_service_checkpoint_shares WHERE tenant_id = $1 AND space IN KEYS($2)
ORDER BY space, thread FOR UPDATE
""")
_FORGET: Final = Statement("""
DELETE FROM agent_service_checkpoint_shares
WHERE tenant_id = $1 AND thread IN KEYS($2)
""")
_STILL_SHARED: Final = Statement("""
SELECT DISTINCT space FROM agent_service_checkpoint_shares WHERE tenant_id = $1 AND space IN KEYS($2)
""")
_REMOVE: Final = Statement("""
DELETE FROM agent_service_checkpoint_blobs
WHERE tenant_id = $1 AND space IN KEYS($2)
""")
_SHARES: Final = Statement("""
SELECT count(*) FROM agent_service_checkpoint_shares WHERE tenant_id = $1 AND thread = $2
""")

_NEEDED: Final = """
WITH needed AS MATERIALIZED (
    SELECT DISTINCT c.namespace, each.key AS channel, each.value AS version
    FROM agent_service_checkpoints AS c CROSS JOIN EACH(c.versions) AS each
    WHERE c.tenant_id = $1 AND c.thread = $2
)
"""
_TAKE_OVER: Final = Statement(f"""
INSERT INTO agent_service_checkpoint_blobs (tenant_id, space, namespace, channel, version, format, value)
{_NEEDED}
SELECT $1, $3, b.namespace, b.channel, b.version, b.format, b.value
FROM agent_service_checkpoint_shares AS s CROSS JOIN needed AS n
CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_blobs AS b
    WHERE b.tenant_id = $1 AND b.space = s.space AND b.namespace = n.namespace AND b.channel = n.channel
        AND b.version = n.version
    OFFSET 0) AS b
WHERE s.tenant_id = $1 AND s.thread = $2
ORDER BY s.rank DESC
ON CONFLICT (tenant_id, space, namespace, channel, version) DO NOTHING
""")  # noqa: S608 - text of our own
_DROP_THE_REST: Final = Statement(f"""
{_NEEDED}
DELETE FROM agent_service_checkpoint_blobs
WHERE tenant_id = $1 AND space = $3 AND NOT EXISTS (
    SELECT 1 FROM needed AS n WHERE n.namespace = agent_service_checkpoint_blobs.namespace
        AND n.channel = agent_service_checkpoint_blobs.channel AND n.version = agent_service_checkpoint_blobs.version
)
""")  # noqa: S608 - text of our own


def let_go(connection: Connection, tenant_id: str, threads: Collection[Any], own: Collection[Any] = ()) -> None:
    """Have threads share nothing any more, and remove the values of spaces that nobody is left to read.

    The rows of all who share a space are locked, in one order: of two threads that let go of it at the same time, the
    later one sees that it is the last.

    :param threads: their keys.
    :param own: spaces that they write to, which nobody shares, and which are to be removed as well.
    """
    keys, dying = list(threads), set(own)
    shared = list({space for (space,) in _SHARED.run(connection, tenant_id, keys)})
    if shared:
        _LOCK.run(connection, tenant_id, shared)
        _FORGET.run(connection, tenant_id, keys)
        dying.update(shared)
        dying.difference_update(space for (space,) in _STILL_SHARED.run(connection, tenant_id, shared))
    if dying:
        _REMOVE.run(connection, tenant_id, list(dying))


def keep_needed_values(connection: Connection, tenant_id: str, thread: Any, space: Any) -> None:
    """Have a thread's own space hold the values of its checkpoints, and nothing else, and share nothing any more."""
    if _SHARES.run(connection, tenant_id, thread)[0][0]:
        _TAKE_OVER.run(connection, tenant_id, thread, space)
        let_go(connection, tenant_id, [thread])
    _DROP_THE_REST.run(connection, tenant_id, thread, space)
