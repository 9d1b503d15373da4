"""Walking from a checkpoint to its ancestors, for channels whose values are rebuilt from writes.

One statement for each page of ancestors, whatever the number of channels: it finds the nearest ancestor that has a
value of each channel, and the writes since then.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from agent_service.infrastructure.database.checkpoints.changes import Encoded
from agent_service.infrastructure.database.checkpoints.reading import StoredWrite
from agent_service.infrastructure.database.checkpoints.statements import Statement

__all__ = ["Branch", "History", "find_parent", "read_histories", "replayed_ancestors"]

_PAGE: Final = 1000
"""Ancestors that one statement looks at."""

_CHAIN: Final = """
WITH RECURSIVE chain (checkpoint_id, parent_id, versions, depth) AS (
    SELECT c.checkpoint_id, c.parent_id, c.versions, 1 FROM agent_service_checkpoints AS c
    WHERE c.tenant_id = $1 AND c.thread = $2 AND c.namespace = $3 AND c.checkpoint_id = $4
    UNION ALL
    SELECT c.checkpoint_id, c.parent_id, c.versions, chain.depth + 1
    FROM chain CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoints AS c
        WHERE c.tenant_id = $1 AND c.thread = $2 AND c.namespace = $3 AND c.checkpoint_id = chain.parent_id
        OFFSET 0) AS c
    WHERE chain.depth < $5
), spaces AS MATERIALIZED (
    SELECT t.space, 2147483647 AS rank FROM agent_service_checkpoint_threads AS t
    WHERE t.tenant_id = $1 AND t.id = $2
    UNION ALL
    SELECT s.space, s.rank FROM agent_service_checkpoint_shares AS s WHERE s.tenant_id = $1 AND s.thread = $2
), wanted AS MATERIALIZED (
    SELECT item.value AS channel FROM ITEMS($6) AS item
), named AS MATERIALIZED (
    SELECT chain.depth, each.key AS channel, each.value AS version
    FROM chain CROSS JOIN EACH(chain.versions) AS each WHERE each.key IN (SELECT channel FROM wanted)
), valued AS MATERIALIZED (
    SELECT n.depth, b.channel, b.version, b.space, s.rank
    FROM named AS n CROSS JOIN spaces AS s
    CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_blobs AS b
        WHERE b.tenant_id = $1 AND b.space = s.space AND b.namespace = $3 AND b.channel = n.channel
            AND b.version = n.version
        OFFSET 0) AS b
), nearest AS MATERIALIZED (
    SELECT channel, min(depth) AS depth FROM valued GROUP BY channel
)
"""

_HISTORY: Final = Statement(f"""
{_CHAIN}
SELECT 0 AS kind, chain.depth, chain.checkpoint_id, chain.parent_id, NULL AS task_path, 0 AS place, NULL AS format,
    NULL AS value
FROM chain WHERE chain.depth = (SELECT max(depth) FROM chain)
UNION ALL
SELECT 1, v.depth, v.channel, NULL, NULL, v.rank, b.format, b.value
FROM valued AS v JOIN nearest AS n ON n.channel = v.channel AND n.depth = v.depth
CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_blobs AS b
    WHERE b.tenant_id = $1 AND b.space = v.space AND b.namespace = $3 AND b.channel = v.channel
        AND b.version = v.version
    OFFSET 0) AS b
UNION ALL
SELECT 2, chain.depth, w.channel, w.task_id, w.task_path, w.place, w.format, w.value
FROM chain CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_writes AS w
    WHERE w.tenant_id = $1 AND w.thread = $2 AND w.namespace = $3 AND w.checkpoint_id = chain.checkpoint_id
    OFFSET 0) AS w
