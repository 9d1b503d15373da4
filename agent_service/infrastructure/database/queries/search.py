"""Finding sessions by a piece of their title or messages: literal, in any case, indexed by trigrams on both engines.

Titles and contents are looked up apart and united: an OR across the join would use neither index.
"""

import re
from typing import Any

from sqlalchemy import ColumnElement, Select, Uuid, column, func, select, table, union

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session

__all__ = ["matching"]

TRIGRAM = 3

_WILDCARDS = re.compile(r"[\\%_]")
_ESCAPED = r"\\\g<0>"

_index = table("session_search", column("rowid"), column("session_search"))
_entries = table("session_search_entries", column("id"), column("session_id", Uuid()), column("seq"))


def matching(
    dialect: str, term: str, scope: tuple[ColumnElement[bool], ...], *, in_content: bool
) -> ColumnElement[bool]:
    """Give the condition "one of the scope's sessions whose title, or a message of which, contains the term"."""
    if dialect == "postgresql":
        pattern = f"%{_WILDCARDS.sub(_ESCAPED, term)}%"
        found = _scan(lambda text: text.ilike(pattern), scope, in_content=in_content)
    elif len(term) >= TRIGRAM:
        found = [_full_text(term, scope, in_content=in_content)]
    else:
        lowered = term.lower()
        found = _scan(lambda text: func.instr(func.lower_unicode(text), lowered) > 0, scope, in_content=in_content)
    return Session.id.in_(found[0] if len(found) == 1 else union(*found))


def _scan(contains: Any, scope: tuple[ColumnElement[bool], ...], *, in_content: bool) -> list[Select[Any]]:
    titles = select(Session.id).where(contains(Session.title), *scope)
    if not in_content:
        return [titles]
    messages = select(SessionMessage.session_id).join(Session, Session.id == SessionMessage.session_id)
    return [titles, messages.where(contains(SessionMessage.search_text), *scope)]


def _full_text(term: str, scope: tuple[ColumnElement[bool], ...], *, in_content: bool) -> Select[Any]:
    # A phrase of trigrams is the literal text; a quote within it is doubled.
    phrase = '"' + term.replace('"', '""') + '"'
    hits = select(_index.c.rowid).where(_index.c.session_search.op("MATCH", is_comparison=True)(phrase))
    found = (
        select(_entries.c.session_id)
        .join(Session, Session.id == _entries.c.session_id)
        .where(_entries.c.id.in_(hits), *scope)
    )
    return found if in_content else found.where(_entries.c.seq == 0)
