"""Finding sessions and messages by a piece of text: literal, in any case, indexed by trigrams on both engines.

Titles, messages, and what forks show of their ancestors' messages are looked up apart and united: an OR across the
joins would use no index. A term of fewer than three characters has no trigram; it is looked for in the latest messages.
Sessions with a longer term are found by :mod:`~agent_service.infrastructure.database.queries.found_sessions`.
On SQLite messages are indexed some time after they were appended; those that still wait for it are read.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    String,
    TableClause,
    Uuid,
    and_,
    cast,
    column,
    exists,
    func,
    select,
    table,
    union,
    union_all,
)

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.found_sessions import TRIGRAM
from agent_service.infrastructure.database.queries.lineage import lineage, shown
from agent_service.infrastructure.database.queries.scope import holds

__all__ = ["AROUND", "CONTENT_INDEX", "LATEST", "containing", "forks_of", "hits_of", "matching", "phrase_of", "ranked"]

LATEST: Final = 10_000
"""Messages that are looked at for a term without trigrams, and hits that are ranked."""
AROUND: Final = 60
"""Characters of a snippet on each side of the first occurrence."""
CONTENT_INDEX: Final = "ix_session_messages_content_trigram"
"""PostgreSQL's index of contents, without schema and prefix; it is there where the extension pg_trgm is."""

_TYPICAL_LENGTH: Final = 400.0
_WILDCARDS = re.compile(r"[\\%_]")
_ESCAPED = r"\\\g<0>"

Scope = tuple[ColumnElement[bool], ...]

_index = table("agent_service_session_search", column("rowid"), column("agent_service_session_search"))


def _places_table(name: str) -> TableClause:
    return table(name, column("id"), column("tenant_id", String), column("session_id", Uuid()), column("seq"))


_entries = _places_table("agent_service_session_search_entries")
_pending = _places_table("agent_service_session_search_pending")


def matching(dialect: str, term: str, scope: Scope, *, in_content: bool) -> ColumnElement[bool]:
    """Return the condition "one of the scope's sessions whose title, or a message it shows, contains the term".

    For a term without trigrams; :mod:`~agent_service.infrastructure.database.queries.found_sessions` is for others.
    """
    found = [select(Session.id).where(*scope, _contains(dialect, term)(Session.title))]
    if in_content:
        found += [select(each.subquery().c.bearer) for each in hits_of(dialect, term, scope)]
    return Session.id.in_(found[0] if len(found) == 1 else union(*found))


def ranked(dialect: str, term: str, scope: Scope, limit: int) -> Select[Any]:
    """The scope's messages that contain the term, best first: session, number, rank, and the text around the first.

    The rank is BM25's for one term, k1 = 1.2 and b = 0.75 (Robertson and Zaragoza, 2009, "The Probabilistic Relevance
    Framework"), over a fixed typical length instead of an average: the same on every engine, whatever else is stored.
    """
    parts = [each.limit(LATEST).subquery() for each in hits_of(dialect, term, scope)]
    hits = union_all(*(select(*_found(part)) for part in parts)).subquery("hits")
    content: Any = func.coalesce(SessionMessage.search_text, "")
    lower, position = (func.lower, func.strpos) if dialect == "postgresql" else (func.lower_unicode, func.instr)
    text, wanted = lower(content), lower(term)
    removed = func.length(text) - func.length(func.replace(text, wanted, ""))
    count = cast(removed, Float) / cast(func.length(wanted), Float)
    rank = count / (count + 0.3 + 0.9 * cast(func.length(content), Float) / _TYPICAL_LENGTH)
    first = position(text, wanted)
    start = func.greatest(first - AROUND, 1) if dialect == "postgresql" else func.max(first - AROUND, 1)
    message = (
        SessionMessage.tenant_id == hits.c.tenant_id,
        SessionMessage.session_id == hits.c.owner,
        SessionMessage.seq == hits.c.seq,
    )
    best = (
        select(
            hits.c.tenant_id,
            hits.c.bearer,
            hits.c.seq,
            rank.label("rank"),
            start.label("start"),
            func.length(content).label("length"),
            func.substr(content, start, len(term) + 2 * AROUND).label("around"),
        )
        .join(SessionMessage, and_(*message))
        .order_by(rank.desc(), hits.c.bearer.desc(), hits.c.seq.desc())
        .limit(limit)
        .subquery("best")
    )
    columns = (best.c.seq, best.c.rank, best.c.start, best.c.length, best.c.around)
    joined = select(Session, *columns).join(
        best, and_(Session.tenant_id == best.c.tenant_id, Session.id == best.c.bearer)
    )
    return joined.order_by(best.c.rank.desc(), best.c.bearer.desc(), best.c.seq.desc())


