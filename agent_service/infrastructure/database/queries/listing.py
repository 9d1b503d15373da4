"""Lists of sessions, the latest activity first, and their counts: a statement for each set of conditions, made once."""

from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Select, String, bindparam, func, select, text, tuple_

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.reads import Prepared, Read
from agent_service.infrastructure.database.queries.scope import active
from agent_service.infrastructure.database.values.types import Identifier

__all__ = ["Parameters", "counted", "ids_of", "listed", "ordered"]

Parameters = tuple[str, ...]
"""Which parameters a list has beside the tenant; each stands for its condition in :data:`_CONDITIONS`."""

_AFTER: Final = tuple_(Session.last_activity_at, Session.id) < tuple_(
    bindparam("moment", type_=Session.last_activity_at.type), bindparam("last_id", type_=Session.id.type)
)
_CONDITIONS: Final[dict[str, tuple[ColumnElement[bool], ...]]] = {
    "user_id": (Session.user_id == bindparam("user_id"),),
    "agent_id": (Session.agent_id == bindparam("agent_id"),),
    "title": (Session.title == bindparam("title"),),
    "status": (Session.status == bindparam("status"),),
    "now": active(bindparam("now", type_=Session.expires_at.type)),
    "since": (Session.last_activity_at >= bindparam("since"),),
    "moment": (_AFTER,),
    "last_id": (),
}

# Whether a session is deleted is in its row, not in the index of users, so a count of 10,000 reads as many rows. While
# few sessions are deleted, they are taken off a count of the index. No index serves an expression such as ``|| ''``.
_ALL_BUT_DELETED: Final = text(
    """
    SELECT CASE
    WHEN (SELECT count(*) FROM (SELECT 1 FROM agent_service_sessions WHERE deleted_at IS NOT NULL LIMIT 501) AS d) < 501
    THEN (SELECT count(*) FROM agent_service_sessions WHERE tenant_id = :tenant_id AND user_id = :user_id)
        - (SELECT count(*) FROM agent_service_sessions WHERE deleted_at IS NOT NULL
            AND tenant_id || '' = :tenant_id AND user_id || '' = :user_id)
    ELSE (SELECT count(*) FROM agent_service_sessions
        WHERE tenant_id = :tenant_id AND user_id = :user_id AND deleted_at IS NULL)
    END
    """
).bindparams(bindparam("tenant_id", type_=String()), bindparam("user_id", type_=Identifier()))


@lru_cache(maxsize=64)
def listed(parameters: Parameters) -> Read[Session]:
    """Read the visible sessions of ``tenant_id`` that meet the conditions: ``limit`` of them, from ``offset`` on."""
    statement = ordered(*_scope(parameters))
    return Read(Session, statement.limit(_count("limit")).offset(_count("offset")))


@lru_cache(maxsize=64)
def ids_of(parameters: Parameters) -> Select[Any]:
    """Select the ids of all visible sessions of ``tenant_id`` that meet the conditions, in their order."""
    return select(Session.id).where(*_scope(parameters)).order_by(Session.id)


@lru_cache(maxsize=64)
def counted(parameters: Parameters) -> Prepared:
    """Count the visible sessions of ``tenant_id`` that meet the conditions."""
    statement = select(func.count()).select_from(Session).where(*_scope(parameters))
    return Prepared(Session, statement, _ALL_BUT_DELETED if parameters == ("user_id",) else None)


def ordered(*scope: ColumnElement[bool]) -> Select[Any]:
    """Select the scope's sessions in the order of every list."""
    return select(Session).where(*scope).order_by(Session.last_activity_at.desc(), Session.id.desc())


def _scope(parameters: Parameters) -> list[ColumnElement[bool]]:
    tenant = Session.tenant_id == bindparam("tenant_id", type_=String())
    conditions = [each for name in parameters for each in _CONDITIONS[name]]
    return [tenant, Session.deleted_at.is_(None), *conditions]


def _count(name: str) -> Any:
    return bindparam(name, type_=Integer())
