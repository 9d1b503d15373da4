"""Exporting a user's sessions from a database, and importing them into another one."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError, StatementError

from agent_service.core.errors import SessionConflictError
from agent_service.infrastructure.database.errors.translation import database_errors, translate
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.scope import of_tenant
from agent_service.infrastructure.database.repositories.arrival import Arrival
from agent_service.infrastructure.database.repositories.history import SessionHistory
from agent_service.infrastructure.database.repositories.lines import MessageLine, message_line, read_lines, session_line
from agent_service.infrastructure.database.repositories.results import ImportResult
from agent_service.infrastructure.database.values.validation import require_identifier

__all__ = ["SessionPortability"]

_SESSIONS: Final = 50


class SessionPortability(SessionHistory):
    """The part of the repository that exports and imports."""

    async def export_user(self, user_id: UUID | str) -> AsyncIterator[str]:
        """Return everything stored of a user as JSON lines without line ends: sessions, hidden ones too, and messages.

        Streamed in constant memory, in the caller's transaction. A fork comes with all messages it shows.
        """
        require_identifier(user_id, "user_id")
        last: UUID | None = None
        while page := await self._users_sessions(user_id, last):
            for session in page:
                yield session_line(session)
                async for message in self._walk_line(session.id, session.last_seq):
                    yield message_line(session, message)
            last = page[-1].id

    async def import_user(self, lines: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> ImportResult:
        """Store the sessions of an export, with their ids and moments, in this repository's tenant.

        A session that exists already, hidden or not, is left as it is: importing again adds nothing. The import runs in
        the caller's transaction, in constant memory, and an error leaves nothing of it.

        :param lines: what ``export_user`` gave; an open file, or anything else that gives lines.
        :raises SessionValueError: naming the line that cannot be imported.
        :raises SessionConflictError: an external id belongs to another session.
        """
        try:
            async with self._db.begin_nested():
                return await self._import(lines)
        except StatementError as exc:  # of the savepoint; what the lines raise of their own passes as it is
            raise translate(exc, "import sessions") from exc

    async def _import(self, lines: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> ImportResult:
        added = skipped = messages = 0
        arriving: Arrival | None = None
        async for each in read_lines(lines):
            if isinstance(each, MessageLine):
                if arriving is not None:
                    await arriving.take(each.message, seq=each.seq, created_at=each.created_at)
                    messages += 1
                continue
            await self._finish(arriving)
            arriving = await self._begin(each)
            added, skipped = added + (arriving is not None), skipped + (arriving is None)
        await self._finish(arriving)
        return ImportResult(added, messages, skipped)

    async def _users_sessions(self, user_id: UUID | str, after: UUID | None) -> list[Session]:
        own = [Session.tenant_id == self._tenant_id, Session.user_id == user_id]
        scope = own if after is None else [*own, Session.id > after]
        return await self._all("export sessions", select(Session).where(*scope).order_by(Session.id).limit(_SESSIONS))

    async def _begin(self, session: Session) -> Arrival | None:
        session.tenant_id = self._tenant_id
        known = select(Session.id).where(*of_tenant(self._tenant_id, session.id))
        with database_errors("import a session"):
            if (await self._db.execute(known)).first() is not None:
                return None
            try:
                async with self._db.begin_nested():
                    self._db.add(session)
            except IntegrityError as exc:
                if (
                    await self._db.execute(known)
                ).first() is not None:  # A concurrent import of the same session has ended.
                    return None
                raise SessionConflictError(
                    f"the external_id {session.external_id!r} of session {session.id} belongs to another session; "
                    "import into another tenant or database"
                ) from exc
        return Arrival(self._db, session)

    async def _finish(self, arriving: Arrival | None) -> None:
        if arriving is not None:
            self._note(arriving.session.id, await arriving.finish())
