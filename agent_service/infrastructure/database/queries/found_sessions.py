"""Finding a user's sessions by three characters or more, the latest first, at the cost of the page that is read.

A frequent term is in one of the next few sessions, so they are walked from the latest one on until the page is full.
A rare term is in few texts, so the sessions of those texts are looked up. PostgreSQL estimates how frequent a term is
and chooses by itself, but only for a plan that knows the term: :data:`PLAN_FOR_TERM` asks for one. SQLite estimates
nothing, so the statement counts: a term is frequent if more than one text in fifty has it. Each way gives the first
sessions of the whole result, and so does their union, whichever way was empty.

A walk may pass sessions without a hit. On SQLite it looks at no more than fifty entries for each entry that has the
term, and only at the user's own.
"""

from typing import Any, Final

from sqlalchemy import Integer, String, and_, bindparam, inspect, select, text

from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.reads import Read
from agent_service.infrastructure.database.values.types import Identifier
from agent_service.infrastructure.database.values.validation import MAX_SEQ

__all__ = ["PLAN_FOR_TERM", "TRIGRAM", "found_sessions"]

TRIGRAM: Final = 3
"""Characters of the shortest term that the indexes know."""

PLAN_FOR_TERM: Final = text(
    "SELECT current_setting('plan_cache_mode'), set_config('plan_cache_mode', 'force_custom_plan', true)"
)
"""Have PostgreSQL plan the next statement for its parameters; the setting of before comes back.

Without it, the sixth search of a connection gets a plan for any term, which takes a hundred times longer for a frequent
one. The search itself restores the setting.
"""

_TYPES: Final[dict[str, Any]] = {
    "tenant_id": String(), "user_id": Identifier(), "wanted": Integer(), "term": String(), "plan_cache_mode": String(),
    "phrase": String(), "lowered": String(),
}  # fmt: skip

_PARTS: Final[dict[str, str]] = {
    "columns": ", ".join(f"s.{each.name}" for each in inspect(Session).columns),
    "sessions": "agent_service_sessions",
    "messages": "agent_service_session_messages",
    "index": "agent_service_session_search",
    "entries": "agent_service_session_search_entries",
    "pending": "agent_service_session_search_pending",
    "hits": "SELECT rowid FROM agent_service_session_search WHERE agent_service_session_search MATCH :phrase",
    "mine": "s.tenant_id = :tenant_id AND s.user_id = :user_id AND s.deleted_at IS NULL",
    "newest_first": "ORDER BY s.last_activity_at DESC, s.id DESC",
    "latest": "ORDER BY s.last_activity_at DESC, s.id DESC LIMIT :wanted",
    "max_seq": str(MAX_SEQ),
}

_LINE: Final = """
line (bearer, owner, parent, fork_seq, upto) AS (
    SELECT s.id, s.id, s.parent_session_id, s.fork_seq, {max_seq}
    FROM {sessions} AS s WHERE {mine} AND s.parent_session_id IS NOT NULL
    UNION
    SELECT line.bearer, p.id, p.parent_session_id, p.fork_seq,
        CASE WHEN line.fork_seq < line.upto THEN line.fork_seq ELSE line.upto END
    FROM line CROSS JOIN {sessions} AS p WHERE p.tenant_id = :tenant_id AND p.id = line.parent
)
"""
"""As :func:`~agent_service.infrastructure.database.queries.lineage.lineage`, of the user's forks."""

_POSTGRES_TITLES: Final = "(SELECT s.id FROM {sessions} AS s WHERE {mine} AND s.title ILIKE :term {latest})"
_POSTGRES_CONTENTS: Final = """
(SELECT s.id FROM {sessions} AS s WHERE {mine} AND EXISTS (
    SELECT 1 FROM {messages} AS m
    WHERE m.tenant_id = s.tenant_id AND m.session_id = s.id AND m.content ILIKE :term
) {latest})
UNION
SELECT line.bearer FROM line JOIN {messages} AS m
ON m.tenant_id = :tenant_id AND m.session_id = line.owner AND m.seq <= line.upto AND m.content ILIKE :term
WHERE line.bearer <> line.owner
"""
_POSTGRES_END: Final = """
SELECT {columns} FROM page JOIN {sessions} AS s ON s.tenant_id = :tenant_id AND s.id = page.id
WHERE (SELECT set_config('plan_cache_mode', :plan_cache_mode, true)) IS NOT NULL {latest}
"""

