"""Sessions as the target of an import: each conversation is one transaction, read back before it is committed."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from agent_service.core.errors import SessionConflictError, SessionError, SessionValueError, TransactionConflictError
from agent_service.infrastructure.database.append.message import PendingMessage, accept_message
from agent_service.infrastructure.database.limits import limits_from_settings
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories.arrival import Arrival
from agent_service.infrastructure.database.repositories.records import check_documents
from agent_service.infrastructure.database.repositories.session import SessionRepository
from agent_service.infrastructure.database.values.documents import dumps
from agent_service.integrations.importing.conversations import Conversation, Item, Items, Unreadable
from agent_service.integrations.importing.digests import Digests, digest_of
from agent_service.integrations.importing.report import ImportProblem, Outcome, Problems, RefusedError
from agent_service.integrations.importing.run import Options

__all__ = ["SessionTarget"]

_ATTEMPTS: Final = 5
_FIRST_PAGE: Final = 20
_PAGE: Final = 500
_PAGE_CHARACTERS: Final = 4_000_000
_ANY_ID: Final = "00000000-0000-0000-0000-000000000000"


class SessionTarget:
    """Brings conversations into the sessions of the tenant of a run."""

    def __init__(self, options: Options) -> None:
        self._database = options.target()
        self._tenant_id = options.tenant_id
        self._dry_run = options.dry_run
        self._stop = options.stop

    async def bring(self, conversation: Conversation, items: Items) -> Outcome:
        """Store what the target lacks of a conversation.

        A session that is there must begin with what the source has, or be the beginning of it.

        :raises RefusedError: it does not, or something cannot be stored; nothing was written.
        :raises DatabaseError: the database failed.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._bring(conversation, items)
            except TransactionConflictError:
                if attempt == _ATTEMPTS:
                    raise
            except (SessionConflictError, SessionValueError) as exc:
                raise RefusedError(ImportProblem(conversation.place, _without_values(exc))) from exc
        raise AssertionError  # pragma: no cover - the last attempt returned or raised

    async def _bring(self, conversation: Conversation, items: Items) -> Outcome:
        async with self._database.session(readonly=self._dry_run) as db:
            repo = SessionRepository(db, self._tenant_id)
            session = await repo.get_by_external_id(conversation.external_id)
            new = session is None
            if session is None and not self._dry_run:
                session = await self._create(repo, conversation)
                new = session.last_seq == 0
            elif session is None:
                await self._require_creatable(db, conversation)
            comparing = _Comparing(conversation, self._stop)
            if session is not None and not new:
                _require_user(session, conversation)
                await comparing.read(repo, session)
            await self._transfer(db, repo, session, comparing, items, new=new)
            return comparing.outcome(new=new)

    async def _create(self, repo: SessionRepository, conversation: Conversation) -> Session:
        values = _values(conversation)
        try:
            return await repo.create(Session(external_id=conversation.external_id, **values))
        except SessionConflictError:  # Another run stored it meanwhile, or it was deleted; this finds out.
            return await repo.get_or_create(conversation.external_id, **values)

    async def _require_creatable(self, db: Any, conversation: Conversation) -> None:
        """Find out what :meth:`_create` would be refused for."""
        check_documents(Session(external_id=conversation.external_id, **_values(conversation)))
        there = select(Session.id).where(
            Session.tenant_id == self._tenant_id, Session.external_id == conversation.external_id
        )
        if (hidden := await db.scalar(there)) is not None:
            raise RefusedError(
                ImportProblem(conversation.place, f"session {hidden} of the target has its external id and was deleted")
            )

    async def _transfer(
        self,
        db: Any,
        repo: SessionRepository,
        session: Session | None,
        comparing: "_Comparing",
        items: Items,
        *,
        new: bool,
    ) -> None:
        arrival: Arrival | None = None
        seq = seen = 0 if session is None else session.last_seq
        async for item in items():
            message = comparing.take(item)
            if message is None or session is None or self._dry_run:
                continue
            if arrival is None:
                if not new:
                    await _lock(repo, session, seen)
                arrival = Arrival(db, session, known=comparing.client_ids)
            seq += 1
            message.session_id = session.id
            await arrival.take(message, seq=seq, created_at=comparing.moment)
        if self._dry_run or session is None or not (new or arrival is not None):
            comparing.require_context(session)
            return
        arrival = arrival or Arrival(db, session)
        await arrival.finish(**comparing.values_of(session, seq=seq, new=new))
        await comparing.verify(repo, session)


