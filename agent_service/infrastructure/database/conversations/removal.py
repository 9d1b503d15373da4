"""Removing records, and the entries that nothing reaches any more.

An entry stays while a record ends there, has left a branch that ends there, or an entry after it stays. What goes is
found by one statement, from the ends of the removed records towards the beginning, so its cost grows with their
histories and not with the table.

Whoever removes records of a family, or lets a new record end in it, holds the family until the transaction ends. So of
two records that share entries and are removed at once, the second finds that it was the last. Appending to a record
needs no such lock, because what the record reaches stays reached.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Uuid, bindparam, delete, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.models.conversation import ConversationRow
from agent_service.infrastructure.database.queries.locks import TAKE_WRITE_LOCK
from agent_service.infrastructure.database.values.documents import dumps, loads

__all__ = ["free_entries", "hold_families", "remove_records", "share_family", "take_turn", "tips_of"]

_records: Final[Any] = ConversationRow.__table__

# PostgreSQL takes the cost of the statement that frees entries for millions, because it does not know how short lists
# are. It would compile it for seconds, to run for milliseconds.
_NO_COMPILING: Final = func.set_config("jit", "off", True)
_HOLD: Final = select(func.pg_advisory_xact_lock(bindparam("family", type_=BigInteger)), _NO_COMPILING)
_SHARE: Final = select(func.pg_advisory_xact_lock_shared(bindparam("family", type_=BigInteger)))
_TRY: Final = select(func.pg_try_advisory_xact_lock(bindparam("family", type_=BigInteger)), _NO_COMPILING)

_ELEMENTS: Final = {
    "postgresql": "json_array_elements_text(CAST({} AS json)) AS {}(value)",
    "sqlite": "json_each({}) AS {}",
}
# PostgreSQL would otherwise read all rows of the tenant once and look through them at each step, where it takes them
# for few: as long as the table was not analyzed, or if this tenant has many more than others.
_EACH: Final = {
    "postgresql": "CROSS JOIN LATERAL (SELECT * FROM {table} WHERE tenant_id = :tenant AND {match} OFFSET 0) AS {name}",
    "sqlite": "JOIN {table} AS {name} ON {name}.tenant_id = :tenant AND {name}.{match}",
}
_ENTRIES: Final = "agent_service_conversation_entries"
_RECORDS: Final = "agent_service_conversation_records"


def _free(dialect: str) -> Any:
    def each(table: str, name: str, match: str) -> str:
        return _EACH[dialect].format(table=table, name=name, match=match)

    tips = _ELEMENTS[dialect].format(":tips", "tips")
    branches = _ELEMENTS[dialect].format("r.branches", "b")
    statement = f"""
    WITH RECURSIVE gone (entry_id, parent_id) AS (
        SELECT e.entry_id, e.parent_id FROM {tips} {each(_ENTRIES, "e", "entry_id = tips.value")}
        UNION
        SELECT e.entry_id, e.parent_id FROM gone {each(_ENTRIES, "e", "entry_id = gone.parent_id")}
    ),
    branched (entry_id) AS (
        SELECT b.value FROM {_RECORDS} r CROSS JOIN {branches}
        WHERE r.tenant_id = :tenant AND r.family_id = :family AND r.branches <> '[]'
    ),
    held (entry_id, parent_id) AS (
        SELECT ends.entry_id, ends.parent_id FROM (
            SELECT g.entry_id, g.parent_id FROM gone g {each(_RECORDS, "r", "head_id = g.entry_id")}
            UNION
            SELECT g.entry_id, g.parent_id FROM gone g JOIN branched ON branched.entry_id = g.entry_id
            UNION
            SELECT g.entry_id, g.parent_id FROM gone g {each(_ENTRIES, "after", "parent_id = g.entry_id")}
            LEFT JOIN gone also ON also.entry_id = after.entry_id
            WHERE also.entry_id IS NULL
        ) AS ends
        UNION
        SELECT e.entry_id, e.parent_id FROM held {each(_ENTRIES, "e", "entry_id = held.parent_id")}
    ),
    dead (tenant_id, entry_id) AS MATERIALIZED (
        SELECT CAST(:tenant AS varchar), free.entry_id
        FROM (SELECT entry_id FROM gone EXCEPT SELECT entry_id FROM held) AS free
    )
    DELETE FROM {_ENTRIES} WHERE (tenant_id, entry_id) IN (SELECT tenant_id, entry_id FROM dead)
    """  # noqa: S608 - constants of this file
    return text(statement).bindparams(bindparam("family", type_=Uuid()))


_FREE: Final = {dialect: _free(dialect) for dialect in _ELEMENTS}


async def take_turn(db: AsyncSession) -> None:
    """Wait on SQLite until nobody else writes, so that what is read next stays true; PostgreSQL locks rows."""
    if db.get_bind().dialect.name == "sqlite":
        await db.execute(TAKE_WRITE_LOCK)


async def share_family(db: AsyncSession, family: UUID) -> None:
    """Keep entries of a family from being freed until the transaction ends."""
    if db.get_bind().dialect.name == "postgresql":
        await db.execute(_SHARE, {"family": _lock_of(family)})


async def hold_families(db: AsyncSession, families: Iterable[UUID], *, skip_held: bool = False) -> set[UUID]:
    """Keep others from removing records of these families, or beginning ones in them, until the transaction ends.

    :param skip_held: leave out those that another transaction holds.
    :return: the families that are held now.
    """
    ordered = sorted(set(families), key=_lock_of)  # always in this order, so that two never wait in a circle
    if db.get_bind().dialect.name != "postgresql":
        return set(ordered)
    statement = _TRY if skip_held else _HOLD
    taken = {family: await db.scalar(statement, {"family": _lock_of(family)}) for family in ordered}
    return {family for family, held in taken.items() if not skip_held or held}


def _lock_of(family: UUID) -> int:
    return int.from_bytes(family.bytes[8:], signed=True)


def tips_of(head_id: str | None, branches: str) -> list[str]:
    """Return the last entries of the histories that a record reaches."""
    return [*([] if head_id is None else [head_id]), *loads(branches)]


async def free_entries(db: AsyncSession, tenant_id: str, family: UUID, tips: Sequence[str]) -> None:
    """Remove what nothing reaches any more of the histories that end in ``tips``; their family is held."""
    if tips:
        values = {"tenant": tenant_id, "family": family, "tips": dumps(list(tips))}
        await db.execute(_FREE[db.get_bind().dialect.name], values)


async def remove_records(
    db: AsyncSession, due: Iterable[Sequence[Any]], *scope: ColumnElement[bool], skip_held: bool = False
) -> int:
    """Remove records with what only they reach, of any tenants.

    :param due: tenant, id and family of each; on SQLite read after :func:`take_turn`.
    :param scope: what must still hold for a record to be removed.
    :param skip_held: leave records that another transaction works on, instead of waiting for it.
    :return: how many were removed.
    """
    listed = list(due)
    held = await hold_families(db, (family for _, _, family in listed), skip_held=skip_held)
    keys = [(tenant_id, conversation_id) for tenant_id, conversation_id, family in listed if family in held]
    if not keys:
        return 0
    key = tuple_(_records.c.tenant_id, _records.c.conversation_id)
    going = select(_records.c.tenant_id, _records.c.conversation_id).where(key.in_(keys), *scope)
    going = going.order_by(_records.c.tenant_id, _records.c.conversation_id).with_for_update(skip_locked=skip_held)
    locked = [tuple(each) for each in await db.execute(going)]
    if not locked:
        return 0
    removed = (
        delete(_records)
        .where(key.in_(locked))
        .returning(_records.c.tenant_id, _records.c.family_id, _records.c.head_id, _records.c.branches)
    )
    gone = sorted((await db.execute(removed)).all(), key=itemgetter(0, 1))
    for (tenant_id, family), rows in groupby(gone, key=itemgetter(0, 1)):
        await free_entries(db, tenant_id, family, [tip for row in rows for tip in tips_of(row[2], row[3])])
    return len(gone)