LEFT JOIN nearest AS n ON n.channel = w.channel
WHERE w.channel IN (SELECT channel FROM wanted) AND (n.depth IS NULL OR chain.depth <= n.depth)
""")  # noqa: S608 - text of our own

_ANCESTORS: Final = Statement(f"""
{_CHAIN}
SELECT 0 AS kind, chain.depth, chain.checkpoint_id, chain.parent_id FROM chain
UNION ALL
SELECT 1, nearest.depth, nearest.channel, NULL FROM nearest
""")  # noqa: S608 - text of our own

_PARENT: Final = Statement("""
SELECT c.thread, c.parent_id FROM agent_service_checkpoints AS c
WHERE c.tenant_id = $1 AND c.namespace = $3
    AND c.thread = (SELECT id FROM agent_service_checkpoint_threads WHERE tenant_id = $1 AND thread_id = $2)
    AND ($4::text IS NULL OR c.checkpoint_id = $4::text)
ORDER BY c.checkpoint_id DESC LIMIT 1
""")


class Branch(NamedTuple):
    """A namespace of a thread, by the thread's key."""

    tenant_id: str
    thread: Any
    namespace: str


@dataclass(slots=True)
class History:
    """What a channel's value is rebuilt from: the value of the nearest ancestor that has one, and the writes since.

    :param seed: None: no ancestor has a value.
    :param writes: in the order in which they were applied; those of that ancestor are the first.
    """

    seed: Encoded | None = None
    writes: list[StoredWrite] = field(default_factory=list)


def find_parent(
    connection: Connection, tenant_id: str, place: tuple[str, str], checkpoint_id: str | None
) -> tuple[Branch, str | None] | None:
    """Return where a checkpoint is, and its parent; None: there is no such checkpoint.

    :param place: the thread's id and the namespace.
    :param checkpoint_id: None: the latest.
    """
    found = _PARENT.run(connection, tenant_id, *place, checkpoint_id)
    return (Branch(tenant_id, found[0][0], place[1]), found[0][1]) if found else None


def read_histories(
    connection: Connection, branch: Branch, first: str | None, channels: Collection[str]
) -> dict[str, History]:
    """Return the history of each channel, from an ancestor on backwards.

    :param first: the checkpoint's parent.
    """
    histories = {channel: History() for channel in channels}
    backwards: list[tuple[Any, ...]] = []
    left = set(channels)
    for offset, rows in _pages(_HISTORY, connection, branch, first, left):
        ranks: dict[str, int] = {}
        for kind, depth, name, task_id, task_path, place, form, value in rows:
            if kind == 1 and ranks.get(name, -1) < place:
                histories[name].seed, ranks[name] = Encoded(form, value), place
            elif kind == 2:
                backwards.append((-(offset + depth), task_path, task_id, place, name, Encoded(form, value)))
        left.difference_update(ranks)  # in place: the pages look at it
    for _, _, task_id, _, channel, value in sorted(backwards, key=lambda each: each[:4]):
        histories[channel].writes.append(StoredWrite(task_id, channel, value))
    return histories


def replayed_ancestors(
    connection: Connection, branch: Branch, first: str | None, channels: Collection[str]
) -> set[str]:
    """Return the ancestors, from ``first`` on, without which a value of one of the channels could not be rebuilt."""
    needed: list[tuple[int, str]] = []
    left, farthest = set(channels), 0
    for offset, rows in _pages(_ANCESTORS, connection, branch, first, left):
        needed += [(offset + depth, name) for kind, depth, name, _ in rows if kind == 0]
        nearest = {name: offset + depth for kind, depth, name, _ in rows if kind == 1}
        farthest = max(farthest, *nearest.values(), 0)
        left.difference_update(nearest)
    return {name for depth, name in needed if left or depth <= farthest}


def _pages(
    statement: Statement, connection: Connection, branch: Branch, first: str | None, left: set[str]
) -> Iterator[tuple[int, Any]]:
    """Yield how many ancestors came before a page, and the page, while there are channels ``left`` to look for."""
    offset, seen = 0, set[str]()
    while first is not None and left and first not in seen:
        seen.add(first)
        rows = statement.run(connection, *branch, first, _PAGE, json.dumps(sorted(left)))
        chain = [(depth, parent) for kind, depth, _, parent, *_ in rows if kind == 0]
        if not chain:
            return
        yield offset, rows
        depth, parent = max(chain, key=lambda each: each[0])
        first, offset = parent, offset + depth
