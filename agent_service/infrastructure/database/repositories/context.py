"""A session's context. Every change is atomic, also under concurrent changes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.core.fixed import plain
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.queries import context as context_queries
from agent_service.infrastructure.database.repositories.context_changes import incremented
from agent_service.infrastructure.database.repositories.documents import (
    CONTEXT,
    SessionDocuments,
    expected,
    require_keys,
)
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.validation import require_session_id, require_text

__all__ = ["SessionContext"]


class SessionContext(SessionDocuments):
    """The part of the repository that changes contexts.

    Every change is atomic: none of several concurrent changes is lost. Each counts ``version`` up.
    """

    async def set_session_context(
        self, session_id: UUID | str, context: Mapping[str, Any], *, expected_version: int | None = None
    ) -> dict[str, Any]:
        """Replace the whole context and return it. Parameters and errors: :meth:`update_session_context`."""
        return await self._replace(CONTEXT, session_id, context, expected_version)

    async def update_session_context(
        self,
        session_id: UUID | str,
        context: Mapping[str, Any],
        *,
        delete_keys: Iterable[str] = (),
        deep: bool = False,
        expected_version: int | None = None,
    ) -> dict[str, Any]:
        """Set the given keys of the context, keep the others, and return the whole.

        None is a value like any other; an object replaces the stored one.

        :param delete_keys: top-level keys to remove; missing ones are ignored.
        :param deep: merge objects into the stored objects, at every level. Lists are replaced.
        :param expected_version: change only if this is the session's ``version``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: ``expected_version`` is not the session's version.
        :raises SessionValueError: a value cannot be kept, U+0000 and lone surrogates among them, or a key is both set
            and deleted; nothing was sent.
        """
        key = require_session_id(session_id)
        text, patch = encode_document(context, "context", nul=False)
        deleted = require_keys(delete_keys, patch, CONTEXT)
        if deep or deleted:
            return await self._merge(CONTEXT, key, patch, deleted, deep=deep, expected_version=expected_version)
        version = expected(expected_version)
        statement = context_queries.merge(self._dialect(), self._tenant_id, key, text, version)
        with database_errors("update the context"):
            row = (await self._db.execute(statement)).first()
        if row is None:
            raise await self._why_not(key, version)
        self._note(key, {"version": row.version, "context": row.context})
        whole: dict[str, Any] = plain(row.context)
        return whole

    async def set_session_context_path(
        self,
        session_id: UUID | str,
        path: str | Sequence[str | int],
        value: Any,
        *,
        expected_version: int | None = None,
    ) -> dict[str, Any]:
        """Set one value within the context and return the whole.

        :param path: ``"profile.city"``, or ``["profile", "a.b", 0]`` with keys and positions of lists. Objects that are
            missing on the way are made; positions must exist.
        :param expected_version: change only if this is the session's ``version``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: ``expected_version`` is not the session's version.
        :raises SessionValueError: the value cannot be kept, or the path leads through something that is no object or
            list; nothing was changed.
        """
        return await self._set_path(CONTEXT, session_id, path, value, expected_version)

    async def increment_session_context(self, session_id: UUID | str, key: str, amount: float = 1) -> int | float:
        """Add to the number under a top-level key of the context, 0 if it is missing, and return the sum.

        :param amount: an integer or a float, also below 0. Integers stay integers of any size.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: what is stored there is no number; nothing was changed.
        """
        name = require_text(key, "key")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
            raise SessionValueError(f"amount must be a finite number, got {amount!r:.80}")
        context = await self._change(CONTEXT, require_session_id(session_id), incremented(name, amount), None)
        total: int | float = context[name]
        return total
