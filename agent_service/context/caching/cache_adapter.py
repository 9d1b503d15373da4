"""A cache as a context store, so that any ICache can stand before a database."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent_service.context.documents import as_document, as_pairs, holds, merged, own_document
from agent_service.context.fences.cache import CacheFence, entry_name
from agent_service.context.fences.protocol import LEASE_SECONDS, Fence, Fenced
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import decode_key
from agent_service.context.lifetimes import resolve_store_ttl
from agent_service.context.moving import Movable
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.cache.interface import ICache

__all__ = ["CacheContextStore"]


class CacheContextStore(ContextStore, Fenced, Movable):
    """A store that may forget: what the cache evicts or loses is missing, and while it is down nothing is raised.

    Meant as the cache of a :class:`CacheBackedContextStore`, which then keeps its promises between all processes that
    share the cache (:mod:`agent_service.context.fences.cache`); that costs a counter beside each entry, two more round
    trips for a miss and four more for a write. Keys are at most 8,192 bytes. ``update``, ``compare_and_set`` and a move
    to another shard are atomic within this process. Entries live as long as the cache says, unless ``ttl`` does.

    :param cache: the caller's, and not closed here.
    """

    expires = True

    def __init__(self, cache: ICache[Any]) -> None:
        self._cache = cache
        self._locks = KeyLocks()

    async def get(self, key: Key) -> Document | None:
        return await self._read(entry_name(key))

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        name, document = entry_name(key), own_document(value)
        _check_ttl(ttl)
        async with self._locks.hold((name,)):
            await self._write({name: document}, ttl)

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        name, news = entry_name(key), own_document(patch, "patch")
        async with self._locks.hold((name,)):
            result = merged(await self._read(name), news, drop_none=drop_none)
            with store_errors(type(self).__name__, "update a context"):
                left = await self._cache.ttl(name)
            await self._write({name: result}, left)
        return result

    async def delete(self, key: Key) -> None:
        await self.delete_many((key,))

    async def list_keys(self) -> list[Any]:
        with store_errors(type(self).__name__, "list the keys of contexts"):
            return [decode_key(name[1:]) async for name in self._cache.scan("=*")]

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        names = [(key, entry_name(key)) for key in keys]
        with store_errors(type(self).__name__, "read contexts"):
            found = await self._cache.get_many({name for _, name in names})
        return {key: as_document(found[name], "what is cached") for key, name in names if name in found}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        documents = {entry_name(key): own_document(value) for key, value in as_pairs(values)}
        _check_ttl(ttl)
        async with self._locks.hold(documents):
            await self._write(documents, ttl)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        names = {entry_name(key) for key in keys}
        async with self._locks.hold(names):
            with store_errors(type(self).__name__, "delete contexts"):
                return await self._cache.delete_many(names)

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        name, document = entry_name(key), own_document(value)
        wanted = None if expected is None else as_document(expected, "expected")
        _check_ttl(ttl)
        async with self._locks.hold((name,)):
            fits = holds(await self._read(name), wanted)
            if fits:
                await self._write({name: document}, ttl)
        return fits

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        name = entry_name(key)
        document = await self._read(name)
        with store_errors(type(self).__name__, "read a context"):
            left = None if document is None else await self._cache.ttl(name)
        if document is None or left is None:  # it expired between the two
            return None
        return document, left if left is NEVER else max(left, 0.001)

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        name = entry_name(key)
        async with self._locks.hold((name,)):
            if not holds(await self._read(name), expected):
                return False
            with store_errors(type(self).__name__, "withdraw a context"):
                return await self._cache.delete(name)

    def fence(self, lease: float = LEASE_SECONDS) -> Fence:
        return CacheFence(self._cache, type(self).__name__, lease)

    async def _read(self, name: str) -> Document | None:
        with store_errors(type(self).__name__, "read a context"):
            found = await self._cache.get(name)
        return None if found is None else as_document(found, "what is cached")

    async def _write(self, documents: Mapping[str, Document], ttl: Any) -> None:
        with store_errors(type(self).__name__, "write contexts"):
            await self._cache.set_many(documents, ttl=ttl)


def _check_ttl(ttl: TTL | None) -> None:
    if ttl is not None:
        resolve_store_ttl(ttl, 0.0)
