"""A ConversationStore in the package's database."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.run import AgentRunResult
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import SessionConflictError, TransactionConflictError
from agent_service.infrastructure.database.conversations.table import ConversationTable
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.integrations.pydantic_ai.conflict import StoredConversationConflict
from agent_service.integrations.pydantic_ai.documents import entries_of, record_of, stored_entry, stored_record

__all__ = ["DatabaseConversationStore"]


class DatabaseConversationStore(ConversationStore):
    """Keeps conversations of Pydantic AI in PostgreSQL or SQLite, shared by every process that opens the database.

    ::

        store = DatabaseConversationStore()
        conversation = await store.load("chat-1", scope="ada") or Conversation(conversation_id="chat-1")
        result = await agent.run("Hi", conversation=conversation)
        await store.save(result, scope="ada")

    A save is one transaction, of a cost that does not depend on how long the conversation is, and survives a crash once
    it has returned. A history is read by one statement. ``delete`` erases the messages too: all entries that no other
    conversation's history or branch reaches. Conversations of different tenants never meet, whatever their ids.

    Ids and scopes are texts of up to 255 characters. Every method raises DatabaseUnavailableError while the database
    cannot be reached, and DatabaseError where it fails or is not migrated.

    :param database: None is the one of the settings. It is not closed here.
    :param tenant_id: whose conversations these are; "" is a tenant like any other, never "all".
    :raises SessionValueError: an argument cannot be used.
    """

    def __init__(self, database: DatabaseManager | None = None, *, tenant_id: str = "") -> None:
        self.table = ConversationTable(database, tenant_id=tenant_id)

    def within(self, db: AsyncSession) -> Self:
        """Return the same store as seen and changed in a session's transaction, which its owner commits.

        So a save is stored together with rows of the application's, or not at all. The conversation that was saved has
        its new revision before the commit: after a rollback, load it again.

        :raises SessionValueError: ``db`` is a session that cannot be used.
        """
        bound = copy.copy(self)
        bound.table = self.table.within(db)
        return bound

    async def save(
        self, conversation: Conversation | AgentRunResult[Any], *, scope: str | None = None
    ) -> list[ConversationEntry]:
        """Save what the store does not have yet, as the framework says; return the entries that this added.

        :raises StoredConversationConflict: another writer came first; nothing was stored.
        :raises SessionValueError: something in it cannot be stored; it is named, and nothing was stored.
        """
        with _conflicts():
            return await super().save(conversation, scope=scope)

    async def branch(
        self,
        conversation_id: str,
        *,
        at: int | None = None,
        from_entry: str | None = None,
        expected_revision: str | None,
        scope: str | None = None,
    ) -> Conversation:
        """Go on from an earlier point, as the framework says.

        Its cost grows with the history, and with the branches that it looks through for ``from_entry``.

        :raises StoredConversationConflict: another writer came first; nothing was changed.
        """
        with _conflicts():
            return await super().branch(
                conversation_id, at=at, from_entry=from_entry, expected_revision=expected_revision, scope=scope
            )

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation, or None.

        :raises SessionValueError: the id cannot be one.
        """
        row = await self.table.record(conversation_id)
        return None if row is None else record_of(row)

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """Return records, newest ``updated_at`` first; all of them are read unless ``limit`` is given.

        :raises SessionValueError: an argument cannot be used.
        """
        return [record_of(row) for row in await self.table.records(scope=scope, limit=limit)]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and its new entries in one transaction: all or nothing.

        :raises StoredConversationConflict: as the framework says, and if an entry's parent is not stored.
        :raises SessionValueError: something in it cannot be stored; it is named.
        """
        row, entries = stored_record(record), [stored_entry(entry) for entry in new_entries]
        with _conflicts(record.conversation_id):
            await self.table.save(row, entries, expected=expected_revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a record and every entry that no other record's history or branch reaches, in one transaction.

        Its cost grows with the length of its history and branches.

        :raises StoredConversationConflict: no record with that revision is stored.
        """
        with _conflicts(conversation_id):
            await self.table.delete(conversation_id, expected=expected_revision)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry.

        :raises SessionNotFoundError: (also LookupError) there is none of that id.
        """
        return entries_of([await self.table.entry(entry_id)])[0]

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """Return the entries up to ``head_id``, or the last ``limit`` of them, by one statement.

        :raises SessionNotFoundError: (also LookupError) there is no such entry.
        :raises DatabaseError: it is longer than 1,000,000 entries and ``limit`` is not given.
        """
        if head_id is None or (limit is not None and limit <= 0):
            return []
        return entries_of(await self.table.line(head_id, limit=limit))


@contextmanager
def _conflicts(conversation_id: str = "") -> Iterator[None]:
    """Make a conflict of either side one of both."""
    try:
        yield
    except (StoredConversationConflict, TransactionConflictError):
        raise  # the latter ends the whole transaction, which only its owner can repeat
    except ConversationConflict as exc:
        raise StoredConversationConflict(exc.conversation_id) from exc
    except SessionConflictError as exc:
        raise StoredConversationConflict(conversation_id) from exc
