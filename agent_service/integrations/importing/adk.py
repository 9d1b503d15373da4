"""Sessions and state of ADK's ``DatabaseSessionService``, in either layout of its tables.

Events are read in the order in which ``get_session`` gives them. ADK is needed to read them.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.foreign import Reading, Row, SourceDatabase, SourceTable
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
from agent_service.integrations.importing.states import StateTarget

if TYPE_CHECKING:
    from agent_service.integrations.importing.adk_events import EventLayout

__all__ = ["import_adk"]

_KEY: Final = ("app_name", "user_id", "id")
_SESSION: Final = (*_KEY, "state", "create_time", "update_time")
_EVENT: Final = ("app_name", "user_id", "session_id", "id", "timestamp")


async def import_adk(source: str, *, schema: str | None = None, options: Options | None = None) -> ImportReport:
    """Bring the sessions of ADK's ``DatabaseSessionService`` over, with their events and all state.

    What our session service then gives is what ADK's own gave. Each session is one transaction, read back and compared
    before it is committed. What the target has already is compared and left as it is, so a run can be repeated: it goes
    on where one was interrupted, and adds what the source has got since.

    ::

        report = await import_adk("postgresql://app:secret@db/agents")

    :param source: URL of its database, as SQLAlchemy takes it. Both layouts of the tables are read; the pickles of the
        older one are read as data, and nothing of them is run.
    :param schema: the PostgreSQL schema of the tables; None: as the connection finds them.
    :param options: target, tenant and what else all imports can be told.
    :raises ConfigurationError: ``source`` cannot be used, or has no such tables.
    :raises ImportError: ADK is not installed.
    :raises ImportStoppedError: an event or a state cannot be brought over.
    :raises DatabaseError: one of the databases failed; another run goes on from there.
    """
    from agent_service.integrations.importing.adk_events import layout_of  # noqa: PLC0415 - needs ADK

    options = options or Options()
    database = SourceDatabase(source)
    try:
        sessions = await database.table("sessions", *_SESSION, schema=schema)
        events = await database.table("events", *_EVENT, schema=schema)
        apps = await database.table("app_states", "app_name", "state", schema=schema)
        users = await database.table("user_states", "app_name", "user_id", "state", schema=schema)
        name = ("adk", schema or "")
        states = StateTarget(options, (*name, database.place, options.tenant_id))
        phases: list[Any] = [
            _States(apps, ("app_name",), options, states),
            _States(users, ("app_name", "user_id"), options, states),
            _Sessions(sessions, events, layout_of(events), options),
        ]
        return await run_import(Job(database, name, phases), options)
    finally:
        await database.close()


class _States:
    """The state of apps, or of their users."""

    def __init__(self, table: SourceTable, key: tuple[str, ...], options: Options, target: StateTarget) -> None:
        self._table = table
        self._key = key
        self._tenant_id = options.tenant_id
        self._target = target

    async def count(self, reading: Reading) -> int:
        """Return how many there are."""
        return await reading.count(self._table)

    async def keys(self, reading: Reading, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]:
        """Return the next keys."""
        return await reading.keys([(self._table, self._key)], after=after, limit=limit)

    async def bring(self, reading: Reading, key: tuple[Any, ...]) -> Outcome:
        """Bring one over."""
        from agent_service.integrations.adk.identity import app_key, user_key  # noqa: PLC0415 - needs ADK

        row = await reading.one(self._table, ("state",), where=dict(zip(self._key, key, strict=True)))
        place = f"{self._table.name} of {'/'.join(ascii(part)[:80] for part in key)}"
        state = _state(row, place)
        ours = app_key(self._tenant_id, *key) if len(key) == 1 else user_key(self._tenant_id, *key)
        return await self._target.bring(place, ours, state)


class _Sessions:
    def __init__(self, sessions: SourceTable, events: SourceTable, layout: "EventLayout", options: Options) -> None:
        self._sessions = sessions
        self._events = events
        self._layout = layout
        self._target = SessionTarget(options)

    async def count(self, reading: Reading) -> int:
        """Return how many sessions there are."""
        return await reading.count(self._sessions)

    async def keys(self, reading: Reading, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]:
        """Return the next keys."""
        return await reading.keys([(self._sessions, _KEY)], after=after, limit=limit)

    async def bring(self, reading: Reading, key: tuple[Any, ...]) -> Outcome:
        """Bring a session over."""
        from agent_service.integrations.adk.identity import own_id, session_key  # noqa: PLC0415 - needs ADK
        from agent_service.integrations.adk.stored import first_metadata  # noqa: PLC0415 - needs ADK

        app_name, user_id, session_id = key
        place = f"session {'/'.join(ascii(part)[:80] for part in key)}"
        row = await reading.one(self._sessions, _SESSION, where=dict(zip(_KEY, key, strict=True)))
        state = _state(row, place)
        updated = moment_of(row["update_time"]) if row else None
        try:
            external_id = session_key(app_name, user_id, own_id(session_id))
        except SessionValueError as exc:
            raise RefusedError(ImportProblem(place, "its names cannot be an external id")) from exc
        conversation = Conversation(
            place,
            external_id=external_id,
            user_id=user_id,
            agent_id=app_name,
            context=state,
            metadata=first_metadata(own_id(session_id), 0.0 if updated is None else updated.timestamp()),
            created_at=moment_of(row["create_time"]) if row else None,
            active_at=updated,
        )
        return await self._target.bring(conversation, partial(self._items, reading, key, place))

    async def _items(self, reading: Reading, key: tuple[Any, ...], place: str) -> AsyncIterator[Item | Unreadable]:
        walk = reading.walk(
            self._events,
            ("timestamp", "id", *self._layout.columns),
            where=dict(zip(("app_name", "user_id", "session_id"), key, strict=True)),
            order=("timestamp", "id"),
            weigh=self._layout.columns,
        )
        async for row in walk:
            yield self._layout.read(row, f"{place}, event {row['id']!a:.80}")


def _state(row: Row | None, place: str) -> dict[str, Any]:
    if row is None or row["state"] is None:
        return {}
    state = parse_object(row["state"])
    if isinstance(state, str):
        raise RefusedError(ImportProblem(place, f"state {state}"))
    return state
