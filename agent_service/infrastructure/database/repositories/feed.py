"""Following a session: subscribers receive every message that is appended, in order, without gaps.

Messages are read by number, after the last one that was delivered. Numbers follow the order of commits, so a read finds
everything up to the number it reaches, whichever process wrote it. NOTIFY only says when to read again; where there is
none (SQLite, a lost connection, pgbouncer) the subscription polls.
"""

import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, Literal, overload
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.core.bell import Bell
from agent_service.core.errors import DatabaseUnavailableError, SessionValueError
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.errors.outages import tell_outage
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.queries.truncations import (
    Removed,
    first_to_forget,
    read_removed,
    truncations_of,
)
from agent_service.infrastructure.database.queries.watch import LEASE, watch
from agent_service.infrastructure.database.repositories.ending import Ended, Ending, Until, require_until
from agent_service.infrastructure.database.repositories.history import SessionHistory
from agent_service.infrastructure.database.repositories.results import Truncation
from agent_service.infrastructure.database.values.validation import MAX_SEQ, require_count, require_session_id

__all__ = ["SessionFeed"]

PAGE: Final = 200
"""Messages read at once, and at most in memory for a subscription that is behind."""
RENEWAL: Final = LEASE.total_seconds() / 3
"""Seconds after which a subscription that is notified polls as well."""
SHORTEST_POLL: Final = 0.05
LONGEST_POLL: Final = 0.5
"""Seconds between two polls of a subscription that is not notified; doubling from the one to the other while quiet."""


class SessionFeed(SessionHistory):
    """The part of the repository that follows what is said in a session."""

    @overload
    def subscribe(
        self,
        session_id: UUID | str,
        *,
        after_seq: int = 0,
        until: Until | None = None,
        truncations: Literal[False] = False,
    ) -> AsyncGenerator[SessionMessage, None]: ...
    @overload
    def subscribe(
        self, session_id: UUID | str, *, after_seq: int = 0, until: Until | None = None, truncations: bool
    ) -> AsyncGenerator[SessionMessage | Truncation, None]: ...
    def subscribe(
        self, session_id: UUID | str, *, after_seq: int = 0, until: Until | None = None, truncations: bool = False
    ) -> AsyncGenerator[Any, None]:
        """Return every message after ``after_seq`` as it is committed, in order, gap-free, without end.

        ::

            async with aclosing(repo.subscribe(session_id, after_seq=last_seen)) as messages:
                async for message in messages:
                    await send(message.to_dict())

        It reads in short transactions of its own, so it holds no connection while it waits and does not see what the
        repository's own transaction has not committed. An outage after the first read is waited out, then it goes on
        where it was. A message that was popped before it was read is left out.

        With ``truncations=True`` it also gives a :class:`Truncation` where ``clear_messages`` or ``replace_suffix``
        removed messages that were delivered, or may have been before ``after_seq``. A follower that keeps a view drops
        what is numbered ``from_seq`` and above; the subscription goes on from there with what the session shows now.

        On PostgreSQL one connection per event loop listens for all subscriptions. SQLite is read again after 0.05 to
        0.5 seconds.

        :param until: an :class:`asyncio.Event` that ends the subscription when it is set, without an error, whether it
            waits or has messages to return; a read under way has half a second to end. A later subscription goes on
            after the last number.
        :raises SessionNotFoundError: there is no such session, or it was deleted meanwhile.
        :raises SessionValueError: the repository's session is read-only, or not of :func:`get_session`, or ``until``
            is no event.
        """
        key = require_session_id(session_id)
        after = require_count(after_seq, "after_seq", least=0, most=MAX_SEQ)
        ending = Ending(require_until(until))
        if not isinstance(truncations, bool):
            raise SessionValueError(f"truncations must be True or False, got {truncations!r:.80}")
        database = self._db.info.get("database")
        if not isinstance(database, DatabaseManager):
            raise SessionValueError(
                "subscribe needs a session of get_session() or DatabaseManager.session(), not a read-only one: "
                "it outlives the transaction and reads through sessions of its own"
            )
        return self._follow(database, key, after, ending, truncations)

    async def _follow(
        self, database: DatabaseManager, key: UUID, seq: int, ending: Ending, truncations: bool
    ) -> AsyncGenerator[SessionMessage | Truncation, None]:
        async with database.notifications.bell(key) as bell, ending.watched(bell):
            reading = _Reading(database, self._within, key, ending, truncations=truncations)
            while not ending.due:
                database.notifications.require_open()
                page, notified = await reading.next_page(seq)
                if (first := reading.first_to_forget(seq, page)) is not None:
                    if first <= seq and not ending.due:
                        yield Truncation(key, first)
                        seq = first - 1
                    continue  # The page may be older than the removal.
                for message in page:
                    if ending.due:
                        return
                    yield message
                    seq = message.seq
                if len(page) < PAGE and not ending.due:
                    await reading.pause(bell, found=bool(page), notified=notified)

    def _within(self, db: AsyncSession) -> SessionHistory:
        return type(self)(db, self._tenant_id, limits=self._limits, clock=self._clock)


