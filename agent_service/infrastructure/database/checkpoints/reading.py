"""Reading checkpoints with their values and writes: one statement, so one state of the database, for each page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from agent_service.infrastructure.database.checkpoints.changes import Encoded
from agent_service.infrastructure.database.checkpoints.channels import read_versions
from agent_service.infrastructure.database.checkpoints.statements import Statement

__all__ = ["Place", "Question", "StoredCheckpoint", "StoredWrite", "read_page"]

_OWN: Final = 2**31 - 1
"""Rank of the space that a thread writes to."""

_PAGE: Final = """
WITH chosen AS MATERIALIZED (
    SELECT c.thread, c.namespace, c.checkpoint_id, c.parent_id, c.versions, c.format, c.document, c.meta_format, c.meta
    FROM agent_service_checkpoints AS c
    WHERE c.tenant_id = $1 {conditions}
    ORDER BY {order} LIMIT $2
), owners AS MATERIALIZED (
    SELECT c.thread, t.thread_id, t.space FROM (SELECT DISTINCT thread FROM chosen) AS c
    CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_threads AS t
        WHERE t.tenant_id = $1 AND t.id = c.thread
        OFFSET 0) AS t
), spaces AS MATERIALIZED (
    SELECT thread, space, {own} AS rank FROM owners
    UNION ALL
    SELECT o.thread, s.space, s.rank FROM owners AS o
    CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_shares AS s
        WHERE s.tenant_id = $1 AND s.thread = o.thread
        OFFSET 0) AS s
), named AS MATERIALIZED (
    SELECT DISTINCT c.thread, c.namespace, each.key AS channel, each.value AS version
    FROM chosen AS c CROSS JOIN EACH(c.versions) AS each
)
SELECT 0 AS kind, c.thread, c.namespace, c.checkpoint_id, c.parent_id, o.thread_id, c.versions, 0, c.format, c.document,
    c.meta_format, c.meta
FROM chosen AS c JOIN owners AS o ON o.thread = c.thread
UNION ALL
SELECT 1, n.thread, n.namespace, n.channel, n.version, NULL, NULL, s.rank, b.format, b.value, NULL, NULL
FROM named AS n JOIN spaces AS s ON s.thread = n.thread
CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_blobs AS b
    WHERE b.tenant_id = $1 AND b.space = s.space AND b.namespace = n.namespace AND b.channel = n.channel
        AND b.version = n.version
    OFFSET 0) AS b
UNION ALL
SELECT 2, w.thread, w.namespace, w.checkpoint_id, w.task_id, w.channel, w.task_path, w.place, w.format, w.value, NULL,
    NULL
FROM chosen AS c CROSS JOIN LATERAL (SELECT * FROM agent_service_checkpoint_writes AS w
    WHERE w.tenant_id = $1 AND w.thread = c.thread AND w.namespace = c.namespace AND w.checkpoint_id = c.checkpoint_id
    OFFSET 0) AS w
