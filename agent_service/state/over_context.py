"""State over any context store: a typed view, one key per user."""

from collections.abc import Mapping
from typing import Any

from agent_service.context.outside_store import as_store
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.state.base import VersionedStateStore
from agent_service.state.interface import ContextT

__all__ = ["ContextStateStore"]


class ContextStateStore(VersionedStateStore[ContextT]):
    """Keeps a user's context under the user id in a context store: sharded, cache-backed, or one of yours.

    :param store: a context store, ours or another implementation; the caller closes it. Each text key in it counts as
        a user's context.
    :param model: the class of the contexts; None: CoachContext.
    :raises ConfigurationError: if ``store`` is no store, or ``model`` no model of a context.
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