class _Reading:
    """How one subscription reads: when it reads again, and what it does in an outage."""

    def __init__(
        self,
        database: DatabaseManager,
        repository: Callable[[AsyncSession], SessionHistory],
        key: UUID,
        ending: Ending,
        *,
        truncations: bool,
    ) -> None:
        self._database = database
        self._repository = repository
        self._key = key
        self._ending = ending
        self._truncations = truncations
        self._removed: list[Removed] = []
        self._told: set[Removed] = set()
        self._marked_at = -RENEWAL
        self._poll = SHORTEST_POLL
        self._began = False

    async def next_page(self, seq: int) -> tuple[list[SessionMessage], bool]:
        """Read on after a number; also whether later messages will be notified."""
        try:
            page, notified = await self._read(seq)
        except Ended:
            return [], False
        except DatabaseUnavailableError as exc:
            if not self._began:
                raise
            tell_outage(self._database.availability, exc)
            return [], False
        if self._database.availability.away:
            self._database.availability.answered()
        self._began = True
        return page, notified

    def first_to_forget(self, seq: int, page: list[SessionMessage]) -> int | None:
        """Return from which number on messages were removed of those up to ``seq`` and on the page, once a removal."""
        unknown = [each for each in self._removed if each not in self._told]
        self._told = set(self._removed)
        return first_to_forget(unknown, seq, page[-1].seq if page else seq)

    async def pause(self, bell: Bell, *, found: bool, notified: bool) -> None:
        """Wait until there may be more."""
        if notified:
            self._poll = SHORTEST_POLL
            await bell.wait(RENEWAL)
        else:
            self._poll = SHORTEST_POLL if found else min(self._poll * 2, LONGEST_POLL)
            await bell.wait(self._poll * random.uniform(0.75, 1))  # noqa: S311 - subscriptions shall not poll in step

    async def _read(self, seq: int) -> tuple[list[SessionMessage], bool]:
        async with self._database.session(read_committed=True) as db:
            repository = self._repository(db)
            # Marked before it is read: what commits after the mark notifies, what committed before it is found.
            notified = self._database.notifications.listening and await self._mark(db, repository.tenant_id)
            async with self._ending.reading():
                page = await repository.get_messages(self._key, after_seq=seq, limit=PAGE)
                if self._truncations:
                    # After the messages: a page that shows what replaced others says that those were removed.
                    with database_errors("read a session"):
                        found = await db.scalar(truncations_of(repository.tenant_id, self._key))
                    self._removed = read_removed(found)
            return page, notified

    async def _mark(self, db: AsyncSession, tenant_id: str) -> bool:
        now = time.monotonic()
        if now - self._marked_at < RENEWAL:
            return True
        with database_errors("watch a session"):
            async with self._ending.reading():
                marked = (await db.execute(watch(tenant_id, self._key))).first() is not None
            await db.commit()
        if marked:
            self._marked_at = now
        return marked
