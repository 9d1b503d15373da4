"""A database with a cache in front: every write goes to the database first, reads use the cache when they can."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from agent_service.context.documents import as_document, as_pairs, as_values, translated, write_document
from agent_service.context.fences import Fenced, LocalFence
from agent_service.context.guard import CacheGuard
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.keys import decode_key, encode_key, hide_one_another
from agent_service.context.lifetimes import refuse_ttl, resolve_store_ttl
from agent_service.context.moving import Movable, is_reservation, read_to_move, withdraw
from agent_service.context.outside import OutsideStore, as_store
from agent_service.context.renewal import Renewal
from agent_service.context.stamped import StampedStore
from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.current_reads import reading_what_is_current
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.settings import get_settings
from agent_service.core.ttl import TTL

__all__ = ["CacheBackedContextStore"]

T = TypeVar("T")


class CacheBackedContextStore(ContextStore, Movable):
    """Write-through: ``db`` holds the truth, ``cache`` makes reads fast.

    * :meth:`get` gives what is cached, else reads the database and caches it. Writes go to the database, then to the
      cache; :meth:`update` reads the database, never the cache.
    * A database error is raised, and nothing is cached.
    * A cache error is never raised. What could not be taken out of the cache is not read from it by this process until
      it is out; another process may read it until its time to live ends.
    * A value that was read before a write is not cached after it, and of writes that overlap none is cached: see
      :mod:`agent_service.context.fences`. With a :class:`RedisContextStore` or a :class:`CacheContextStore` as cache
      that holds between processes.
    * Whoever dies between the database and the cache leaves the key out of the cache, however long the write took: it
      is renewed at the fence while it runs, and stands there for ``lease_seconds`` after the death. So those should be
      more than a database may still work for a client that is gone (DB_STATEMENT_TIMEOUT).

    The atomicity of :meth:`update` and of bulk calls is that of ``db``. A hit costs one read of the cache; a write
    costs two round trips to the cache beside that to the database.

    :param db: a store, or a :class:`~agent_service.context.repository.DbRepository`; see
        :class:`~agent_service.context.outside_calls.OutsideCalls` for what others wrote.
    :param cache: any store; for this store alone, or with a prefix of its own. One that cannot expire entries keeps
        each with the moment until which it may be read.
    :param ttl: seconds a cached context lives, above 0.
    :param lease_seconds: for which a process that died while it wrote keeps its keys out of the cache, the same in
        every process; None: CACHE_LEASE_SECONDS.
    :param prefix: put before every key, with ``_``, in the database and the cache alike.
    :raises ConfigurationError: when db and cache are one store, or a prefix is no text.
    :raises ContextStoreError: for a db or cache without ``get``, ``set`` and ``delete``.
    """

    def __init__(
        self,
        db: Any,
        cache: Any,
        *,
        ttl: TTL = 300.0,
        lease_seconds: float | None = None,
        prefix: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._db, given = as_store(db, "db"), as_store(cache, "cache")
        if self._db is given:
            raise ConfigurationError("db and cache are the same store; a database needs a cache of its own")
        if not isinstance(prefix, str):
            raise ConfigurationError(f"prefix must be text, got {type(prefix).__name__} {prefix!r:.80}")
        self._cache = given if given.expires else StampedStore(given, clock=clock)
        self._ttl = resolve_store_ttl(ttl, math.inf)
        self._prefix = f"{prefix}_" if prefix else ""
        self.place = (self._db.place, self._prefix) if self._prefix and self._db.place is not None else self._db.place
        lease = get_settings().cache_lease_seconds if lease_seconds is None else _checked_lease(lease_seconds)
        self._fence = self._cache.fence(lease) if isinstance(self._cache, Fenced) else LocalFence(self._cache)
        self._guard = CacheGuard(self._fence, ttl=self._ttl, lease=lease, clock=clock)
        self.counters: Counter[str] = self._guard.counters
        """How many ``hits``, ``misses``, ``fills``, ``fills_refused`` and ``cache_errors`` there were."""

    async def get(self, key: Key) -> Document | None:
        name = self._name(key)
        if self._guard.trusts(name):
            cached = await self._guard.read(self._cache.get(name))
            if cached is not None:
                self.counters["hits"] += 1
                return cached
        return (await self._load([name])).get(name)

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        name, document = self._name(key), _checked(value, ttl)
        async with self._writing([name]) as written:
            kept = await self._store(name, document)
            if kept is not None:
                written[name] = kept

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        name = self._name(key)
        async with self._writing([name]) as written:
            written[name] = await self._asked(self._db.update(name, patch, drop_none=drop_none), "update a context")
        return written[name]

    async def delete(self, key: Key) -> None:
        name = self._name(key)
        async with self._writing([name]):
            await self._asked(self._db.delete(name), "delete a context")

    async def list_keys(self) -> list[Any]:
        keys = await self._asked(self._db.list_keys(), "list the keys of contexts")
        if not self._prefix:
            return keys
        texts = (encode_key(key) for key in keys)
        return [decode_key(text.removeprefix(self._prefix)) for text in texts if text.startswith(self._prefix)]

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        names = [(key, self._name(key)) for key in keys]
        if hide_one_another(name for _, name in names):
            singly = [(key, await self.get(key)) for key, _ in names]
            return {key: each for key, each in singly if each is not None}
        trusted = [name for _, name in names if self._guard.trusts(name)]
        found = (await self._guard.read(self._cache.get_many(trusted)) or {}) if trusted else {}
        self.counters["hits"] += len(found)
        missing = list({name: None for _, name in names if name not in found})
        if missing:
            found |= await self._load(missing)
        return {key: found[name] for key, name in names if name in found}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        pairs = [(self._name(key), _checked(value, ttl)) for key, value in as_pairs(values)]
        documents = list({encode_key(name): (name, document) for name, document in pairs}.values())
        if not documents:
            return
        async with self._writing([name for name, _ in documents]) as written:
            await self._asked(self._db.set_many(as_values(documents)), "write contexts")
            # What a repository keeps only reading tells, and a dictionary cannot hold keys that are equal to Python.
            if not isinstance(self._db, OutsideStore) and not hide_one_another(name for name, _ in documents):
                written.update(documents)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        names = list({encode_key(name): name for name in map(self._name, keys)}.values())
        if not names:
            return 0
        async with self._writing(names):
            return await self._asked(self._db.delete_many(names), "delete contexts")

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        name, document = self._name(key), _checked(value, ttl)
        async with self._writing([name]):
            changing = self._db.compare_and_set(name, document, expected=expected)
            return await self._asked(changing, "compare and set a context")

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        return await read_to_move(self._db, self._name(key))

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        name = self._name(key)
        async with self._writing([name]):
            return await withdraw(self._db, name, expected)

    async def aclose(self) -> None:
        """Close the database side and the cache."""
        await self._guard.read(self._cache.aclose())
        await self._asked(self._db.aclose(), "close the database side")

    def _name(self, key: Key) -> Key:
        text = encode_key(key)
        return f"{self._prefix}{text}" if self._prefix else self._db.cache_key(key)

    async def _store(self, name: Key, document: Document) -> Document | None:
        """Write to the database; give what it holds now, None where only reading could tell."""
        if isinstance(self._db, OutsideStore):
            return await self._db.store(name, document)
        await self._asked(self._db.set(name, document), "write a context")
        return document

    async def _asked(self, call: Awaitable[T], action: str) -> T:
        """Await a call of the database side; a store that others wrote may raise what is not ours."""
        with translated(type(self._db).__name__, action):
            return await call

    async def _load(self, names: Sequence[Key]) -> dict[Any, Document]:
        """Read the database, and cache what no write has overtaken meanwhile."""
        self.counters["misses"] += len(names)
        token = await self._guard.lease(names)
        found: dict[Any, Document] = {}
        try:
            with reading_what_is_current():
                if len(names) == 1:
                    document = await self._asked(self._db.get(names[0]), "read a context")
                    found = {} if document is None else {names[0]: document}
                else:
                    found = await self._asked(self._db.get_many(names), "read contexts")
        finally:
            if token is not None:
                # A cache that another process does not uncache would hide the moved key behind its reservation.
                lasting = {name: each for name, each in found.items() if not is_reservation(each)}
                await _finished(self._guard.fill(token, names, lasting, self._ttl))
        return found

    @asynccontextmanager
    async def _writing(self, names: Sequence[Key]) -> AsyncIterator[dict[Any, Document]]:
        """Fence a write to the database; what the block puts into the dictionary is cached if it ends well."""
        token = await self._guard.begin(names)
        renewal = self._guard.renewing(token, names)
        written: dict[Any, Document] = {}
        try:
            with reading_what_is_current():
                yield written
        except BaseException:
            await _finished(self._finish(renewal, names, {}))
            raise
        await _finished(self._finish(renewal, names, written))

    async def _finish(self, renewal: Renewal, names: Sequence[Key], written: Mapping[Any, Document]) -> None:
        await self._guard.finish(await renewal.stop(), names, written, self._ttl)


async def _finished(work: Coroutine[Any, Any, None]) -> None:
    """Await to the end even if this task is cancelled meanwhile: whoever began at a fence has to finish."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _checked_lease(seconds: float) -> float:
    lease = resolve_store_ttl(seconds, 0.0, name="lease_seconds")
    if lease == math.inf:
        raise ContextStoreError("lease_seconds must be a number of seconds: a writer that died would count for ever")
    return lease


def _checked(value: Any, ttl: TTL | None) -> Document:
    refuse_ttl(ttl, "a cache-backed store keeps what it is given")
    document = as_document(value)
    write_document(document)
    return document
