"""A session's context: changed atomically, whoever else changes it at the same time."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import update

from agent_service.core.errors import SessionConflictError, SessionValueError
from agent_service.infrastructure.database.context_changes import (
    ContextChange,
    at_path,
    incremented,
    merged,
    require_path,
)
from agent_service.infrastructure.database.documents import encode_document
from agent_service.infrastructure.database.errors import database_errors
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import context as context_queries
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.validation import (
    MAX_VERSION,
    optional_count,
    require_session_id,
    require_text,
)

__all__ = ["SessionContext"]


class SessionContext(RepositoryBase):
    """The part of the repository that changes contexts.

    Every change is atomic: changes that happen at the same time all stay. Each counts ``version`` up.
    """

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

        None is a value like any other; an object replaces the one that was there.

        :param delete_keys: top-level keys to remove; those that are not there are none to remove.
        :param deep: merge objects into the objects that are there, at every level. Lists are replaced.
        :param expected_version: change only if this is the session's ``version``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: ``expected_version`` is not the session's version.
        :raises SessionValueError: a value cannot be kept, U+0000 and lone surrogates among them, or a key is both set
            and deleted; nothing was sent.
        """
        key = require_session_id(session_id)
        text, patch = encode_document(context, "context", nul=False)
        deleted = _require_keys(delete_keys, patch)
        version = optional_count(expected_version, "expected_version", most=MAX_VERSION)
        if deep or deleted:
            return await self._change(key, merged(patch, deleted, deep=deep), version)
        statement = context_queries.merge(self._dialect(), self._tenant_id, key, text, version)
        with database_errors("update the context"):
            row = (await self._db.execute(statement)).first()
        if row is None:
            raise await self._why_not(key, version)
        self._note(key, {"version": row.version, "context": row.context})
        return dict(row.context)

    async def set_session_context_path(
        self, session_id: UUID | str, path: str | Sequence[str | int], value: Any
    ) -> dict[str, Any]:
        """Set one value within the context and return the whole.

        :param path: ``"profile.city"``, or ``["profile", "a.b", 0]`` with keys and positions of lists. Objects that are
            missing on the way are made; positions must exist.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: the path leads through something that is no object or list; nothing was changed.
        """
        key, steps = require_session_id(session_id), require_path(path)
        _, held = encode_document({"value": value}, "context", nul=False)
        return await self._change(key, at_path(steps, held["value"]), None)

    async def increment_session_context(self, session_id: UUID | str, key: str, amount: float = 1) -> int | float:
        """Add to the number under a top-level key of the context, 0 if it is missing, and return the sum.

        :param amount: an integer or a float, also below 0. Integers stay integers of any size.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionValueError: what is stored there is no number; nothing was changed.
        """
        name = require_text(key, "key")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount):
            raise SessionValueError(f"amount must be a finite number, got {amount!r:.80}")
        context = await self._change(require_session_id(session_id), incremented(name, amount), None)
        total: int | float = context[name]
        return total

    async def _change(self, key: UUID, change: ContextChange, version: int | None) -> dict[str, Any]:
        """Change the context by a function, on every engine the same one: the row is locked while it is computed."""
        with database_errors("update the context"):
            async with self._db.begin_nested():
                row = (await self._db.execute(context_queries.lock(self._tenant_id, key, version))).first()
                if row is None:
                    raise await self._why_not(key, version)
                _, changed = encode_document(change(row.context), "context", nul=False)
                await self._db.execute(
                    update(Session).where(Session.id == key).values(context=changed),
                    execution_options={"synchronize_session": False},
                )
        self._note(key, {"version": row.version, "context": changed})
        return dict(changed)

    async def _why_not(self, key: UUID, version: int | None) -> SessionConflictError:
        session = await self._require(key)
        return SessionConflictError(
            f"session {key} is at version {session.version}, expected was {version}; read it and decide again"
        )


def _require_keys(keys: Any, patch: Mapping[str, Any]) -> frozenset[str]:
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise SessionValueError(f"delete_keys must be a list of keys, got {keys!r:.80}")
    deleted = frozenset(require_text(each, f"delete_keys[{index}]") for index, each in enumerate(keys))
    for key in deleted & patch.keys():
        raise SessionValueError(f"delete_keys holds {key!r:.80}, which context sets; name it in one of them")
    return deleted
