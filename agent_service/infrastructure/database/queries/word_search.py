"""Finding messages by several words at once, those with most of them first: one statement, whatever is found."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Select, and_, func, select, union, union_all

from agent_service.infrastructure.database.models.message import SessionMessage
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries.search import LATEST, Scope, forks_of, hits_of

__all__ = ["MAX_WORDS", "with_most_words"]

MAX_WORDS: Final = 12
"""Words that are looked for at most; each is a part of the statement."""


def with_most_words(dialect: str, words: Sequence[str], scope: Scope, within: Any, limit: int) -> Select[Any]:
    """Select the messages of a scope's sessions that contain most of the words; of as many, the newest first.

    A word is found as a piece of text too: callers that want whole words look again.

    :param words: 1 to :data:`MAX_WORDS`.
    :param scope: conditions of the sessions.
    :param within: a condition of messages and sessions that narrows what counts.
    """
    line, parts = forks_of(scope), []
    for place, word in enumerate(words):
        own = [each.limit(LATEST).subquery() for each in hits_of(dialect, word, scope, line)]
        columns = [(each.c.tenant_id, each.c.bearer, each.c.owner, each.c.seq) for each in own]
        found = union(*(select(*each) for each in columns)).subquery(f"word{place}")
        parts.append(select(found.c.tenant_id, found.c.bearer, found.c.owner, found.c.seq))
    hits = union_all(*parts).subquery("hits")
    key = (hits.c.tenant_id, hits.c.bearer, hits.c.owner, hits.c.seq)
    counts = select(*key, func.count().label("matched")).group_by(*key).subquery("counts")
    message = (
        SessionMessage.tenant_id == counts.c.tenant_id,
        SessionMessage.session_id == counts.c.owner,
        SessionMessage.seq == counts.c.seq,
    )
    session = and_(Session.tenant_id == counts.c.tenant_id, Session.id == counts.c.bearer)
    newest = (SessionMessage.created_at.desc(), counts.c.bearer.desc(), SessionMessage.seq.desc())
    return (
        select(SessionMessage)
        .join(counts, and_(*message))
        .join(Session, session)
        .where(within)
        .order_by(counts.c.matched.desc(), *newest)
        .limit(limit)
    )