"""

_OF_THREAD: Final = (
    "AND c.thread = (SELECT id FROM agent_service_checkpoint_threads WHERE tenant_id = $1 AND thread_id = {})"
)
_HAS_FACT: Final = "AND EXISTS (SELECT 1 FROM EACH(c.facts) AS fact WHERE fact.key = {} AND fact.value = {})"
_ACROSS: Final = "c.checkpoint_id DESC, c.thread DESC, c.namespace DESC"
# Without an index, which would lead through all threads: a thread's own checkpoints are few.
_IN_THREAD: Final = "c.checkpoint_id || '' DESC, c.namespace DESC"
_IN_NAMESPACE: Final = "c.checkpoint_id DESC"


class StoredWrite(NamedTuple):
    """A write of a task."""

    task_id: str
    channel: str
    value: Encoded


class Place(NamedTuple):
    """Where a page ended."""

    checkpoint_id: str
    thread: Any
    namespace: str


@dataclass(slots=True)
class StoredCheckpoint:
    """A checkpoint, the values of its channels, and the writes after it in the order in which a run applies them."""

    thread_id: str
    namespace: str
    checkpoint_id: str
    parent_id: str | None
    document: Encoded
    metadata: Encoded
    place: Place
    values: dict[str, Encoded] = field(default_factory=dict)
    writes: list[StoredWrite] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    """Which checkpoints are asked for; None: any.

    :param before: those with smaller ids.
    :param facts: texts of the metadata that they have.
    :param after: those that follow this place, in the order of ids, the greatest first.
    """

    thread_id: str | None = None
    namespace: str | None = None
    checkpoint_id: str | None = None
    before: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    after: Place | None = None


def read_page(connection: Connection, tenant_id: str, question: Question, limit: int) -> list[StoredCheckpoint]:
    """Return the checkpoints with the greatest ids that are asked for, the greatest first.

    :raises DBAPIError: the database failed.
    """
    given = {name: getattr(question, name) for name in ("thread_id", "namespace", "checkpoint_id", "before")}
    known = {name: value for name, value in given.items() if value is not None}
    parameters = [tenant_id, limit, *known.values()]
    for fact in question.facts.items():
        parameters += fact
    parameters += question.after or ()
    statement = _statement(tuple(known), len(question.facts), question.after is not None)
    return _assemble(statement.run(connection, *parameters))


@lru_cache(maxsize=64)
def _statement(known: tuple[str, ...], facts: int, continued: bool) -> Statement:
    number = 2
    conditions: list[str] = []

    def place() -> str:
        nonlocal number
        number += 1
        return f"${number}"

    forms = {
        "thread_id": _OF_THREAD,
        "namespace": "AND c.namespace = {}",
        "checkpoint_id": "AND c.checkpoint_id = {}",
        "before": "AND c.checkpoint_id < {}",
    }
    conditions = [forms[name].format(place()) for name in known]
    conditions += [_HAS_FACT.format(place(), place()) for _ in range(facts)]
    if continued:
        conditions.append(f"AND (c.checkpoint_id, c.thread, c.namespace) < ({place()}, {place()}, {place()})")
    order = _ACROSS if "thread_id" not in known else _IN_NAMESPACE if "namespace" in known else _IN_THREAD
    return Statement(_PAGE.format(conditions=" ".join(conditions), order=order, own=_OWN))


def _assemble(rows: Sequence[tuple[Any, ...]]) -> list[StoredCheckpoint]:
    found: dict[tuple[Any, ...], tuple[StoredCheckpoint, Any]] = {}
    blobs: dict[tuple[Any, ...], tuple[int, Encoded]] = {}
    writes: list[tuple[Any, ...]] = []
    for kind, thread, namespace, first, second, third, fourth, number, *encoded in rows:
        if kind == 0:
            value, meta = Encoded(*encoded[:2]), Encoded(*encoded[2:])
            place = Place(first, thread, namespace)
            stored = StoredCheckpoint(third, namespace, first, second, value, meta, place)
            found[thread, namespace, first] = (stored, read_versions(fourth))
        elif kind == 1:
            key = (thread, namespace, first, second)
            if key not in blobs or blobs[key][0] < number:
                blobs[key] = (number, Encoded(*encoded[:2]))
        else:
            writes.append((fourth, second, number, third, (thread, namespace, first), Encoded(*encoded[:2])))
    for task_path, task_id, _, channel, key, value in sorted(writes, key=_in_order):
        del task_path
        found[key][0].writes.append(StoredWrite(task_id, channel, value))
    for (thread, namespace, _), (stored, versions) in found.items():
        stored.values = _values(blobs, thread, namespace, versions.items())
    return sorted((stored for stored, _ in found.values()), key=lambda each: each.place, reverse=True)


def _in_order(write: tuple[Any, ...]) -> tuple[Any, ...]:
    return write[:3]


def _values(
    blobs: Mapping[tuple[Any, ...], tuple[int, Encoded]], thread: Any, namespace: str, versions: Iterable[Any]
) -> dict[str, Encoded]:
    keys = {channel: (thread, namespace, *named) for channel, named in versions}
    return {channel: blobs[key][1] for channel, key in keys.items() if key in blobs}
