"""Removing sessions for good, without taking anything from forks that stay, and in statements of bounded work."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import handing_down

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
        last = await db.scalar(select(func.max(Session.fork_seq)).where(handing_down.orphans(ids)))
        if last is None:
            return
        after: int | None = 0
        while after is not None:
            after = await _copy_some(db, ids, after, last)
        adopted = _rows(await db.execute(handing_down.adopt(ids)))


async def _copy_some(db: AsyncSession, ids: list[UUID], after: int, last: int) -> int | None:
    shown = (
        SessionMessage.session_id.in_(select(Session.parent_session_id).where(handing_down.orphans(ids))),
        SessionMessage.seq > after,
        SessionMessage.seq <= last,
    )
    until = await db.scalar(
        select(SessionMessage.seq).where(*shown).order_by(SessionMessage.seq).offset(STEP - 1).limit(1)
    )
    copy = handing_down.copy_messages(ids, after, last if until is None else until)
    await db.execute(copy, execution_options=_UNSYNCHRONIZED)
    return until


async def remove_some_messages(db: AsyncSession, id_: UUID, after: int) -> int | None:
    """Remove a session's next messages after a number; gives the number to go on after, or None: none is left."""
    rest = (SessionMessage.session_id == id_, SessionMessage.seq > after)
    nth = select(SessionMessage.seq).where(*rest).order_by(SessionMessage.seq).offset(STEP - 1).limit(1)
    until: int | None = await db.scalar(nth)
    scope = rest if until is None else (*rest, SessionMessage.seq <= until)
    await db.execute(delete(SessionMessage).where(*scope), execution_options=_UNSYNCHRONIZED)
    return until


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
