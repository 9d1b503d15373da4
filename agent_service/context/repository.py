"""Repositories: what an application writes to keep contexts in tables of its own, and a store over it."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from agent_service.context.base import refuse_ttl
from agent_service.context.documents import as_document, holds, merged, read_document, write_document
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.key_locks import KeyLocks
from agent_service.core.errors import ContextStoreError
from agent_service.core.ttl import TTL

__all__ = ["DbRepository", "RepositoryStore", "SyncDbRepository", "adapt_repository"]

T = TypeVar("T")


@runtime_checkable
class DbRepository(Protocol):
    """Keeps JSON-serialisable contexts under text keys. The implementation may restrict keys and map them to a schema.

    A repository that keeps other data than it is given says so by ``restricts_keys = True``, or returns from ``set``
    the mapping that it kept. One that can merge atomically has ``update(context_key, patch)``, which gives the whole.
    One that can do more is better a :class:`ContextStore`.
    """

    async def get(self, context_key: str) -> dict[str, Any] | None:
        """Give the data stored under the key, or None."""
        ...

    async def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        """Store data in place of any other."""
        ...

    async def delete(self, context_key: str) -> Any:
        """Remove what is stored under the key, if anything."""
        ...


@runtime_checkable
class SyncDbRepository(Protocol):
    """A :class:`DbRepository` of plain methods; each call runs in a thread."""

    def get(self, context_key: str) -> dict[str, Any] | None:
        """Give the data stored under the key, or None."""
        ...

    def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        """Store data in place of any other."""
        ...

    def delete(self, context_key: str) -> Any:
        """Remove what is stored under the key, if anything."""
        ...


class _ThreadedRepository:
    """Awaits a repository of plain methods, each call in a thread that carries the caller's ContextVars."""

    def __init__(self, repository: SyncDbRepository) -> None:
        self._repository = repository
        if hasattr(repository, "update"):
            self.update = self._update

    async def _update(self, context_key: str, patch: Mapping[str, Any]) -> Any:
        return await asyncio.to_thread(self._repository.update, context_key, patch)  # type: ignore[attr-defined]

    async def get(self, context_key: str) -> dict[str, Any] | None:
        return await asyncio.to_thread(self._repository.get, context_key)

    async def set(self, context_key: str, data: Mapping[str, Any]) -> Any:
        return await asyncio.to_thread(self._repository.set, context_key, data)

    async def delete(self, context_key: str) -> Any:
        return await asyncio.to_thread(self._repository.delete, context_key)


def adapt_repository(repository: DbRepository | SyncDbRepository) -> DbRepository:
    """Give a repository of coroutines: the same one, or one that runs its plain methods in threads.

    :raises ContextStoreError: for an object without ``get``, ``set`` and ``delete``, or with some of them coroutines
        and some not.
    """
    methods = [getattr(repository, name, None) for name in ("get", "set", "delete")]
    if not all(callable(each) for each in methods):
        raise ContextStoreError(
            f"db must have the methods get, set and delete, which a {type(repository).__name__} has not"
        )
    awaited = [inspect.iscoroutinefunction(each) for each in methods]
    if all(awaited):
        return repository  # type: ignore[return-value] # just asked
    if any(awaited):
        raise ContextStoreError(f"{type(repository).__name__} has coroutines and plain methods; make them alike")
    return _ThreadedRepository(repository)  # type: ignore[arg-type] # just asked


class RepositoryStore(ContextStore):
    """A store over a repository's three methods.

    Keys are text. Bulk calls are calls in a row. ``compare_and_set``, and ``update`` where the repository has none,
    read and write under a lock of this process; another process that writes the same key may get between. Keys cannot
    be listed.
    """

    def __init__(self, repository: DbRepository | SyncDbRepository) -> None:
        self._repository = adapt_repository(repository)
        self._name = type(repository).__name__
        self._rereads = bool(getattr(repository, "restricts_keys", False))
        self._update: Callable[..., Awaitable[Any]] | None = getattr(self._repository, "update", None)
        self._locks = KeyLocks()

    async def get(self, key: Key) -> Document | None:
        return await self._get(_text(key))

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        await self.store(key, value, ttl=ttl)

    async def store(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> Document | None:
        """Do what :meth:`set` does, and give what the repository says it keeps now."""
        text, document = _text(key), _checked(value)
        refuse_ttl(ttl, "a repository cannot expire entries")
        async with self._locks.hold((text,)):
            return await self._put(text, document)

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        text, news = _text(key), merged(None, _checked(patch, "patch"), drop_none=drop_none)
        async with self._locks.hold((text,)):
            if self._update is None:
                return await self._put(text, merged(await self._get(text), news, drop_none=False)) or {}
            kept = await self._call("update a context", self._update, text, news)
            return dict(kept) if isinstance(kept, Mapping) else await self._get(text) or {}

    async def delete(self, key: Key) -> None:
        text = _text(key)
        async with self._locks.hold((text,)):
            await self._call("delete a context", self._repository.delete, text)

    async def list_keys(self) -> list[Any]:
        raise ContextStoreError(
            f"{self._name} cannot list keys: a repository has get, set and delete only; use a ContextStore as db"
        )

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        texts = [(key, _text(key)) for key in keys]
        found = [(key, await self._get(text)) for key, text in texts]
        return {key: each for key, each in found if each is not None}

    async def set_many(self, values: Mapping[Any, Mapping[str, Any]], *, ttl: TTL | None = None) -> None:
        documents = {_text(key): _checked(value) for key, value in values.items()}
        refuse_ttl(ttl, "a repository cannot expire entries")
        async with self._locks.hold(documents):
            for text, document in documents.items():
                await self._put(text, document)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        texts = {_text(key): None for key in keys}
        removed = 0
        async with self._locks.hold(texts):
            for text in texts:
                removed += await self._get(text) is not None
                await self._call("delete a context", self._repository.delete, text)
        return removed

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        text, document = _text(key), _checked(value)
        wanted = None if expected is None else as_document(expected, "expected")
        refuse_ttl(ttl, "a repository cannot expire entries")
        async with self._locks.hold((text,)):
            if not holds(await self._get(text), wanted):
                return False
            await self._put(text, document)
            return True

    async def _get(self, text: str) -> Document | None:
        found = await self._call("read a context", self._repository.get, text)
        return None if found is None else as_document(found, "what the repository gave")

    async def _put(self, text: str, document: Document) -> Document | None:
        kept = await self._call("write a context", self._repository.set, text, document)
        if isinstance(kept, Mapping):
            return dict(kept)
        return await self._get(text) if self._rereads else document

    async def _call(self, action: str, method: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        try:
            return await method(*arguments)
        except ContextStoreError:
            raise
        except Exception as exc:  # whatever the application's repository and its driver raise
            raise ContextStoreError(f"could not {action}: {self._name} raised {type(exc).__name__}: {exc}") from exc


def _checked(value: Any, name: str = "value") -> Document:
    """Give an independent copy of a document that every backend could keep."""
    return read_document(write_document(as_document(value, name)))


def _text(key: Key) -> str:
    if not isinstance(key, str):
        raise ContextStoreError(
            f"key must be text for a repository, not {type(key).__name__}: {key!r:.80}; use a ContextStore as db"
        )
    try:
        key.encode()
    except UnicodeEncodeError as exc:
        raise ContextStoreError(f"key {key!a:.80} holds a lone surrogate, which has no UTF-8 form; replace it") from exc
    return key
