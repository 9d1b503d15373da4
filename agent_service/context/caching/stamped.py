"""A store that cannot expire entries, as a cache whose entries end."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agent_service.context.documents import as_pairs, as_values
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.lifetimes import resolve_store_ttl
from agent_service.core.clock import Clock
from agent_service.core.ttl import TTL

__all__ = ["StampedStore"]

_FIELDS: Final = frozenset({"until", "document"})


class StampedStore(ContextStore):
    """Keeps each document with the moment until which it may be read: ``{"until": seconds, "document": {...}}``.

    An expired entry is missing; the store below keeps it until it is replaced or deleted. A document of another form
    was written by another program, and is missing too. ``until`` is in seconds since 1970, None: for ever.

    :param store: what keeps them; the caller's, but :meth:`aclose` closes it.
    """

    expires = True

    def __init__(self, store: ContextStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, key: Key) -> Document | None:
        return self._document(await self._store.get(key))

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        await self._store.set(key, self._stamped(value, ttl))

    async def delete(self, key: Key) -> None:
        await self._store.delete(key)

    async def list_keys(self) -> list[Any]:
        return await self._store.list_keys()

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        found = {key: self._document(each) for key, each in (await self._store.get_many(keys)).items()}
        return {key: each for key, each in found.items() if each is not None}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        await self._store.set_many(as_values([(key, self._stamped(value, ttl)) for key, value in as_pairs(values)]))

    async def delete_many(self, keys: Iterable[Key]) -> int:
        return await self._store.delete_many(keys)

    async def aclose(self) -> None:
        await self._store.aclose()

    def _stamped(self, value: Mapping[str, Any], ttl: TTL | None) -> Document:
        seconds = resolve_store_ttl(ttl, math.inf)
        until = None if seconds == math.inf else self._clock.now().timestamp() + seconds
        return {"until": until, "document": dict(value)}

    def _document(self, found: Document | None) -> Document | None:
        if found is None or found.keys() != _FIELDS or not isinstance(found["document"], dict):
            return None
        until = found["until"]
        if until is None:
            return found["document"]
        living = isinstance(until, int | float) and self._clock.now().timestamp() < until
        return found["document"] if living else None
