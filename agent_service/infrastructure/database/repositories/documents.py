"""A session's documents, context and metadata. Every change is atomic, also under concurrent changes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import update

from agent_service.core.errors import SessionConflictError, SessionValueError
from agent_service.core.fixed import fixed
from agent_service.infrastructure.database.errors.translation import database_errors
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.queries import context as context_queries
from agent_service.infrastructure.database.queries.scope import of_tenant
from agent_service.infrastructure.database.repositories.base import RepositoryBase
from agent_service.infrastructure.database.repositories.context_changes import (
    ContextChange,
    at_path,
    merged,
    require_path,
)
from agent_service.infrastructure.database.values.documents import check_value, encode_document, path_name
from agent_service.infrastructure.database.values.validation import (
    MAX_VERSION,
    optional_count,
    require_session_id,
    require_text,
)

__all__ = ["CONTEXT", "METADATA", "DocumentColumn", "SessionDocuments", "expected", "require_keys"]


@dataclass(frozen=True, slots=True)
class DocumentColumn:
    """One of a session's documents.

    ``name`` is what errors call it, ``attribute`` where a Session has it, ``nul`` whether it may hold U+0000.
    """

    name: str
    attribute: str
    nul: bool


CONTEXT: Final = DocumentColumn("context", "context", nul=False)
METADATA: Final = DocumentColumn("metadata", "session_metadata", nul=True)


class SessionDocuments(RepositoryBase):
    """What changing the context and changing the metadata have in common. Each change counts ``version`` up."""

    async def _merge(
        self,
        document: DocumentColumn,
        session_id: UUID | str,
        given: Mapping[str, Any],
        delete_keys: Iterable[str],
        *,
        deep: bool,
        expected_version: int | None,
    ) -> dict[str, Any]:
        _, patch = encode_document(given, document.name, nul=document.nul)
        change = merged(patch, require_keys(delete_keys, patch, document), deep=deep)
        return await self._change(document, require_session_id(session_id), change, expected(expected_version))

    async def _replace(
        self, document: DocumentColumn, session_id: UUID | str, given: Mapping[str, Any], expected_version: int | None
    ) -> dict[str, Any]:
        _, whole = encode_document(given, document.name, nul=document.nul)
        return await self._change(
            document, require_session_id(session_id), lambda _stored: whole, expected(expected_version)
        )

    async def _set_path(
        self,
        document: DocumentColumn,
        session_id: UUID | str,
        path: str | Sequence[str | int],
        value: Any,
        expected_version: int | None,
    ) -> dict[str, Any]:
        key, steps = require_session_id(session_id), require_path(path)
        held = check_value(value, path_name(document.name, steps), nul=document.nul)
        return await self._change(document, key, at_path(steps, held), expected(expected_version))

    async def _change(
        self, document: DocumentColumn, key: UUID, change: ContextChange, version: int | None
    ) -> dict[str, Any]:
        """Change a document by a function, on every engine the same one: the row is locked while it is computed."""
        column = getattr(Session, document.attribute)
        with database_errors(f"update the {document.name}"):
            async with self._db.begin_nested():
                row = (await self._db.execute(context_queries.lock(self._tenant_id, key, version, column))).first()
                if row is None:
                    raise await self._why_not(key, version)
                _, changed = encode_document(change(row[1]), document.name, nul=document.nul)
                await self._db.execute(
                    update(Session).where(*of_tenant(self._tenant_id, key)).values({column: changed}),
                    execution_options={"synchronize_session": False},
                )
        self._note(key, {"version": row.version, document.attribute: fixed(changed)})
        return changed

    async def _why_not(self, key: UUID, version: int | None) -> SessionConflictError:
        session = await self._require(key)
        return SessionConflictError(
            f"session {key} is at version {session.version}, expected was {version}; read it and decide again",
            version=session.version,
        )


def expected(version: int | None) -> int | None:
    """Return the version that is expected, if one is."""
    return optional_count(version, "expected_version", most=MAX_VERSION)


def require_keys(keys: Any, patch: Mapping[str, Any], document: DocumentColumn) -> frozenset[str]:
    """Return the keys that are to be deleted, none of which the patch may set."""
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise SessionValueError(f"delete_keys must be a list of keys, got {keys!r:.80}")
    deleted = frozenset(require_text(each, f"delete_keys[{index}]") for index, each in enumerate(keys))
    for key in deleted & patch.keys():
        raise SessionValueError(f"delete_keys holds {key!r:.80}, which {document.name} sets; name it in one of them")
    return deleted