_FREQUENT: Final = """
frequent (yes) AS MATERIALIZED (
    SELECT EXISTS ({hits} LIMIT 1 OFFSET (SELECT coalesce(max(id), 0) / 50 FROM {entries}))
)
"""
# The first table of a CROSS JOIN is read first: the few hits, not the many entries. With a limit of 0 nothing is read;
# a condition would be asked again for each row.
_FEW: Final = """
SELECT e.session_id, e.seq FROM (
    {hits} LIMIT (SELECT iif(yes, 0, -1) FROM frequent)
) AS hit CROSS JOIN {entries} AS e ON e.id = hit.rowid
WHERE e.tenant_id = :tenant_id
"""
# Whose a message is comes before what it says: lower_unicode is a function of Python.
_WAITING: Final = """
SELECT waiting.session_id, waiting.seq FROM {pending} AS waiting CROSS JOIN {messages} AS m
ON m.tenant_id = waiting.tenant_id AND m.session_id = waiting.session_id AND m.seq = waiting.seq
WHERE waiting.tenant_id = :tenant_id AND NOT EXISTS (
    SELECT 1 FROM {entries} AS e
    WHERE e.tenant_id = waiting.tenant_id AND e.session_id = waiting.session_id AND e.seq = waiting.seq
) AND (
    EXISTS (SELECT 1 FROM {sessions} AS s WHERE s.id = waiting.session_id AND {mine})
    OR waiting.session_id IN (SELECT owner FROM line)
) AND instr(lower_unicode(m.content), :lowered) > 0
"""
_OF_FOUND: Final = """
SELECT s.id FROM (SELECT DISTINCT session_id FROM found) AS f CROSS JOIN {sessions} AS s ON s.id = f.session_id
WHERE {mine}
"""
_FORKS_OF_FOUND: Final = """
SELECT line.bearer FROM line JOIN found ON found.session_id = line.owner AND found.seq BETWEEN 1 AND line.upto
WHERE line.bearer <> line.owner
"""
_OWN_TITLE: Final = "SELECT 1 FROM {entries} AS e WHERE e.tenant_id = s.tenant_id AND e.session_id = s.id AND e.seq = 0"
# A title is entry 0. A fork shows messages of its ancestors, but not their titles.
_ALL_SHOWN: Final = """
WITH RECURSIVE up (owner, parent, fork_seq, least, upto) AS (
    SELECT s.id, s.parent_session_id, s.fork_seq, 0, {max_seq}
    UNION
    SELECT p.id, p.parent_session_id, p.fork_seq, 1, CASE WHEN up.fork_seq < up.upto THEN up.fork_seq ELSE up.upto END
    FROM up CROSS JOIN {sessions} AS p WHERE p.tenant_id = :tenant_id AND p.id = up.parent
)
SELECT 1 FROM up CROSS JOIN {entries} AS e
WHERE e.tenant_id = :tenant_id AND e.session_id = up.owner AND e.seq BETWEEN up.least AND up.upto
"""
_WALK: Final = """
SELECT id FROM (
    SELECT s.id FROM {sessions} AS s WHERE {mine} AND EXISTS ({shown} AND e.id IN ({hits}))
    {newest_first} LIMIT (SELECT iif(yes, :wanted, 0) FROM frequent)
)
"""
_SQLITE_END: Final = """
SELECT {columns} FROM page CROSS JOIN {sessions} AS s WHERE s.tenant_id = :tenant_id AND s.id = page.id {latest}
"""


def _read(ctes: list[str], ways: list[str], end: str) -> Read[Session]:
    page = f"page (id) AS ({' UNION '.join(ways)})"
    sql = f"WITH RECURSIVE {', '.join([*ctes, page])} {end}".format(**_PARTS)
    bound = text(" ".join(sql.split())).bindparams(
        *(bindparam(name, type_=kind) for name, kind in _TYPES.items() if f":{name}" in sql)
    )
    found = bound.columns(*inspect(Session).columns).subquery("found")
    # The ORM adds the criteria of the caller's session to this, as it could not add them to a text.
    same = and_(Session.tenant_id == found.c.tenant_id, Session.id == found.c.id)
    newest_first = Session.last_activity_at.desc(), Session.id.desc()
    return Read(Session, select(Session).join(found, same).order_by(*newest_first), bound)


_READS: Final = {
    ("postgresql", False): _read([], [_POSTGRES_TITLES], _POSTGRES_END),
    ("postgresql", True): _read([_LINE], [_POSTGRES_TITLES, _POSTGRES_CONTENTS], _POSTGRES_END),
    ("sqlite", False): _read(
        [_FREQUENT, f"found (session_id, seq) AS MATERIALIZED ({_FEW} AND e.seq = 0)"],
        [_OF_FOUND, _WALK.replace("{shown}", _OWN_TITLE)],
        _SQLITE_END,
    ),
    ("sqlite", True): _read(
        [_LINE, _FREQUENT, f"found (session_id, seq) AS MATERIALIZED ({_FEW} UNION ALL {_WAITING})"],
        [_OF_FOUND, _FORKS_OF_FOUND, _WALK.replace("{shown}", _ALL_SHOWN)],
        _SQLITE_END,
    ),
}


def found_sessions(dialect: str, *, in_content: bool) -> Read[Session]:
    """The sessions of ``tenant_id`` and ``user_id`` whose title, or a message they show, has the term.

    At most ``wanted`` of them, the latest activity first. On PostgreSQL the term is the ``term`` that ILIKE takes, and
    ``plan_cache_mode`` is what :data:`PLAN_FOR_TERM` gave back. On SQLite it is a ``phrase`` of the index, and
    ``lowered``. All of these are parameters.
    """
    return _READS[dialect, in_content]
