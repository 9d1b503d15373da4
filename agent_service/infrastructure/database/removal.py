"""Removing sessions for good, without taking anything from forks that stay."""

from collections.abc import Iterable
from typing import Any, Final, cast

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import handing_down
from agent_service.infrastructure.database.queries.among import Key, among
from agent_service.infrastructure.database.queries.locks import hold

__all__ = ["remove_sessions"]

_UNSYNCHRONIZED: Final = {"synchronize_session": False}


async def remove_sessions(db: AsyncSession, keys: Iterable[Any]) -> int:
    """Remove sessions, which the caller's transaction holds locked, and their messages.

    Forks that are not among them get rows of their own of what they show of them: one round for each generation that
    goes.

    :param keys: rows of the sessions' tenants and ids.
    :return: how many there were.
    """
    dying = [Key(*each) for each in keys]
    if not dying:
        return 0
    dialect = db.get_bind().dialect.name
    # Held, so that what a fork takes back or appends meanwhile is not given to it once more.
    while (await db.execute(hold(dialect, handing_down.orphans(dialect, dying)))).first() is not None:
        await db.execute(handing_down.copy_messages(dialect, dying), execution_options=_UNSYNCHRONIZED)
        await db.execute(handing_down.adopt(dialect, dying))
    if dialect == "sqlite":
        # An engine of the caller's own may leave foreign keys, and with them the cascade, switched off.
        theirs = among(dialect, SessionMessage.tenant_id, SessionMessage.session_id, dying)
        await db.execute(delete(SessionMessage).where(theirs), execution_options=_UNSYNCHRONIZED)
    gone = delete(Session).where(among(dialect, Session.tenant_id, Session.id, dying))
    return _rows(await db.execute(gone, execution_options={"synchronize_session": "fetch"}))


def _rows(result: Any) -> int:
    return cast("int", result.rowcount)
