"""A session's metadata, changed as its context is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from agent_service.infrastructure.database.repositories.documents import METADATA, SessionDocuments

__all__ = ["SessionMetadata"]


class SessionMetadata(SessionDocuments):
    """The part of the repository that changes metadata.

    Every change is atomic: none of several concurrent changes is lost. Each counts ``version`` up. Key order and
    U+0000 are kept.
    """

    async def set_session_metadata(
        self, session_id: UUID | str, metadata: Mapping[str, Any], *, expected_version: int | None = None
    ) -> dict[str, Any]:
        """Replace the whole metadata and return it. Parameters and errors: :meth:`update_session_metadata`."""
        return await self._replace(METADATA, session_id, metadata, expected_version)

    async def update_session_metadata(
        self,
        session_id: UUID | str,
        metadata: Mapping[str, Any],
        *,
        delete_keys: Iterable[str] = (),
        deep: bool = False,
        expected_version: int | None = None,
    ) -> dict[str, Any]:
        """Set the given keys of the metadata, keep the others, and return the whole.

        None is a value like any other; an object replaces the stored one.

        :param delete_keys: top-level keys to remove; missing ones are ignored.
        :param deep: merge objects into the stored objects, at every level. Lists are replaced.
        :param expected_version: change only if this is the session's ``version``.
        :raises SessionNotFoundError: there is no such session.
        :raises SessionConflictError: ``expected_version`` is not the session's version.
        :raises SessionValueError: a value cannot be kept, or a key is both set and deleted; nothing was sent.
        """
        return await self._merge(
            METADATA, session_id, metadata, delete_keys, deep=deep, expected_version=expected_version
        )

    async def set_session_metadata_path(
        self,
        session_id: UUID | str,
        path: str | Sequence[str | int],
        value: Any,
        *,
        expected_version: int | None = None,
    ) -> dict[str, Any]:
        """Set one value within the metadata and return the whole; as :meth:`set_session_context_path` does."""
        return await self._set_path(METADATA, session_id, path, value, expected_version)
