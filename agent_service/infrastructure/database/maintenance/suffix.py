"""Removing the end of what a session shows. Forks of the session keep what they show."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.maintenance.removal import STEP, next_number, remove_some_messages
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.queries import fork_copies
from agent_service.infrastructure.database.queries.lineage import Segment, segments
from agent_service.infrastructure.database.queries.locks import lock_sessions
from agent_service.infrastructure.database.queries.session_keys import SessionKey

__all__ = ["remove_suffix"]

_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def remove_suffix(db: AsyncSession, key: SessionKey, first: int, last: int) -> Sequence[UUID]:
    """Remove a session's own messages numbered ``first`` and above; copy what forks show of them, and of ancestors'.

    The caller's transaction has locked the session, and lowers its ``fork_seq``.

    :param last: the greatest number that there may be.
    :return: the forks that show their parent only up to before ``first`` now.
    """
    forks = await _hand_down(db, key, first, last)
    own = (SessionMessage.tenant_id == key.tenant_id, SessionMessage.session_id == key.id)
    if last - first < STEP:
        some = delete(SessionMessage).where(*own, SessionMessage.seq.between(first, last))
        await db.execute(some, execution_options=_UNSYNCHRONIZED)
        return forks
    after: int | None = first - 1
    while after is not None:
        after = await remove_some_messages(db, key, after)
    return forks


async def _hand_down(db: AsyncSession, key: SessionKey, first: int, last: int) -> Sequence[UUID]:
    """Copy the messages from ``first`` on to the forks that show them."""
    lock = lock_sessions(db.get_bind().dialect.name, *fork_copies.showing(*key, first))
    forks = len((await db.execute(lock)).all())
    if not forks:
        return ()
    for owner, upto in [Segment(*row) for row in await db.execute(segments(*key))]:
        end, after, numbers = min(upto, last), first - 1, max(STEP // forks, 1)
        theirs = (SessionMessage.tenant_id == key.tenant_id, SessionMessage.session_id == owner)
        while (found := await next_number(db, after, *theirs)) is not None and found <= end:
            after = min(found - 1 + numbers, end)
            await db.execute(fork_copies.copy_to_showing(*key, owner, found, after), execution_options=_UNSYNCHRONIZED)
    return (await db.scalars(fork_copies.shorten_forks(*key, first))).all()
