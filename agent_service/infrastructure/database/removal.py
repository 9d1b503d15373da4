"""Removing sessions for good, without taking anything from forks that stay."""

from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import handing_down

__all__ = ["remove_sessions"]

_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def remove_sessions(db: AsyncSession, ids: list[UUID]) -> int:
    """Remove sessions, which the caller's transaction holds locked, and their messages.

    Forks that are not among them get rows of their own of what they show of them: one round for each generation that
    goes.

    :return: how many there were.
    """
    if not ids:
        return 0
    adopted = -1
    while adopted:
        await db.execute(handing_down.copy_messages(ids), execution_options=_UNSYNCHRONIZED)
        adopted = _rows(await db.execute(handing_down.adopt(ids)))
    if db.get_bind().dialect.name == "sqlite":
        # An engine of the caller's own may leave foreign keys, and with them the cascade, switched off.
        await db.execute(
            delete(SessionMessage).where(SessionMessage.session_id.in_(ids)), execution_options=_UNSYNCHRONIZED
        )
    gone = delete(Session).where(Session.id.in_(ids))
    return _rows(await db.execute(gone, execution_options={"synchronize_session": "fetch"}))


def _rows(result: Any) -> int:
    return cast("int", result.rowcount)
