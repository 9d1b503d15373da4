"""Every public method of what works for one tenant, called with all that it knows of another one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

from agent_service.context.session import SessionContextStore
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.contexts.sessions import SessionContexts
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.canary.estate import (
    AGENT,
    CLIENT_IDS,
    EXTERNAL,
    SECRET,
    TITLE,
    USER,
    Estate,
    forged,
    message,
    streamed,
)

Repo = SessionRepository
ById = Callable[[Repo, UUID], Awaitable[Any]]
Any_ = Callable[[Repo, Estate], Awaitable[Any]]

AGES_AGO, FAR_AHEAD = datetime(1999, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
PATCH = {SECRET[::-1]: 1}


async def first(items: AsyncIterator[Any]) -> Any:
    """Return the first of what would not end by itself."""
    try:
        return await anext(items)
    finally:
        await items.aclose()  # type: ignore[attr-defined]


async def all_of(items: AsyncIterator[Any]) -> list[Any]:
    """Return everything."""
    return [each async for each in items]


BY_ID: dict[str, list[ById]] = {
    "get": [
        lambda repo, id_: repo.get(id_),
        lambda repo, id_: repo.get(str(id_)),
        lambda repo, id_: repo.get(id_, lock=True),
    ],
    "get_session_with_messages": [lambda repo, id_: repo.get_session_with_messages(id_)],
    "add_message_to_session": [
        lambda repo, id_: repo.add_message_to_session(id_, message("x")),
        lambda repo, id_: repo.add_message_to_session(id_, message("x"), client_id=CLIENT_IDS[0]),
        lambda repo, id_: repo.add_message_to_session(id_, message("x"), client_id="new"),
        lambda repo, id_: repo.add_message_to_session(id_, message("x"), expected_seq=0),
        lambda repo, id_: repo.add_message_to_session(id_, message("x"), expected_version=7),
    ],
    "add_messages_to_session": [
        lambda repo, id_: repo.add_messages_to_session(id_, []),
        lambda repo, id_: repo.add_messages_to_session(id_, [{"type": "reasoning"}], role="assistant"),
        lambda repo, id_: repo.add_messages_to_session(id_, [message("x"), message("y")]),
        lambda repo, id_: repo.add_messages_to_session(id_, [message("x")] * 3, client_ids=CLIENT_IDS),
        lambda repo, id_: repo.add_messages_to_session(id_, [message("x")] * 2, client_ids=[CLIENT_IDS[0], None]),
    ],
    "get_messages": [
        lambda repo, id_: repo.get_messages(id_),
        lambda repo, id_: repo.get_messages(id_, after_seq=0),
        lambda repo, id_: repo.get_messages(id_, before_seq=3, roles=["user"]),
        lambda repo, id_: repo.get_messages(id_, max_tokens=1000),
    ],
    "iter_messages": [lambda repo, id_: all_of(repo.iter_messages(id_))],
    "pop_message": [lambda repo, id_: repo.pop_message(id_)],
    "clear_messages": [
        lambda repo, id_: repo.clear_messages(id_),
        lambda repo, id_: repo.clear_messages(id_, expected_seq=2),
    ],
    "replace_suffix": [
        lambda repo, id_: repo.replace_suffix(id_, 1, [message("x")]),
        lambda repo, id_: repo.replace_suffix(id_, 2, [message("x")] * 2, client_ids=[CLIENT_IDS[0], None]),
        lambda repo, id_: repo.replace_suffix(id_, 9, [], expected_seq=0),
    ],
    "fork": [lambda repo, id_: repo.fork(id_, 0), lambda repo, id_: repo.fork(id_, 2)],
    "subscribe": [
        lambda repo, id_: first(repo.subscribe(id_)),
        lambda repo, id_: first(repo.subscribe(id_, after_seq=1)),
        lambda repo, id_: first(repo.subscribe(id_, after_seq=1, truncations=True)),
    ],
    "set_session_context": [
        lambda repo, id_: repo.set_session_context(id_, PATCH),
        lambda repo, id_: repo.set_session_context(id_, PATCH, expected_version=7),
    ],
    "set_session_metadata": [
        lambda repo, id_: repo.set_session_metadata(id_, PATCH),
        lambda repo, id_: repo.set_session_metadata(id_, PATCH, expected_version=7),
    ],
    "update_session_context": [
        lambda repo, id_: repo.update_session_context(id_, PATCH),
        lambda repo, id_: repo.update_session_context(id_, PATCH, expected_version=7),
        lambda repo, id_: repo.update_session_context(id_, PATCH, deep=True),
        lambda repo, id_: repo.update_session_context(id_, {}, delete_keys=["n"]),
    ],
    "update_session_metadata": [
        lambda repo, id_: repo.update_session_metadata(id_, PATCH),
        lambda repo, id_: repo.update_session_metadata(id_, {}, delete_keys=["m"], expected_version=7),
    ],
    "set_session_context_path": [lambda repo, id_: repo.set_session_context_path(id_, "a.b", 1)],
    "set_session_metadata_path": [lambda repo, id_: repo.set_session_metadata_path(id_, "m.b", 1)],
    "increment_session_context": [lambda repo, id_: repo.increment_session_context(id_, "n")],
    "bulk_update_session_status": [lambda repo, id_: repo.bulk_update_session_status([id_], "failed")],
    "delete": [lambda repo, id_: repo.delete(id_), lambda repo, id_: repo.delete(id_, hard=True)],
    "restore": [lambda repo, id_: repo.restore(id_)],
    "recount": [lambda repo, id_: repo.recount(id_)],
}
"""By method: what is called with the id of each session of the other tenant, and must be as if there were none."""

OTHERWISE: dict[str, list[Any_]] = {
    "get_by_external_id": [lambda repo, theirs: repo.get_by_external_id(EXTERNAL)],
    "get_or_create": [
        lambda repo, theirs: repo.get_or_create(EXTERNAL, user_id=USER),
        lambda repo, theirs: repo.get_or_create(f"{EXTERNAL} of my own", user_id=USER),
    ],
    "get_session_by_title": [
        lambda repo, theirs: repo.get_session_by_title(USER, TITLE),
        lambda repo, theirs: repo.get_session_by_title(USER, SECRET),
    ],
    "get_user_sessions": [
        lambda repo, theirs: repo.get_user_sessions(USER, active_only=False),
        lambda repo, theirs: repo.get_user_sessions(USER, limit=1, offset=1),
    ],
    "get_recent_sessions": [lambda repo, theirs: repo.get_recent_sessions(USER, hours=10_000)],
    "get_sessions_by_agent": [
        lambda repo, theirs: repo.get_sessions_by_agent(AGENT),
        lambda repo, theirs: repo.get_sessions_by_agent(AGENT, active_only=True),
    ],
    "get_paginated_user_sessions": [
        lambda repo, theirs: repo.get_paginated_user_sessions(USER),
        lambda repo, theirs: repo.get_paginated_user_sessions(USER, 2, 1, status="active", agent_id=AGENT),
    ],
    "get_user_sessions_page": [
        lambda repo, theirs: repo.get_user_sessions_page(USER),
        lambda repo, theirs: repo.get_user_sessions_page(USER, cursor=theirs.cursor),
    ],
    "iter_sessions": [
        lambda repo, theirs: all_of(repo.iter_sessions()),
        lambda repo, theirs: all_of(repo.iter_sessions(user_id=USER, agent_id=AGENT)),
    ],
    "count_active_sessions": [
        lambda repo, theirs: repo.count_active_sessions(),
        lambda repo, theirs: repo.count_active_sessions(USER),
    ],
    "get_session_stats": [
        lambda repo, theirs: repo.get_session_stats(),
        lambda repo, theirs: repo.get_session_stats(USER, agent_id=AGENT, since=AGES_AGO, until=FAR_AHEAD),
        lambda repo, theirs: repo.get_session_stats(group_by="agent"),
        lambda repo, theirs: repo.get_session_stats(group_by="day"),
    ],
    "search_sessions": [
        lambda repo, theirs: repo.search_sessions(USER, SECRET),
        lambda repo, theirs: repo.search_sessions(USER, SECRET[:2]),
        lambda repo, theirs: repo.search_sessions(USER, SECRET, in_content=False),
        lambda repo, theirs: repo.search_sessions(USER, TITLE),
    ],
    "search_messages": [
        lambda repo, theirs: repo.search_messages(USER, SECRET),
        lambda repo, theirs: repo.search_messages(USER, SECRET[:2]),
    ],
    "export_user": [lambda repo, theirs: all_of(repo.export_user(USER))],
    "cleanup_expired_sessions": [lambda repo, theirs: repo.cleanup_expired_sessions()],
    "purge_deleted": [
        lambda repo, theirs: repo.purge_deleted(timedelta()),
        lambda repo, theirs: repo.purge_deleted(FAR_AHEAD, batch_size=1),
    ],
    "recount": [lambda repo, theirs: repo.recount()],
    "bulk_update_session_status": [
        lambda repo, theirs: repo.bulk_update_session_status([*theirs.ids, *map(str, theirs.ids)], "completed")
    ],
    "import_user": [
        lambda repo, theirs: repo.import_user(forged(theirs.lines, "imported")),
        lambda repo, theirs: repo.import_user(streamed(forged(theirs.lines, "imported"))),
        lambda repo, theirs: repo.import_user(forged(theirs.lines, "imported")[1:]),
    ],
    "erase_user": [lambda repo, theirs: repo.erase_user(USER)],
}
"""By method: what is called with everything else that is known of the other tenant."""


def new(**values: Any) -> Session:
    """Return a session as a caller makes one."""
    return Session(**{"user_id": USER, "agent_id": AGENT, **values})


async def _update_theirs(repo: Repo, id_: UUID) -> Any:
    return await repo.update(new(id=id_, title="taken"))


async def _assign(repo: Repo, values: dict[str, Any], *, update: bool = False) -> Any:
    """Assign to a session of its own that was loaded, and let SQLAlchemy write it."""
    own = await repo.create(new())
    loaded = await repo.get(own.id)
    assert loaded is not None
    for name, value in values.items():
        setattr(loaded, name, value)
    if update:
        await repo.update(loaded)
    await repo._db.flush()
    return loaded


CREATE: list[Any_] = [
    *(
        lambda repo, theirs, each=each: repo.create(new(parent_session_id=theirs.ids[each], fork_seq=10, last_seq=10))
        for each in range(4)
    ),
    lambda repo, theirs: repo.create(new(parent_session_id=theirs.session, fork_seq=2**63 - 1)),
    lambda repo, theirs: repo.create(new(parent_session_id=theirs.session)),
    lambda repo, theirs: repo.create(new(tenant_id=theirs.tenant)),
    lambda repo, theirs: repo.create(new(external_id=EXTERNAL)),
    lambda repo, theirs: repo.create(new(id=theirs.session, parent_session_id=theirs.session, fork_seq=2, last_seq=2)),
    lambda repo, theirs: repo.create(
        new(parent_session_id=theirs.session, fork_seq=2, last_seq=2, total_messages=2, total_tokens=9)
    ),
]
ASSIGNED: list[Callable[[Estate], dict[str, Any]]] = [
    lambda theirs: {"parent_session_id": theirs.session, "fork_seq": 10},
    lambda theirs: {"parent_session_id": theirs.session, "fork_seq": 10, "last_seq": 10},
    lambda theirs: {"tenant_id": theirs.tenant},
    lambda theirs: {"tenant_id": theirs.tenant, "title": "taken", "external_id": EXTERNAL},
    lambda theirs: {"id": theirs.session},
    lambda theirs: {"external_id": EXTERNAL, "title": "y"},
]
UPDATE: list[Any_] = [
    lambda repo, theirs: _update_theirs(repo, theirs.session),
    lambda repo, theirs: _update_theirs(repo, theirs.hidden),
    *(
        lambda repo, theirs, make=make, update=update: _assign(repo, make(theirs), update=update)
        for make in ASSIGNED
        for update in (False, True)
    ),
]


async def write(database: DatabaseManager, tenant: str, session_id: UUID, client_ids: list[str | None]) -> list[Any]:
    """Return what writers answer to each message, an error where that was the answer.

    One is the tenant's own; the other serves every tenant, and is told the tenant in both ways.
    """
    answers: list[Any] = []
    async with (
        SessionWriter(database, tenant_id=tenant, timeout=20) as own,
        SessionWriter(database, timeout=20) as everyones,
    ):
        appends = (own.append, everyones.for_tenant(tenant).append, partial(everyones.append, tenant_id=tenant))
        for append, client_id in product(appends, client_ids):
            try:
                answers.append(await append(session_id, message("written"), client_id=client_id))
            except Exception as exc:  # noqa: BLE001 - an answer like any other
                answers.append(exc)
        given = [message("written") for _ in client_ids]
        for many in (own.append_many, everyones.for_tenant(tenant).append_many):
            try:
                answers.append(await many(session_id, given, client_ids=client_ids))
            except Exception as exc:  # noqa: BLE001 - as above
                answers.append(exc)
    return answers


STORE: dict[str, list[Callable[[SessionContextStore, UUID], Awaitable[Any]]]] = {
    "get": [lambda store, id_: store.get(id_)],
    "get_many": [lambda store, id_: store.get_many([id_, str(id_)])],
    "set": [lambda store, id_: store.set(id_, PATCH)],
    "set_many": [lambda store, id_: store.set_many({id_: PATCH})],
    "update": [lambda store, id_: store.update(id_, PATCH), lambda store, id_: store.update(id_, {}, drop_none=True)],
    "delete": [lambda store, id_: store.delete(id_)],
    "delete_many": [lambda store, id_: store.delete_many([id_])],
    "compare_and_set": [
        lambda store, id_: store.compare_and_set(id_, PATCH, expected=None),
        lambda store, id_: store.compare_and_set(id_, PATCH, expected={SECRET: {"n": 1}}),
    ],
    "list_keys": [lambda store, id_: store.list_keys()],
    "cache_key": [lambda store, id_: store.get(store.cache_key(id_))],
}

CONTEXTS: dict[str, list[Callable[[SessionContexts, UUID], Awaitable[Any]]]] = {
    "read": [lambda contexts, id_: contexts.read([id_])],
    "change": [lambda contexts, id_: contexts.change({id_: lambda _: PATCH})],
    "clear": [lambda contexts, id_: contexts.clear([id_])],
    "ids": [lambda contexts, id_: contexts.ids()],
}
