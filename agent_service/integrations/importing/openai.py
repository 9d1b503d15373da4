"""Conversations of the OpenAI Agents SDK's ``SQLAlchemySession``: its two tables, whatever their names.

Items are read in the order in which ``get_items`` gives them. Nothing here needs the SDK.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, Final
from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.foreign import Reading, SourceDatabase, SourceTable
from agent_service.infrastructure.database.values.validation import require_identifier
from agent_service.integrations.importing.conversations import (
    Conversation,
    Item,
    Unreadable,
    moment_of,
    parse_object,
)
from agent_service.integrations.importing.report import ImportProblem, ImportReport, Outcome, RefusedError
from agent_service.integrations.importing.run import Job, Options, run_import
from agent_service.integrations.importing.sessions import SessionTarget
from agent_service.integrations.openai_agents.items import client_id_of, role_of

__all__ = ["import_openai"]

_SESSION: Final = ("session_id", "created_at", "updated_at")
_MESSAGE: Final = ("id", "session_id", "message_data", "created_at")
_READ: Final = ("created_at", "id", "message_data")

UserOf = UUID | str | Callable[[str], UUID | str]


async def import_openai(
    source: str,
    *,
    user_id: UserOf,
    agent_id: str | None = None,
    sessions_table: str = "agent_sessions",
    messages_table: str = "agent_messages",
    schema: str | None = None,
    options: Options | None = None,
) -> ImportReport:
    """Bring the conversations of a ``SQLAlchemySession`` over into sessions, which ``DatabaseSession`` reads alike.

    A conversation keeps its id, items, their order, and the moments at which they were stored. Each is one transaction,
    read back and compared before it is committed. What the target has already is compared and left as it is, so a run
    can be repeated: it goes on where one was interrupted, and adds what the source has got since.

    ::

        report = await import_openai("postgresql://app:secret@db/agents", user_id="ada")

    :param source: URL of its database, as SQLAlchemy takes it.
    :param user_id: whose the sessions become, which the SDK does not know: one user, or a function of the session id.
    :param agent_id: which agent's they become.
    :param sessions_table: as ``SQLAlchemySession`` was given it; so is ``messages_table``.
    :param schema: the PostgreSQL schema of the tables; None: as the connection finds them.
    :param options: target, tenant and what else all imports can be told.
    :raises ConfigurationError: ``source`` cannot be used, or has no such tables.
    :raises SessionValueError: ``user_id`` names no user.
    :raises ImportStoppedError: an item cannot be brought over.
    :raises DatabaseError: one of the databases failed; another run goes on from there.
    """
    options = options or Options()
    if not callable(user_id):
        require_identifier(user_id, "user_id")
    database = SourceDatabase(source)
    try:
        sessions = await database.table(sessions_table, *_SESSION, schema=schema)
        messages = await database.table(messages_table, *_MESSAGE, schema=schema)
        phase = _Sessions(sessions, messages, user_id, agent_id, options)
        return await run_import(
            Job(database, ("openai", schema or "", sessions_table, messages_table), [phase]), options
        )
    finally:
        await database.close()


class _Sessions:
    def __init__(
        self, sessions: SourceTable, messages: SourceTable, user_id: UserOf, agent_id: str | None, options: Options
    ) -> None:
        self._sessions = sessions
        self._messages = messages
        self._user_id = user_id
        self._agent_id = agent_id
        self._target = SessionTarget(options)

    async def count(self, reading: Reading) -> int:
        """Return how many sessions there are."""
        return await reading.count(self._sessions)

    async def keys(self, reading: Reading, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]:
        """Return the next ids, of messages whose session is missing too: the SDK reads them all the same."""
        both = [(self._sessions, ("session_id",)), (self._messages, ("session_id",))]
        return await reading.keys(both, after=after, limit=limit)

    async def bring(self, reading: Reading, key: tuple[Any, ...]) -> Outcome:
        """Bring a session over."""
        (session_id,) = key
        place = f"session {session_id!a:.80}"
        row = await reading.one(self._sessions, _SESSION, where={"session_id": session_id})
        conversation = Conversation(
            place,
            external_id=session_id,
            user_id=self._user_of(session_id, place),
            agent_id=self._agent_id,
            created_at=moment_of(row["created_at"]) if row else None,
            active_at=moment_of(row["updated_at"]) if row else None,
        )
        return await self._target.bring(conversation, partial(self._items, reading, session_id, place))

    def _user_of(self, session_id: str, place: str) -> str:
        user_id = self._user_id(session_id) if callable(self._user_id) else self._user_id
        try:
            return require_identifier(user_id, "user_id")
        except SessionValueError as exc:
            raise RefusedError(ImportProblem(place, f"user_id returned no user for it ({exc})")) from exc

    async def _items(self, reading: Reading, session_id: str, place: str) -> AsyncIterator[Item | Unreadable]:
        walk = reading.walk(
            self._messages,
            _READ,
            where={"session_id": session_id},
            order=("created_at", "id"),
            weigh=("message_data",),
        )
        async for row in walk:
            there = f"{place}, {self._messages.name} id {row['id']}"
            found = parse_object(row["message_data"])
            if isinstance(found, str):
                yield Unreadable(there, f"message_data {found}")
            else:
                yield Item(there, found, role_of(found), client_id_of(found), moment_of(row["created_at"]))
