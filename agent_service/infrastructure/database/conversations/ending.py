"""Which conversations are removed without their writer: those of a user who is erased, and those unsaved for long."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.conversations.removal import remove_records, take_turn
from agent_service.infrastructure.database.models.conversation import ConversationRow
from agent_service.infrastructure.database.naming.catalog import has_table
from agent_service.infrastructure.database.naming.engines import names_of

__all__ = ["erase_scope", "remove_unsaved"]

_KEY: Final = (ConversationRow.tenant_id, ConversationRow.conversation_id, ConversationRow.family_id)


async def erase_scope(db: AsyncSession, tenant_id: str, scope: str, size: int) -> int:
    """Remove at most ``size`` conversations of a scope; what conversations of other scopes show of them stays.

    Before revision 0015 there are none.

    :return: how many were removed; 0: none is left.
    """
    if not await _are_there(db):
        return 0
    await take_turn(db)
    of_scope = (ConversationRow.tenant_id == tenant_id, ConversationRow.scope == scope)
    some = select(*_KEY).where(*of_scope).order_by(ConversationRow.conversation_id).limit(size)
    while due := (await db.execute(some)).all():
        if removed := await remove_records(db, due, *of_scope):
            return removed
        # Others removed all of these meanwhile, and there may be more.
    return 0


async def remove_unsaved(db: AsyncSession, before: datetime, size: int) -> tuple[int, int]:
    """Remove at most ``size`` conversations of all tenants that were last saved before a moment, the oldest first.

    Those that another transaction works on stay. Before revision 0015 there are none.

    :return: how many were found, at most ``size``, and how many of them were removed.
    """
    if not await _are_there(db):
        return 0, 0
    await take_turn(db)
    unsaved = ConversationRow.saved_at < before
    due = (await db.execute(select(*_KEY).where(unsaved).order_by(ConversationRow.saved_at).limit(size))).all()
    return len(due), await remove_records(db, due, unsaved, skip_held=True)


async def _are_there(db: AsyncSession) -> bool:
    return await (await db.connection()).run_sync(_has_tables)


def _has_tables(connection: Connection) -> bool:
    names = names_of(connection)
    return has_table(connection, names.schema, names.local("conversation_records"))
