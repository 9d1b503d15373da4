"""Searching sessions and messages for a piece of text."""

import logging
import re
from typing import Any, Final
from uuid import UUID
from weakref import WeakSet

from sqlalchemy import Engine, func, select

from agent_service.core.errors import SessionValueError
from agent_service.core.tracing import traced
from agent_service.infrastructure.database.engine.servers import MESSAGES, SESSIONS
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.naming.engines import names_of
from agent_service.infrastructure.database.queries.found_sessions import PLAN_FOR_TERM, TRIGRAM, found_sessions
from agent_service.infrastructure.database.queries.listing import ordered
from agent_service.infrastructure.database.queries.search import (
    CONTENT_INDEX,
    containing,
    matching,
    phrase_of,
    ranked,
)
from agent_service.infrastructure.database.repositories.base import MAX_ROWS
from agent_service.infrastructure.database.repositories.listing import SessionListing
from agent_service.infrastructure.database.repositories.results import SearchHit
from agent_service.infrastructure.database.values.validation import require_count, require_identifier, require_text

__all__ = ["SessionSearch"]

logger = logging.getLogger("agent_service.database")

_MARKED: Final = r"**\g<0>**"
_checked: WeakSet[Engine] = WeakSet()


class SessionSearch(SessionListing):
    """The part of the repository that searches.

    A term is looked for as it stands, in upper or lower case, with no wildcards, and a blank one finds nothing. A term
    of one or two characters is looked for in the latest 10,000 messages only. Where PostgreSQL has no pg_trgm every
    message of the user is read, which is said once in the log.
    """

    async def search_sessions(
        self, user_id: UUID | str, search_term: str, limit: int = 20, *, in_content: bool = True
    ) -> list[Session]:
        """Return a user's sessions whose title or messages contain the term, the latest activity first.

        :param in_content: False looks at titles only.
        """
        require_count(limit, "limit", most=MAX_ROWS)
        term, scope = _require_term(search_term, "search_term"), self._scope(require_identifier(user_id, "user_id"))
        if not term.strip():
            return []
        await self._warn_without_index()
        with traced(self._server, "search", SESSIONS):
            if len(term) < TRIGRAM:
                found = matching(self._dialect(), term, tuple(scope), in_content=in_content)
                return await self._all("search sessions", ordered(found, *scope).limit(limit))
            values = {"tenant_id": self._tenant_id, "user_id": user_id, "wanted": limit, **await self._sought(term)}
            statement = found_sessions(self._dialect(), in_content=in_content)
            return await self._objects("search sessions", statement, values)

    async def search_messages(self, user_id: UUID | str, term: str, limit: int = 20) -> list[SearchHit]:
        """Return a user's messages that contain the term, best first: more occurrences in shorter messages, then newer.

        Of more than 10,000 hits, 10,000 are ranked. What forks share is a hit in each of them.
        """
        require_count(limit, "limit", most=MAX_ROWS)
        wanted, scope = _require_term(term, "term"), self._scope(require_identifier(user_id, "user_id"))
        if not wanted.strip():
            return []
        await self._warn_without_index()
        statement = ranked(self._dialect(), wanted, tuple(scope), limit)
        with traced(self._server, "search", MESSAGES), database_errors("search messages"):
            rows = (await self._db.execute(statement, execution_options={"populate_existing": True})).all()
        return [SearchHit(row.Session, row.seq, _snippet(row, wanted), row.rank) for row in rows]

    async def _sought(self, term: str) -> dict[str, str]:
        """Return the parameters of a search for sessions that say what is searched for."""
        if self._dialect() != "postgresql":
            return {"phrase": phrase_of(term), "lowered": term.lower()}
        with database_errors("search sessions"):
            before = (await self._db.execute(PLAN_FOR_TERM)).scalar_one()
        return {"term": containing(term), "plan_cache_mode": before}

    async def _warn_without_index(self) -> None:
        engine = self._db.get_bind().engine
        if engine in _checked or self._dialect() != "postgresql":
            return
        _checked.add(engine)
        with database_errors("look for the search index"):
            names = await (await self._db.connection()).run_sync(names_of)
            index = names.full(CONTENT_INDEX)
            missing = (await self._db.execute(select(func.to_regclass(index).is_(None)))).scalar()
        if missing:
            logger.warning(
                "this PostgreSQL has no index %s, so searches read every message of a user; install pg_trgm, then "
                "create the index as the migration of the sessions does", index,
            )  # fmt: skip


def _require_term(term: Any, name: str) -> str:
    if not isinstance(term, str):
        raise SessionValueError(f"{name} must be a string, not {type(term).__name__}: {term!r:.80}")
    # Searchable text is stored without U+0000, so it is looked for without.
    return require_text(term.replace("\x00", ""), name)


def _snippet(row: Any, term: str) -> str:
    marked = re.sub(re.escape(term), _MARKED, row.around, flags=re.IGNORECASE)
    before = "…" if row.start > 1 else ""
    after = "…" if row.start - 1 + len(row.around) < row.length else ""
    return f"{before}{marked}{after}"
