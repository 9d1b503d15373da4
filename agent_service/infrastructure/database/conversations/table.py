"""Records and entries of one tenant, each call in a transaction of its own or in the caller's."""

import copy
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.errors import DatabaseError, SessionConflictError, SessionNotFoundError, SessionValueError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.database.connection import get_database
from agent_service.infrastructure.database.conversations import statements
from agent_service.infrastructure.database.conversations.removal import (
    remove_records,
    share_family,
    take_turn,
)
from agent_service.infrastructure.database.conversations.rows import (
    MAX_LINE,
    StoredEntry,
    StoredRecord,
    checked_entries,
    checked_record,
    require_scope,
)
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.conversation import ConversationRow
from agent_service.infrastructure.database.transactions.own_sessions import accept_session
from agent_service.infrastructure.database.transactions.tenants import serve_tenant
from agent_service.infrastructure.database.values.documents import dumps, loads
from agent_service.infrastructure.database.values.validation import require_count, require_identifier, require_tenant

__all__ = ["ConversationTable"]

_ALL: Final = 2**62
"""Stands for no limit."""


class ConversationTable:
    """Reads and writes the conversations of one tenant. What it returned from a write is committed.

    :param database: None is the one of the settings, of the loop that is running at the call.
    :raises SessionValueError: ``tenant_id`` cannot be one.
    """

    def __init__(self, database: DatabaseManager | None = None, *, tenant_id: str = "") -> None:
        if database is not None and not isinstance(database, DatabaseManager):
            raise SessionValueError(
                f"database must be a DatabaseManager, not {type(database).__name__}; leave it out for the one of the "
                "settings"
            )
        self._database = database
        self._tenant_id = require_tenant(tenant_id)
        self.joined: AsyncSession | None = None

    def within(self, db: AsyncSession) -> Self:
        """Return the same table as seen and changed in a session's transaction, which its owner commits.

        :raises SessionValueError: ``db`` is a session that cannot be used.
        """
        bound = copy.copy(self)
        bound.joined = accept_session(db)
        serve_tenant(bound.joined, self._tenant_id)
        return bound

    async def record(self, conversation_id: str) -> StoredRecord | None:
        """Return a record, if there is one.

        :raises DatabaseError: the database failed, or is not migrated.
        """
        values = {"tenant": self._tenant_id, "conversation": require_identifier(conversation_id, "conversation_id")}
        async with self._reading("read a conversation") as db:
            row = (await db.execute(statements.READ_RECORD, values)).first()
        return None if row is None else _record_of(row)

    async def records(self, *, scope: str | None = None, limit: int | None = None) -> list[StoredRecord]:
        """Return records, those with the newest ``updated_at`` first.

        :param scope: only those of this scope; None: all.
        :param limit: at most so many; None: all.
        :raises SessionValueError: an argument cannot be used.
        :raises DatabaseError: the database failed, or is not migrated.
        """
        most = _ALL if limit is None else require_count(limit, "limit", least=0, most=_ALL)
        values: dict[str, Any] = {"tenant": self._tenant_id, "limit": most}
        statement = statements.LIST_RECORDS
        if require_scope(scope) is not None:
            statement, values["scope"] = statements.LIST_RECORDS_OF_SCOPE, scope
        async with self._reading("list conversations") as db:
            return [_record_of(row) for row in await db.execute(statement, values)]

    async def entry(self, entry_id: str) -> StoredEntry:
        """Return an entry.

        :raises SessionNotFoundError: there is none of that id.
        :raises DatabaseError: the database failed, or is not migrated.
        """
        values = {"tenant": self._tenant_id, "entry": require_identifier(entry_id, "entry_id")}
        async with self._reading("read an entry") as db:
            row = (await db.execute(statements.READ_ENTRY, values)).first()
        if row is None:
            raise _no_entry(entry_id)
        return StoredEntry(*row)

    async def line(self, head_id: str, *, limit: int | None = None) -> list[StoredEntry]:
        """Return the history that ends with an entry, in its order, or its last ``limit`` entries: one statement.

        :raises SessionNotFoundError: there is no such entry.
        :raises SessionValueError: an argument cannot be used.
        :raises DatabaseError: the history is longer than 1,000,000 entries and ``limit`` is not given; or the database
            failed, or is not migrated.
        """
        most = MAX_LINE if limit is None else min(require_count(limit, "limit", most=_ALL), MAX_LINE)
        values = {"tenant": self._tenant_id, "head": require_identifier(head_id, "head_id"), "limit": most}
        async with self._reading("read a history") as db:
            rows = sorted(
                (await db.execute(statements.LINE[db.get_bind().dialect.name], values)).all(), reverse=True
            )  # by place
        if not rows:
            raise _no_entry(head_id)
        if limit is None and rows[0].parent_id is not None:
            raise DatabaseError(f"the history has more than {MAX_LINE:,} entries; read its end with limit=")
        return [StoredEntry(*row[1:]) for row in rows]

    async def save(self, record: StoredRecord, entries: Iterable[StoredEntry], *, expected: str | None) -> None:
        """Store a record in place of the one with the revision ``expected``, and the entries that it adds: all or none.

        :param expected: None: there must be no record of that id.
        :raises SessionConflictError: there is another one; or the history goes on from an entry that is not stored.
        :raises SessionValueError: an argument cannot be used, or the history goes on from another conversation's.
        :raises DatabaseError: the database failed, or is not migrated.
        """
        record, added = checked_record(record), checked_entries(entries)
        if expected is not None:
            require_identifier(expected, "expected_revision")
        async with self._writing("save a conversation") as db:
            try:
                await self._save(db, record, added, expected)
            except IntegrityError as exc:  # The keys say that an entry's parent is gone, or that its id is taken.
                raise _changed(record.conversation_id) from exc

    async def _save(
        self, db: AsyncSession, record: StoredRecord, entries: Sequence[StoredEntry], expected: str | None
    ) -> None:
        await take_turn(db)
        new = {entry.entry_id for entry in entries}
        anchors = {entry.parent_id for entry in entries} | {record.head_id}
        outside = {anchor for anchor in anchors if anchor is not None and anchor not in new}
        if expected is None:
            family = await self._join_family(db, record.conversation_id, outside) if outside else uuid7()
        else:
            family = await self._lock(db, record.conversation_id, outside, expected)
        if entries:
            rows = [
                {
                    "tenant_id": self._tenant_id,
                    "entry_id": entry.entry_id,
                    "parent_id": entry.parent_id,
                    "family_id": family,
                    "kind": entry.kind,
                    "data": entry.data,
                }
                for entry in entries
            ]
            await db.execute(statements.ADD_ENTRIES, rows)
        await self._put(db, record, family, new=expected is None)

    async def _lock(self, db: AsyncSession, conversation_id: str, outside: set[str], expected: str) -> UUID:
        """Lock the record, and return its family."""
        values = {"tenant": self._tenant_id, "conversation": conversation_id}
        row = (await db.execute(statements.LOCK_RECORD, values)).first()
        if row is None or row.revision != expected:
            raise _changed(conversation_id)
        # The end of its history is stored for as long as the record is, so the usual save asks nothing more.
        elsewhere = outside - {row.head_id}
        if elsewhere and await self._family_of(db, conversation_id, elsewhere) != row.family_id:
            raise SessionValueError("the history goes on from an entry of another conversation; fork that one instead")
        family: UUID = row.family_id
        return family

    async def _join_family(self, db: AsyncSession, conversation_id: str, outside: set[str]) -> UUID:
        """Return the family of the entries that a new record goes on from, once nobody can free them any more."""
        await share_family(db, await self._family_of(db, conversation_id, outside))
        return await self._family_of(db, conversation_id, outside)

    async def _family_of(self, db: AsyncSession, conversation_id: str, entries: set[str]) -> UUID:
        values = {"tenant": self._tenant_id, "entries": sorted(entries)}
        families = {row.entry_id: row.family_id for row in await db.execute(statements.FAMILIES_OF_ENTRIES, values)}
        if len(families) < len(entries):
            raise _changed(conversation_id)
        if len(distinct := set(families.values())) > 1:
            raise SessionValueError("new_entries go on from entries of several conversations; save them one by one")
        family: UUID = distinct.pop()
        return family

    async def _put(self, db: AsyncSession, record: StoredRecord, family: UUID, *, new: bool) -> None:
        dialect = db.get_bind().dialect.name
        columns = {
            "head_id": record.head_id,
            "scope": record.scope,
            "branches": dumps(list(record.branches)),
            "revision": record.revision,
            "data": record.data,
            "updated_at": record.updated_at,
        }
        if not new:
            key = {"tenant": self._tenant_id, "conversation": record.conversation_id}
            values = {f"new_{name}": value for name, value in columns.items()}
            await db.execute(statements.CHANGE_RECORD[dialect], {**key, **values})
            return
        ids = {"tenant_id": self._tenant_id, "conversation_id": record.conversation_id, "family_id": family}
        result: Any = await db.execute(statements.ADD_RECORD[dialect], {**ids, **columns})
        if result.rowcount == 0:
            raise _changed(record.conversation_id)

    async def delete(self, conversation_id: str, *, expected: str) -> None:
        """Remove the record with this revision, and the entries that no other record's histories reach.

        Its cost grows with the length of its histories.

        :raises SessionConflictError: there is no such record, or it has another revision.
        :raises DatabaseError: the database failed, or is not migrated.
        """
        require_identifier(conversation_id, "conversation_id")
        require_identifier(expected, "expected_revision")
        async with self._writing("delete a conversation") as db:
            await take_turn(db)
            values = {"tenant": self._tenant_id, "conversation": conversation_id}
            # Without a lock: whoever holds the family comes first, and the revision is looked at again.
            row = (await db.execute(statements.FAMILY_OF_RECORD, values)).first()
            due = [] if row is None else [(self._tenant_id, conversation_id, row.family_id)]
            if not await remove_records(db, due, ConversationRow.revision == expected):
                raise _changed(conversation_id)

    @asynccontextmanager
    async def _reading(self, action: str) -> AsyncIterator[AsyncSession]:
        with database_errors(action):
            if self.joined is not None:
                yield self.joined
                return
            async with (self._database or get_database()).session(readonly=True) as db:
                serve_tenant(db, self._tenant_id)
                yield db

    @asynccontextmanager
    async def _writing(self, action: str) -> AsyncIterator[AsyncSession]:
        with database_errors(action):
            if self.joined is not None:
                async with self.joined.begin_nested():
                    yield self.joined
                return
            # What a writer waited for has to be seen then, whatever level the database's sessions have.
            async with (self._database or get_database()).session(read_committed=True) as db:
                serve_tenant(db, self._tenant_id)
                yield db


def _record_of(row: Any) -> StoredRecord:
    conversation_id, head_id, scope, branches, *others = row
    return StoredRecord(conversation_id, head_id, scope, tuple(loads(branches)), *others)


def _changed(conversation_id: str) -> SessionConflictError:
    return SessionConflictError(
        f"conversation {conversation_id!r:.80} was saved, deleted or begun by another writer; load it again and repeat"
    )


def _no_entry(entry_id: str) -> SessionNotFoundError:
    return SessionNotFoundError(f"there is no entry {entry_id!r:.80}; it may have been deleted with its conversation")