class _Comparing:
    """One conversation of the source, beside what the target has of it."""

    def __init__(self, conversation: Conversation, stop: bool) -> None:
        self._conversation = conversation
        self._stop = stop
        self._stored = Digests()
        self._wanted = Digests()
        self._problems = Problems()
        self._added = 0
        self.client_ids: set[str] = set()
        self.moment: Any = None

    async def read(self, repo: SessionRepository, session: Session) -> None:
        """Read what the target has."""
        async for digest, client_id in _walk(repo, session):
            self._stored.append(digest)
            if client_id is not None:
                self.client_ids.add(client_id)

    def take(self, item: Item | Unreadable) -> PendingMessage | None:
        """Compare the next item; return the message that the target lacks, or None."""
        if isinstance(item, Unreadable):
            self._refuse(ImportProblem(item.place, item.reason))
            return None
        try:
            message = accept_message(_ANY_ID, item.document, item.client_id, item.role)
        except SessionValueError as exc:
            self._refuse(ImportProblem(item.place, _without_values(exc)), exc)
            return None
        number = len(self._wanted)
        digest = digest_of(message.role, dumps(message.data))
        self._wanted.append(digest)
        if number < len(self._stored):
            if self._stored[number] != digest:
                raise RefusedError(
                    ImportProblem(
                        item.place,
                        f"the target holds another item in its place (number {number + 1} of the session); it was "
                        "changed on one side: delete the session in the target to bring it over again",
                    )
                )
            return None
        self._added += 1
        self.moment = item.created_at or self.moment or self._conversation.created_at
        if self.moment is None:
            self.moment = datetime.now().astimezone()
        return message

    def _refuse(self, problem: ImportProblem, cause: Exception | None = None) -> None:
        if self._stop:
            raise RefusedError(problem) from cause
        self._problems.add(problem)

    def require_context(self, session: Session | None) -> None:
        """Compare the context of a session that has just the items of the source."""
        context = self._conversation.context
        if session is None or context is None or len(self._stored) > len(self._wanted) or self._added:
            return
        if _sorted(session.context) != _sorted(context):
            raise RefusedError(
                ImportProblem(
                    self._conversation.place,
                    "the state of the session differs from the target's, and no event says why; delete the session in "
                    "the target to bring it over again",
                )
            )

    def values_of(self, session: Session, *, seq: int, new: bool) -> dict[str, Any]:
        """Return what the session's row says after the import."""
        now = datetime.now().astimezone()
        created = self._conversation.created_at or now
        active = self._conversation.active_at or self.moment or created
        values: dict[str, Any] = {"last_seq": seq}
        if new:
            return values | {"created_at": created, "updated_at": active, "last_activity_at": active}
        if self._conversation.context is not None:
            values |= {"context": dict(self._conversation.context), "version": session.version + 1}
        expires_at = max(session.expires_at, now + limits_from_settings().expiry)
        moments = {name: max(getattr(session, name), active) for name in ("updated_at", "last_activity_at")}
        return values | moments | {"expires_at": expires_at}

    async def verify(self, repo: SessionRepository, session: Session) -> None:
        """Read back every item of the session, and compare it with the source's."""
        number = 0
        async for digest, _ in _walk(repo, session):
            if number >= len(self._wanted) or digest != self._wanted[number]:
                raise self._mismatch(f"item {number + 1} read back from the target is not the source's")
            number += 1
        if number != len(self._wanted):
            raise self._mismatch(f"{number} items were read back from the target, of {len(self._wanted)}")

    def _mismatch(self, reason: str) -> RefusedError:
        return RefusedError(ImportProblem(self._conversation.place, f"{reason}; nothing of it was stored"))

    def outcome(self, *, new: bool) -> Outcome:
        """Return what became of the conversation."""
        change: Any = "added" if new else "extended" if self._added else "unchanged"
        return Outcome(change, len(self._wanted), self._added, self._problems)


async def _walk(repo: SessionRepository, session: Session) -> AsyncIterator[tuple[bytes, str | None]]:
    """Return digest and client id of every message of a session; some megabytes of messages are in memory at a time."""
    after, limit = 0, _FIRST_PAGE
    while True:
        page = await repo.get_messages(session.id, after_seq=after, limit=limit)
        characters = 1
        for message in page:
            text = dumps(message.data)
            characters += len(text)
            yield digest_of(message.role, text), message.client_id
        if len(page) < limit:
            return
        after = page[-1].seq
        limit = max(1, min(_PAGE, _PAGE_CHARACTERS * len(page) // characters))


def _values(conversation: Conversation) -> dict[str, Any]:
    """Return what a new session is made with."""
    return {
        "user_id": conversation.user_id,
        "agent_id": conversation.agent_id,
        "title": conversation.title,
        "context": dict(conversation.context or {}),
        "metadata": dict(conversation.metadata),
    }


async def _lock(repo: SessionRepository, session: Session, seen: int) -> None:
    locked = await repo.get(session.id, lock=True)
    if locked is None or locked.last_seq != seen:
        raise TransactionConflictError(f"session {session.id} was changed while it was compared; compare it again")


def _require_user(session: Session, conversation: Conversation) -> None:
    if str(session.user_id) != conversation.user_id:
        raise RefusedError(
            ImportProblem(
                conversation.place,
                "the target has a session of its external id that belongs to another user; import into another tenant, "
                "or for that user",
            )
        )


def _sorted(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)


def _without_values(exc: SessionError) -> str:
    """Return what an error says, without the value that it shows: that belongs to a conversation."""
    return re.split(r", got |; remove it: |; repair it: | repair it$|: ['\"{\[]", str(exc), maxsplit=1)[0]