def forks_of(scope: Scope) -> Any:
    """Return what the scope's forks show of ancestors, for several calls of :func:`hits_of` in one statement."""
    return lineage(*scope, Session.parent_session_id.is_not(None))


def hits_of(dialect: str, term: str, scope: Scope, line: Any = None) -> list[Select[Any]]:
    """Select hits as (tenant_id, bearer, owner, seq): of own messages, and of those that forks show of ancestors."""
    line = forks_of(scope) if line is None else line
    inherited = line.c.bearer != line.c.owner
    if len(term) < TRIGRAM:
        return _latest(dialect, term, scope, line, inherited)
    if dialect == "postgresql":
        contains = _contains(dialect, term)(SessionMessage.search_text)
        own = select(*_hit(SessionMessage, Session.id)).join(Session, holds(SessionMessage))
        forks = select(*_hit(SessionMessage, line.c.bearer)).join(line, shown(line))
        return [own.where(contains, *scope), forks.where(contains, inherited)]
    indexed = _places(_entries, scope, line, _entries.c.id.in_(_full_text(term)), _entries.c.seq > 0)
    at, text = _same(_entries.c, _pending.c), _same(SessionMessage, _pending.c)
    contains = _contains(dialect, term)(SessionMessage.search_text)
    # A message that was removed and stored again can be on the list twice; the first entry indexes it.
    waiting = _places(_pending, scope, line, contains, ~exists().where(at))
    return indexed + [each.join(SessionMessage, text).distinct() for each in waiting]


def _places(found: TableClause, scope: Scope, line: Any, *conditions: ColumnElement[bool]) -> list[Select[Any]]:
    own = select(*_hit(found.c, Session.id)).join(Session, holds(found.c))
    shows = and_(found.c.tenant_id == line.c.tenant_id, found.c.session_id == line.c.owner, found.c.seq <= line.c.upto)
    forks = select(*_hit(found.c, line.c.bearer)).join(line, shows)
    return [own.where(*conditions, *scope), forks.where(*conditions, line.c.bearer != line.c.owner)]


def _latest(dialect: str, term: str, scope: Scope, line: Any, inherited: ColumnElement[bool]) -> list[Select[Any]]:
    text = SessionMessage.search_text
    own = select(*_hit(SessionMessage, Session.id), text).join(Session, holds(SessionMessage))
    newest = (Session.last_activity_at.desc(), Session.id.desc(), SessionMessage.seq.desc())
    forks = select(*_hit(SessionMessage, line.c.bearer), text).join(line, shown(line)).where(inherited)
    parts = (own.where(*scope).order_by(*newest), forks.order_by(line.c.bearer.desc(), SessionMessage.seq.desc()))
    looked_at = [part.limit(LATEST).subquery() for part in parts]
    return [select(*_found(part)).where(_contains(dialect, term)(part.c.search_text)) for part in looked_at]


def _hit(found: Any, bearer: Any) -> tuple[Any, ...]:
    names = {"tenant_id": found.tenant_id, "bearer": bearer, "owner": found.session_id, "seq": found.seq}
    return tuple(each.label(name) for name, each in names.items())


def _found(part: Any) -> tuple[Any, ...]:
    return part.c.tenant_id, part.c.bearer, part.c.owner, part.c.seq


def _same(left: Any, right: Any) -> ColumnElement[bool]:
    return and_(*(getattr(left, name) == getattr(right, name) for name in ("tenant_id", "session_id", "seq")))


def containing(term: str) -> str:
    """Return the pattern with which ILIKE finds texts that contain the term as it stands."""
    return f"%{_WILDCARDS.sub(_ESCAPED, term)}%"


def phrase_of(term: str) -> str:
    """Return the query with which SQLite's index finds texts that contain the term as it stands."""
    # A phrase of trigrams is the literal text; a quote within it is doubled.
    return '"' + term.replace('"', '""') + '"'


def _contains(dialect: str, term: str) -> Callable[[Any], ColumnElement[bool]]:
    if dialect == "postgresql":
        pattern = containing(term)
        return lambda text: text.ilike(pattern)
    lowered = term.lower()
    return lambda text: func.instr(func.lower_unicode(text), lowered) > 0


def _full_text(term: str) -> Select[Any]:
    matches = _index.c.agent_service_session_search.op("MATCH", is_comparison=True)
    return select(_index.c.rowid).where(matches(phrase_of(term)))
