"""What a tenant owns that another tenant must neither see nor change, and how to tell that it did not."""

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models import Base, Session, SessionMessage
from agent_service.infrastructure.database.repositories import SessionRepository

SECRET = "kestrel"
"""Stands in every text of the first tenant that the second one is not told."""
LAST_SEQ, VERSION, TOKENS, MESSAGES = 424_242, 313_131, 7_654_321, 868_686
"""The first tenant's counts, which no other number of the tests contains."""
GIVEN_AWAY = (SECRET, *map(str, (LAST_SEQ, VERSION, TOKENS, MESSAGES)))
"""What must not turn up on the other side."""

USER, AGENT, TITLE, EXTERNAL = "told-user", "told-agent", "told title", "told-external"
CLIENT_IDS = ("told-1", "told-2", "told-3")
"""What the second tenant knows of the first one, and uses for itself too."""


@dataclasses.dataclass
class Estate:
    """The first tenant's sessions; a second tenant knows all of this."""

    tenant: str
    session: UUID
    fork: UUID
    hidden: UUID
    expired: UUID
    lines: list[str] = dataclasses.field(default_factory=list)
    cursor: str | None = None

    @property
    def ids(self) -> tuple[UUID, ...]:
        """The ids of all of them."""
        return self.session, self.fork, self.hidden, self.expired


def message(content: str, **more: Any) -> dict[str, Any]:
    """Return a message that costs tokens."""
    return {"role": "user", "content": content, "token_count": 3, **more}


async def settle(database: DatabaseManager, owner: DatabaseManager, tenant: str) -> Estate:
    """Return a tenant sessions of every kind: with a fork, hidden, expired, all with the secret in their texts."""
    async with database.session() as db:
        repo = SessionRepository(db, tenant)
        session = await _session(repo, title=TITLE, external_id=EXTERNAL)
        for client_id in CLIENT_IDS:
            await repo.add_message_to_session(session, message(f"{SECRET} says"), client_id=client_id)
        fork = (await repo.fork(session, 2)).id
        await repo.add_message_to_session(fork, message(f"{SECRET} forks"), client_id=CLIENT_IDS[0])
        hidden = await _session(repo, title=TITLE)
        await repo.add_message_to_session(hidden, message(f"{SECRET} hides"), client_id=CLIENT_IDS[1])
        await repo.delete(hidden)
        expired = await _session(repo, title=SECRET, expires_at=datetime.now(UTC) - timedelta(hours=1))
        estate = Estate(tenant, session, fork, hidden, expired)
        page = await repo.get_user_sessions_page(USER, limit=1)
        estate.cursor = page.next_cursor
        counts = {"last_seq": LAST_SEQ, "version": VERSION, "total_tokens": TOKENS, "total_messages": MESSAGES}
    async with owner.session() as db:
        await db.execute(update(Session.__table__).where(Session.__table__.c.tenant_id == tenant).values(**counts))  # type: ignore[arg-type]
    estate.lines = await exported(database, tenant)
    return estate


async def _session(repo: SessionRepository, **values: Any) -> UUID:
    documents = {"context": {SECRET: {"n": 1}}, "metadata": {"m": SECRET}}
    created = await repo.create(Session(**{"user_id": USER, "agent_id": AGENT, **documents, **values}))
    return created.id


async def exported(database: DatabaseManager, tenant: str) -> list[str]:
    """Return all that a tenant's repository shows of the user, hidden sessions too."""
    async with database.session() as db:
        return [line async for line in SessionRepository(db, tenant).export_user(USER)]


async def stored(owner: DatabaseManager, tenant: str) -> list[dict[str, Any]]:
    """Return every row of a tenant, as it is stored."""
    sessions, messages = Session.__table__, SessionMessage.__table__
    of_tenant: list[Select[Any]] = [
        select(sessions).where(sessions.c.tenant_id == tenant),
        select(messages).where(messages.c.session_id.in_(select(sessions.c.id).where(sessions.c.tenant_id == tenant)))
        if "tenant_id" not in messages.c
        else select(messages).where(messages.c.tenant_id == tenant),
    ]
    async with owner.session(every_tenant=True) as db:
        return [
            dict(row) for statement in of_tenant for row in sorted((await db.execute(statement)).mappings(), key=repr)
        ]


def spelled(value: Any) -> str:
    """Return everything that a result says, loaded attributes of objects included."""
    if isinstance(value, BaseException):
        own = f"{type(value).__name__}: {value!s} {value.args!r}"
        return own + "".join(spelled(each) for each in (value.__cause__, value.__context__) if each is not None)
    if isinstance(value, Base):
        return spelled({name: each for name, each in vars(value).items() if not name.startswith("_")})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return spelled({each.name: getattr(value, each.name) for each in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return " ".join(f"{spelled(key)}: {spelled(each)}" for key, each in value.items())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return " ".join(map(spelled, value))
    return value if isinstance(value, str) else repr(value)


def leaked(*values: Any) -> list[str]:
    """Return what of the first tenant's secrets the values say."""
    text = spelled(values)
    return [each for each in GIVEN_AWAY if each in text]


async def everything_shown(db: AsyncSession, tenant: str) -> list[Any]:
    """Return what every reading method of a tenant shows of all its sessions."""
    repo = SessionRepository(db, tenant)
    ids = list(await db.scalars(select(Session.id).where(Session.tenant_id == tenant, Session.deleted_at.is_(None))))
    shown: list[Any] = [
        await repo.search_messages(USER, SECRET),
        await repo.search_messages(USER, SECRET[:2]),
        await repo.search_sessions(USER, SECRET),
        await repo.get_session_stats(group_by="day"),
        [line async for line in repo.export_user(USER)],
    ]
    for id_ in ids:
        shown += [
            await repo.get_session_with_messages(id_),
            await repo.get_messages(id_, limit=10_000),
            await repo.get_messages(id_, after_seq=0, max_tokens=10**9),
            [each async for each in repo.iter_messages(id_)],
        ]
    return shown


def forged(lines: list[str], content: str) -> list[str]:
    """Return the lines of an export with the same ids and texts of the tenant's own instead."""

    def own(line: str) -> str:
        document = json.loads(line)
        if document["type"] == "session":
            document |= {"context": {}, "metadata": {}, "last_seq": 9, "version": 1}
            document |= {"title": TITLE, "external_id": document["external_id"] and "imported"}
        else:
            document["data"] = message(content)
        return json.dumps(document)

    return [own(line) for line in lines]


async def streamed(lines: list[str]) -> AsyncIterator[str]:
    """Return lines as an async stream."""
    for line in lines:
        yield line
