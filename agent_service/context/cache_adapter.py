"""A cache as a context store, so that any ICache can stand before a database."""

from collections.abc import Iterable, Mapping
from typing import Any

from agent_service.context.base import resolve_store_ttl
from agent_service.context.documents import as_document, holds, merged, read_document, store_errors, write_document
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import decode_key, encode_key
from agent_service.core.ttl import TTL
from agent_service.infrastructure.cache.interface import ICache

__all__ = ["CacheContextStore"]


class CacheContextStore(ContextStore):
    """A store that may forget: what the cache evicts or loses is missing, and while it is down nothing is raised.

    Meant as the cache of a :class:`CacheBackedContextStore`. Keys are at most 8,192 bytes. ``update`` and
    ``compare_and_set`` are atomic within this process. Entries live as long as the cache says, unless ``ttl`` does.

    :param cache: the caller's, and not closed here.
    """

    expires = True

    def __init__(self, cache: ICache[Any]) -> None:
        self._cache = cache
        self._locks = KeyLocks()

    async def get(self, key: Key) -> Document | None:
        return await self._read(_name(key))

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        name, document = _name(key), _checked(value)
        _check_ttl(ttl)
        async with self._locks.hold((name,)):
            await self._write({name: document}, ttl)

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        name, news = _name(key), _checked(patch, "patch")
        async with self._locks.hold((name,)):
            result = merged(await self._read(name), news, drop_none=drop_none)
            with store_errors("update a context"):
                left = await self._cache.ttl(name)
            await self._write({name: result}, left)
        return result

    async def delete(self, key: Key) -> None:
        await self.delete_many((key,))

    async def list_keys(self) -> list[Any]:
        with store_errors("list the keys of contexts"):
            return [decode_key(name[1:]) async for name in self._cache.scan()]

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        names = [(key, _name(key)) for key in keys]
        with store_errors("read contexts"):
            found = await self._cache.get_many({name for _, name in names})
        return {key: as_document(found[name], "what is cached") for key, name in names if name in found}

    async def set_many(self, values: Mapping[Any, Mapping[str, Any]], *, ttl: TTL | None = None) -> None:
        documents = {_name(key): _checked(value) for key, value in values.items()}
        _check_ttl(ttl)
        async with self._locks.hold(documents):
            await self._write(documents, ttl)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        names = {_name(key) for key in keys}
        async with self._locks.hold(names):
            with store_errors("delete contexts"):
                return await self._cache.delete_many(names)

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        name, document = _name(key), _checked(value)
        wanted = None if expected is None else as_document(expected, "expected")
        _check_ttl(ttl)
        async with self._locks.hold((name,)):
            fits = holds(await self._read(name), wanted)
            if fits:
                await self._write({name: document}, ttl)
        return fits

    async def _read(self, name: str) -> Document | None:
        with store_errors("read a context"):
            found = await self._cache.get(name)
        return None if found is None else as_document(found, "what is cached")

    async def _write(self, documents: Mapping[str, Document], ttl: Any) -> None:
        with store_errors("write contexts"):
            await self._cache.set_many(documents, ttl=ttl)


def _name(key: Key) -> str:
    """A cache has no empty keys, so each begins with a mark."""
    return f"={encode_key(key)}"


def _checked(value: Any, name: str = "value") -> Document:
    return read_document(write_document(as_document(value, name)))


def _check_ttl(ttl: TTL | None) -> None:
    if ttl is not None:
        resolve_store_ttl(ttl, 0.0)
