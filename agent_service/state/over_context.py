"""State over any context store: a typed view, one key a user."""

from collections.abc import Mapping
from typing import Any

from agent_service.context.outside_store import as_store
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.state.base import VersionedStateStore
from agent_service.state.interface import ContextT

__all__ = ["ContextStateStore"]


class ContextStateStore(VersionedStateStore[ContextT]):
    """Keeps the fields of a user's context under his id in a context store: sharded, cache-backed, or one of yours.

    :param store: where, a context store or what others wrote as one; the caller's to close. Whatever it holds under a
        text key is taken for a user's context.
    :param model: what is kept; None: CoachContext.
    :raises ConfigurationError: for what is no store, or no model of a context.
    """

    def __init__(self, store: Any, *, model: type[ContextT] | None = None) -> None:
        super().__init__(model=model)
        try:
            self._store = as_store(store)
        except ContextStoreError as exc:
            raise ConfigurationError(str(exc)) from exc

    async def _read(self, user_id: str) -> Mapping[str, Any] | None:
        return await self._store.get(user_id)

    async def _replace(self, user_id: str, document: Mapping[str, Any], present: int) -> bool:
        expected = {"version": present} if present else None
        return await self._store.compare_and_set(user_id, document, expected=expected)

    async def _remove(self, user_id: str) -> None:
        await self._store.delete(user_id)

    async def _user_ids(self) -> list[str]:
        return [key for key in await self._store.list_keys() if isinstance(key, str)]
