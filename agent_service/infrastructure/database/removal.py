"""Removing sessions for good, without taking anything from forks that stay, and in statements of bounded work."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import handing_down
from agent_service.infrastructure.database.validation import MAX_SEQ

__all__ = ["STEP", "groups", "hand_down", "remove_sessions", "remove_some_messages"]

STEP: Final = 500
"""Messages that one statement copies or removes: a few milliseconds to some tens, on SQLite too."""
_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def remove_sessions(db: AsyncSession, ids: list[UUID]) -> int:
    """Remove sessions, which the caller's transaction holds locked, and their messages.

    :return: how many there were.
    """
    if not ids:
        return 0
    await hand_down(db, ids)
    sizes = (await db.execute(select(Session.id, Session.total_messages).where(Session.id.in_(ids)))).all()
    for group in groups([(id_, size) for id_, size in sizes]):
        if len(group) > 1:
            await db.execute(
                delete(SessionMessage).where(SessionMessage.session_id.in_(group)), execution_options=_UNSYNCHRONIZED
            )
            continue
        after: int | None = 0
        while after is not None:
            after = await remove_some_messages(db, group[0], after)
    gone = delete(Session).where(Session.id.in_(ids))
    return _rows(await db.execute(gone, execution_options={"synchronize_session": "fetch"}))


async def hand_down(db: AsyncSession, ids: list[UUID]) -> None:
    """Give forks of these sessions, that are not among them, rows of their own of what they show of them.

    One round for each generation that goes.
    """
    adopted = -1
    while adopted:
        orphans = handing_down.orphans(ids)
        last, forks = (await db.execute(select(func.max(Session.fork_seq), func.count()).where(orphans))).one()
        if last is None:
            return
        parents = SessionMessage.session_id.in_(select(Session.parent_session_id).where(orphans))
        numbers, after = max(STEP // forks, 1), 0
        while (first := await _next(db, parents, after)) is not None and first <= last:
            after = min(first - 1 + numbers, last)
            copy = handing_down.copy_messages(ids, first - 1, after)
            await db.execute(copy, execution_options=_UNSYNCHRONIZED)
        adopted = _rows(await db.execute(handing_down.adopt(ids)))


async def remove_some_messages(db: AsyncSession, id_: UUID, after: int) -> int | None:
    """Remove a session's next messages after a number; gives the number to go on after, or None: none is left."""
    own = SessionMessage.session_id == id_
    first = await _next(db, own, after)
    if first is None:
        return None
    until = min(first - 1 + STEP, MAX_SEQ)
    some = delete(SessionMessage).where(own, SessionMessage.seq.between(first, until))
    await db.execute(some, execution_options=_UNSYNCHRONIZED)
    return until


async def _next(db: AsyncSession, scope: ColumnElement[bool], after: int) -> int | None:
    """Return the first number after another: numbers have gaps, and an import may have left a wide one."""
    # Numbers are counted off, and rows are not: that is one look into the index, also where it was never analyzed.
    first: int | None = await db.scalar(select(func.min(SessionMessage.seq)).where(scope, SessionMessage.seq > after))
    return first


def groups(sizes: Sequence[tuple[UUID, int]]) -> Iterator[list[UUID]]:
    """Give sessions in groups of about a step's messages; a longer one alone.

    :param sizes: ids, and how many messages each shows, which is at least how many it has.
    """
    group: list[UUID] = []
    messages = 0
    for id_, size in sizes:
        if group and messages + size > STEP:
            yield group
            group, messages = [], 0
        group.append(id_)
        messages += size
    if group:
        yield group


def _rows(result: Any) -> int:
    return cast("int", result.rowcount)
