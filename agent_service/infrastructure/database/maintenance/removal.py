"""Removing sessions for good, in statements of bounded work. Forks that stay keep what they show."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import fork_copies
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.session_keys import SessionKey, in_keys
from agent_service.infrastructure.database.values.validation import MAX_SEQ

__all__ = [
    "STEP",
    "copy_to_forks",
    "groups",
    "lock_with_family",
    "next_number",
    "remove_sessions",
    "remove_some_messages",
    "try_lock_families",
]

STEP: Final = 500
"""Messages that one statement copies or removes: a few milliseconds to some tens, on SQLite too."""
_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def lock_with_family(
    db: AsyncSession, keys: Sequence[SessionKey], *scope: ColumnElement[bool]
) -> list[SessionKey]:
    """Lock sessions together with their forks and parents, in the order of their keys.

    Forks receive copies and get a new parent later. Locked only then, they could come before a session that is locked
    already, and two transactions could wait in a circle.

    :return: the sessions that belong to the scope now.
    """
    dialect = db.get_bind().dialect.name
    if dialect == "postgresql" and (forks := await _forks(db, keys)):
        family = {
            *keys,
            *(SessionKey(tenant_id, id_) for tenant_id, id_, _ in forks),
            *(await _parents(db, keys)).values(),
        }
        await db.execute(lock_sessions(dialect, in_keys(dialect, Session.tenant_id, Session.id, family)))
    held = await db.execute(lock_sessions(dialect, *scope, in_keys(dialect, Session.tenant_id, Session.id, keys)))
    return [SessionKey(*each) for each in held]


async def try_lock_families(db: AsyncSession, keys: Iterable[Any]) -> list[SessionKey]:
    """Lock the forks and parents of sessions that are locked already, without waiting for other transactions.

    :return: the sessions whose forks and parents are locked now.
    """
    held, dialect = [SessionKey(*each) for each in keys], db.get_bind().dialect.name
    if dialect != "postgresql" or not held or not (forks := await _forks(db, held)):
        return held
    parents = await _parents(db, held)
    orphans = fork_copies.orphans(dialect, held)
    are_parents = in_keys(dialect, Session.tenant_id, Session.id, {*parents.values()})
    free = {SessionKey(*each) for each in await db.execute(lock_sessions(dialect, orphans, skip_locked=True))}
    # Parents are not changed and may be appended to meanwhile; they only must not be removed.
    staying = select(Session.tenant_id, Session.id).where(are_parents)
    free |= {
        SessionKey(*e) for e in await db.execute(staying.with_for_update(read=True, key_share=True, skip_locked=True))
    }
    busy = {SessionKey(tenant_id, parent) for tenant_id, id_, parent in forks if SessionKey(tenant_id, id_) not in free}
    busy |= {key for key, parent in parents.items() if parent not in free}
    return [key for key in held if key not in busy]


async def _forks(db: AsyncSession, keys: Sequence[SessionKey]) -> Sequence[Any]:
    """Return tenant, id and parent of those forks of these sessions that are not themselves given."""
    orphans = fork_copies.orphans(db.get_bind().dialect.name, keys)
    return (await db.execute(select(Session.tenant_id, Session.id, Session.parent_session_id).where(orphans))).all()


async def _parents(db: AsyncSession, keys: Sequence[SessionKey]) -> dict[SessionKey, SessionKey]:
    """Return those parents of these sessions that are not themselves given."""
    are_forks = (in_keys("postgresql", Session.tenant_id, Session.id, keys), Session.parent_session_id.is_not(None))
    rows: Any = await db.execute(select(Session.tenant_id, Session.id, Session.parent_session_id).where(*are_forks))
    parents = {SessionKey(tenant_id, id_): SessionKey(tenant_id, parent) for tenant_id, id_, parent in rows}
    own = set(keys)
    return {key: parent for key, parent in parents.items() if parent not in own}


async def remove_sessions(db: AsyncSession, keys: Iterable[Any]) -> int:
    """Remove sessions, which the caller's transaction has locked, and their messages.

    :param keys: rows of the sessions' tenants and ids.
    :return: how many were removed.
    """
    dying = [SessionKey(*each) for each in keys]
    if not dying:
        return 0
    dialect = db.get_bind().dialect.name
    await copy_to_forks(db, dying)
    are_dying = in_keys(dialect, Session.tenant_id, Session.id, dying)
    sizes = await db.execute(select(Session.tenant_id, Session.id, Session.total_messages).where(are_dying))
    for group in groups([(SessionKey(tenant_id, id_), size) for tenant_id, id_, size in sizes]):
        if len(group) > 1:
            theirs = in_keys(dialect, SessionMessage.tenant_id, SessionMessage.session_id, group)
            await db.execute(delete(SessionMessage).where(theirs), execution_options=_UNSYNCHRONIZED)
            continue
        after: int | None = 0
        while after is not None:
            after = await remove_some_messages(db, group[0], after)
    gone = delete(Session).where(are_dying)
    return _rows(await db.execute(gone, execution_options={"synchronize_session": "fetch"}))


async def copy_to_forks(db: AsyncSession, dying: Sequence[SessionKey]) -> None:
    """Copy to the forks of these sessions, unless they are removed as well, what they show of them.

    One round for each generation that is removed.
    """
    dialect = db.get_bind().dialect.name
    orphans = fork_copies.orphans(dialect, dying)
    shown = tuple_(SessionMessage.tenant_id, SessionMessage.session_id).in_(
        select(Session.tenant_id, Session.parent_session_id).where(orphans)
    )
    # Locked, so that a message that a fork pops or appends meanwhile is not copied to it again.
    while forks := len((await db.execute(lock_sessions(dialect, orphans))).all()):
        last = await db.scalar(select(func.max(Session.fork_seq)).where(orphans)) or 0
        numbers, after = max(STEP // forks, 1), 0
        while (first := await next_number(db, after, shown)) is not None and first <= last:
            after = min(first - 1 + numbers, last)
            copy = fork_copies.copy_messages(dialect, dying, first - 1, after)
            await db.execute(copy, execution_options=_UNSYNCHRONIZED)
        await db.execute(fork_copies.adopt(dialect, dying))


async def remove_some_messages(db: AsyncSession, key: SessionKey, after: int) -> int | None:
    """Remove a session's next messages after a number. Return the number to go on after, or None: none is left."""
    own = (SessionMessage.tenant_id == key.tenant_id, SessionMessage.session_id == key.id)
    first = await next_number(db, after, *own)
    if first is None:
        return None
    until = min(first - 1 + STEP, MAX_SEQ)
    some = delete(SessionMessage).where(*own, SessionMessage.seq.between(first, until))
    await db.execute(some, execution_options=_UNSYNCHRONIZED)
    return until


async def next_number(db: AsyncSession, after: int, *scope: ColumnElement[bool]) -> int | None:
    """Return the first number after another: numbers have gaps, and an import may have left a wide one."""
    # min() is one look into the index, also where the table was never analyzed.
    first: int | None = await db.scalar(select(func.min(SessionMessage.seq)).where(*scope, SessionMessage.seq > after))
    return first


def groups(sizes: Sequence[tuple[SessionKey, int]]) -> Iterator[list[SessionKey]]:
    """Return sessions in groups of about :data:`STEP` messages; a longer session alone.

    :param sizes: keys, and how many messages each shows, which is at least how many it has.
    """
    group: list[SessionKey] = []
    messages = 0
    for key, size in sizes:
        if group and messages + size > STEP:
            yield group
            group, messages = [], 0
        group.append(key)
        messages += size
    if group:
        yield group


def _rows(result: Any) -> int:
    return cast("int", result.rowcount)
