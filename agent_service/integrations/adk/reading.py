"""Reading sessions: the events that a caller wants, and lists of any length."""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from google.adk.sessions.base_session_service import GetSessionConfig
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.context.database import DatabaseContextStore
from agent_service.core.fixed import plain
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session as StoredRow
from agent_service.infrastructure.database.queries.listing import ids_of
from agent_service.infrastructure.database.queries.summaries import summaries
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.integrations.adk.events import event_of, timestamp_of
from agent_service.integrations.adk.identity import app_key, user_key
from agent_service.integrations.adk.scopes import Scopes, merged
from agent_service.integrations.adk.stored import StoredSession, id_of, updated_at_first

__all__ = ["Documents", "last_documents", "listed", "session_of", "shared_state", "wanted_documents"]

Documents = list[dict[str, Any]]

_PAGE: Final = 500
"""Sessions, or events, that are read at a time."""


async def wanted_documents(
    repo: SessionRepository, row: StoredRow, config: GetSessionConfig | None
) -> tuple[Documents, dict[str, Any] | None]:
    """Return the documents of the events that a caller wants, in order, and the session's last one.

    They are read from the end, and no further than they are wanted, so a filtered read costs what it returns. As in
    ADK's own service in memory, the events after a time are those behind the last one that is older.
    """
    most = None if config is None else config.num_recent_events
    since = None if config is None else config.after_timestamp
    found: Documents = []
    last: dict[str, Any] | None = None
    async for document in last_documents(repo, row, _PAGE if most is None else most):
        last = document if last is None else last
        if (most is not None and len(found) >= most) or (since is not None and timestamp_of(document) < since):
            break
        found.append(document)
    return found[::-1], last


async def last_documents(repo: SessionRepository, row: StoredRow, wanted: int) -> AsyncIterator[dict[str, Any]]:
    """Return the documents of a session's events as of its row, the newest first.

    :param wanted: how many are expected to be looked at, to read no more at first.
    """
    before, size = row.last_seq + 1, min(max(wanted, 1), _PAGE)
    while page := await repo.get_messages(row.id, before_seq=before, limit=size):
        for message in reversed(page):
            yield message.to_dict()
        before = page[0].seq
        if before == 1:
            return


def session_of(
    row: Any, app_name: str, shared: Scopes, updated: float | None, documents: Iterable[dict[str, Any]]
) -> StoredSession:
    """Return ADK's object of a stored session.

    :param row: the session, or its summary.

    :param shared: the state of the app and of the user.
    :param updated: the timestamp of its last event; None: it has none.
    """
    session = StoredSession(
        id=id_of(row),
        app_name=app_name,
        user_id=str(row.user_id),
        state=merged(Scopes(shared.app, shared.user, plain(row.context))),
        events=[event_of(document) for document in documents],
        last_update_time=updated_at_first(row) if updated is None else updated,
    )
    session.know(row.id, row.last_seq)
    return session


async def shared_state(states: DatabaseContextStore, db: AsyncSession, tenant_id: str, app: str, user: str) -> Scopes:
    """Return the state of an app and of one of its users."""
    keys = app_key(tenant_id, app), user_key(tenant_id, app, user)
    found = await states.within(db).get_many(keys)
    return Scopes(found.get(keys[0], {}), found.get(keys[1], {}))


async def listed(
    repo: SessionRepository, db: AsyncSession, states: DatabaseContextStore, app: str, user: str | None
) -> list[StoredSession]:
    """Return all sessions of an app, or of one of its users, without events, the one updated longest ago first.

    One statement reads the ids, so none is left out because it changed meanwhile; two more for each 500 sessions read
    what they say. So the cost of a session is the same however many there are.
    """
    wanted = {"agent_id": app} if user is None else {"user_id": user, "agent_id": app}
    with database_errors("list sessions"):
        ids = list(await db.scalars(ids_of(tuple(wanted)), {**wanted, "tenant_id": repo.tenant_id}))
    pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
    sessions = [each for page in pages for each in await _list_page(repo.tenant_id, db, states, app, page)]
    return sorted(sessions, key=lambda each: (each.last_update_time, each.user_id, each.id))


async def _list_page(
    tenant_id: str, db: AsyncSession, states: DatabaseContextStore, app: str, ids: Sequence[UUID]
) -> list[StoredSession]:
    with database_errors("list sessions"):
        rows = (await db.execute(summaries(db.get_bind().dialect.name, tenant_id, ids, "timestamp"))).all()
    shared = app_key(tenant_id, app)
    keys = {user: user_key(tenant_id, app, str(user)) for user in {row.user_id for row in rows}}
    found = await states.within(db).get_many([shared, *keys.values()])
    scopes = {user: Scopes(found.get(shared, {}), found.get(key, {})) for user, key in keys.items()}
    return [session_of(row, app, scopes[row.user_id], _timestamp(row.last_field), ()) for row in rows]


def _timestamp(last_field: str | None) -> float | None:
    return None if last_field is None else json.loads(last_field)[0]
