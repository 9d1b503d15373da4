"""Stores and repositories that others wrote, as stores of this package."""

import threading
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.moving import Movable
from agent_service.context.outside.calls import DERIVED, OutsideCalls, own_method
from agent_service.context.sync_store import SyncContextStore
from agent_service.core.current_reads import reading_what_is_current
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import NEVER, TTL

__all__ = ["OutsideStore", "as_store"]

_stores: "Final[WeakValueDictionary[int, OutsideStore]]" = WeakValueDictionary()
_looking: Final = threading.Lock()


class OutsideStore(OutsideCalls, ContextStore, Movable):
    """A store over any object with ``get``, ``set`` and ``delete``: one of the documented interface, or a repository.

    See :class:`~agent_service.context.outside.calls.OutsideCalls` for what becomes of them. One that is
    :class:`~agent_service.context.moving.Movable` hands over its keys itself.
    """

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        if isinstance(self.outside, Movable):
            with store_errors(self._name, "read a context"), reading_what_is_current():
                return await self.outside.read_to_move(key)
        with reading_what_is_current():
            document = await self.get(key)
        return None if document is None else (document, None if self.expires else NEVER)

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        if isinstance(self.outside, Movable):
            with store_errors(self._name, "withdraw a context"):
                return await self.outside.withdraw(key, expected)
        return await self.delete_if(key, expected)


def as_store(given: Any, name: str = "store") -> ContextStore:
    """Return a store with every call of the contract: the given one, the one below a synchronous face, or a wrapper.

    :param name: of the argument, for the error.
    :raises ContextStoreError: for what lacks ``get``, ``set`` or ``delete``.
    """
    below = given.store if isinstance(given, SyncContextStore) else given
    if isinstance(below, ContextStore) and all(own_method(below, each) is not None for each in DERIVED):
        return below
    if isinstance(below, OutsideCalls):  # what a synchronous face has made of it
        below = below.outside
    with _looking:
        store = _stores.get(id(below))  # whose wrapper keeps it alive, so no other object has the number
        if store is None:
            store = _stores[id(below)] = OutsideStore(below, name)
        return store
