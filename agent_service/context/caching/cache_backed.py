"""A database with a cache in front: every write goes to the database first, reads use the cache when they can.

A write: encode the document once -> begin at the fence, which removes the cached copy -> write to the database ->
finish at the fence, with the new copy. A read: the copy; else take a lease at the fence -> read the database -> fill
the cache under that lease. What the fence guarantees is said in :mod:`agent_service.context.fences.protocol`, what
happens when the cache fails in :mod:`agent_service.context.fences.guard`.

What has begun at the fence is finished in a task that a cancellation of the caller does not stop.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from agent_service.context.caching.stamped import StampedStore
from agent_service.context.documents import EncodedDocument, accepts_encoded, as_pairs, as_values, encoded
from agent_service.context.fences.guard import CacheGuard
from agent_service.context.fences.local import LocalFence
from agent_service.context.fences.protocol import LEASE_SECONDS, Fenced
from agent_service.context.fences.renewal import Renewal
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.keys import decode_key, encode_key, hide_one_another
from agent_service.context.lifetimes import refuse_ttl, resolve_store_ttl
from agent_service.context.moving import Movable, is_reservation, read_to_move, withdraw
from agent_service.context.outside_store import OutsideStore, as_store
from agent_service.context.redis.store import RedisContextStore
from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.current_reads import CURRENT_READS, reading_what_is_current
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.settings import get_settings
from agent_service.core.store_metrics import store_error, translated
from agent_service.core.ttl import TTL

__all__ = ["CacheBackedContextStore"]

_KEEPS: Final = "a cache-backed store keeps what it is given"


class CacheBackedContextStore(ContextStore, Movable):
    """Write-through: ``db`` holds the truth, ``cache`` makes reads fast.

    * :meth:`get` returns what is cached, else reads the database and caches it. Writes go to the database, then to the
      cache; :meth:`update` reads the database, never the cache.
    * A database error is raised, and nothing is cached.
    * A cache error is never raised. What could not be taken out of the cache is not read from it by this process until
      it is out; another process may read it until its time to live ends.
    * A value that was read before a write is not cached after it, and of writes that overlap none is cached: see
      :mod:`agent_service.context.fences.protocol`. With a :class:`RedisContextStore` or a :class:`CacheContextStore` as
      cache that holds between processes.
    * A process that dies between the database and the cache leaves the key out of the cache, however long the write
      took: it is renewed at the fence while it runs, and stands there for ``lease_seconds`` after the death. These
      should be more than a database may still work for a client that is gone (DB_STATEMENT_TIMEOUT).

    The atomicity of :meth:`update` and of bulk calls is that of ``db``. A hit costs one read of the cache; a write
    costs two round trips to the cache beside that to the database.

    :param db: a store, or a :class:`~agent_service.context.outside.repository.DbRepository`; see
        :class:`~agent_service.context.outside.calls.OutsideCalls` for what others wrote.
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
        ends_itself = given.expires and not given.stamped_as_cache
        self._cache = given if ends_itself else StampedStore(given, clock=clock)
        self._ttl = resolve_store_ttl(ttl, math.inf)
        self._prefix = f"{prefix}_" if prefix else ""
        self.place = (self._db.place, self._prefix) if self._prefix and self._db.place is not None else self._db.place
        lease = get_settings().cache_lease_seconds if lease_seconds is None else _checked_lease(lease_seconds)
        # A process of an earlier release shortens to 10 s what stands at a fence.
        self._renew_every = min(lease, LEASE_SECONDS) / 3
        self._fence = self._cache.fence(lease) if isinstance(self._cache, Fenced) else LocalFence(self._cache)
        self._guard = CacheGuard(self._fence, ttl=self._ttl, clock=clock)
        self._has_own_names = type(self._db).cache_key is not ContextStore.cache_key
        self._by_field = self._fence.by_field or isinstance(self._db, RedisContextStore)
        self._db_accepts_encoded = accepts_encoded(self._db)
        self.counters: Counter[str] = self._guard.counters
        """How many ``hits``, ``misses``, ``fills``, ``fills_refused`` and ``cache_errors`` there were."""

    async def get(self, key: Key) -> Document | None:
        name, text = self._name(key)
        if self._guard.trusts(text):
            cached = None
            try:
                cached = await self._cache.get(name)
            except Exception as exc:  # noqa: BLE001 - whatever a cache raises, the database serves
                self._guard.failed(exc)
            if cached is not None:
                self.counters["hits"] += 1
                return cached
        return (await self._load({text: name})).get(name)

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        name, text = self._name(key)
        if ttl is not None:
            refuse_ttl(ttl, _KEEPS)
        document = encoded(value, by_field=self._by_field)
        async with self._writing((text,), "write a context") as written:
            if isinstance(self._db, OutsideStore):
                kept = await self._db.store(name, document)
                if kept is not None:
                    written[text] = kept
            else:
                await self._db.set(name, self._given(document))
                written[text] = document

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        name, text = self._name(key)
        async with self._writing((text,), "update a context") as written:
            written[text] = await self._db.update(name, patch, drop_none=drop_none)
        return written[text]

    async def delete(self, key: Key) -> None:
        name, text = self._name(key)
        async with self._writing((text,), "delete a context"):
            await self._db.delete(name)

    async def list_keys(self) -> list[Any]:
        with self._translated("list the keys of contexts"):
            keys = await self._db.list_keys()
        if not self._prefix:
            return keys
        texts = (encode_key(key) for key in keys)
        return [decode_key(text.removeprefix(self._prefix)) for text in texts if text.startswith(self._prefix)]

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        names = [(key, *self._name(key)) for key in keys]
        if hide_one_another(name for _, name, _ in names):
            singly = [(key, await self.get(key)) for key, _, _ in names]
            return {key: each for key, each in singly if each is not None}
        trusted = [name for _, name, text in names if self._guard.trusts(text)]
        found: dict[Any, Document] = {}
        if trusted:
            try:
                found = await self._cache.get_many(trusted)
            except Exception as exc:  # noqa: BLE001 - as in get()
                self._guard.failed(exc)
        self.counters["hits"] += len(found)
        missing = {text: name for _, name, text in names if name not in found}
        if missing:
            found |= await self._load(missing)
        return {key: found[name] for key, name, _ in names if name in found}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        pairs = [(self._name(key), encoded(value, by_field=self._by_field)) for key, value in as_pairs(values)]
        documents = {text: (name, document) for (name, text), document in pairs}
        if not documents:
            return
        if ttl is not None:
            refuse_ttl(ttl, _KEEPS)
        async with self._writing(documents, "write contexts") as written:
            given = [(name, self._given(document)) for name, document in documents.values()]
            await self._db.set_many(as_values(given))
            if not isinstance(self._db, OutsideStore):  # what a repository keeps can only be told by reading it
                written.update({text: document for text, (_, document) in documents.items()})

    async def delete_many(self, keys: Iterable[Key]) -> int:
        names = {text: name for name, text in map(self._name, keys)}
        if not names:
            return 0
        async with self._writing(names, "delete contexts"):
            return await self._db.delete_many(list(names.values()))

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        name, text = self._name(key)
        if ttl is not None:
            refuse_ttl(ttl, _KEEPS)
        document = encoded(value, by_field=self._by_field)
        async with self._writing((text,), "compare and set a context"):
            return await self._db.compare_and_set(name, self._given(document), expected=expected)

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        return await read_to_move(self._db, self._name(key)[0])

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        name, text = self._name(key)
        async with self._writing((text,), "withdraw a context"):
            return await withdraw(self._db, name, expected)

    async def aclose(self) -> None:
        """Close the database side and the cache."""
        try:
            await self._cache.aclose()
        except Exception as exc:  # noqa: BLE001 - as in get()
            self._guard.failed(exc)
        with self._translated("close the database side"):
            await self._db.aclose()

    def _name(self, key: Key) -> tuple[Key, str]:
        """Return the key under which database and cache keep what belongs to a key, and how it is written."""
        text = encode_key(key)
        if self._prefix:
            name: Key = f"{self._prefix}{text}"
        elif self._has_own_names:
            name = self._db.cache_key(key)
        else:
            return key, text
        return name, encode_key(name)

    def _given(self, document: EncodedDocument) -> Document:
        """Return a document as the database side may be given it."""
        return document if self._db_accepts_encoded else dict(document)

    def _translated(self, action: str) -> translated:
        """For calls of the database side: a store that others wrote may raise what is not ours."""
        return translated(type(self._db).__name__, action)

    async def _load(self, names: Mapping[str, Key]) -> dict[Any, Document]:
        """Read the database, and cache what no write has overtaken meanwhile.

        :param names: by their text.
        """
        self.counters["misses"] += len(names)
        lease = await self._lease(names)
        found: dict[Any, Document] = {}
        wanted = list(names.values())
        try:
            with reading_what_is_current(), self._translated("read a context" if len(names) == 1 else "read contexts"):
                if len(names) == 1:
                    document = await self._db.get(wanted[0])
                    found = {} if document is None else {wanted[0]: document}
                else:
                    found = await self._db.get_many(wanted)
        finally:
            if lease is not None:
                # A cache that another process does not uncache would hide the moved key behind its reservation.
                lasting = {
                    text: found[name]
                    for text, name in names.items()
                    if name in found and not is_reservation(found[name])
                }
                await _finished(self._fill(lease, names, lasting))
        return found

    async def _lease(self, texts: Collection[str]) -> str | None:
        """Take a lease for a load; None where nothing can be cached."""
        guard = self._guard
        if not (guard.breaker.closed or await guard.serves_again(texts)) or guard.is_blind:
            return None
        try:
            if guard.dirty:
                await guard.clear_dirty(texts)
            return await self._fence.lease(texts)
        except Exception as exc:  # noqa: BLE001 - as in get()
            guard.failed(exc)
            return None

    async def _fill(self, lease: str, texts: Collection[str], documents: Mapping[str, Document]) -> None:
        try:
            filled = await self._fence.fill(lease, texts, documents, self._ttl)
        except Exception as exc:  # noqa: BLE001 - as in get()
            self._guard.failed(exc)
            return
        self.counters["fills"] += filled
        self.counters["fills_refused"] += len(documents) - filled

    @asynccontextmanager
    async def _writing(self, texts: Collection[str], action: str) -> AsyncIterator[dict[str, Document]]:
        """Fence a write to the database; what the block puts into the dictionary is cached if it ends well."""
        write = await self._begin(texts)
        documents: dict[str, Document] = {}
        current = CURRENT_READS.set(True)
        try:
            yield documents
        except BaseException as exc:
            CURRENT_READS.reset(current)
            await _finished(self._finish(write, {}))
            error = store_error(exc, type(self._db).__name__, action) if isinstance(exc, Exception) else exc
            if error is exc:
                raise
            raise error from exc
        CURRENT_READS.reset(current)
        await _finished(self._finish(write, documents))

    async def _begin(self, texts: Collection[str]) -> "_Write":
        guard, write = self._guard, _Write(texts)
        if guard.breaker.closed or await guard.serves_again(texts):
            try:
                write.token = await self._fence.begin(texts)
            except Exception as exc:  # noqa: BLE001 - as in get()
                guard.failed(exc)
        if not write.token:
            guard.mark(texts)
        write.timer = asyncio.get_running_loop().call_later(self._renew_every, self._start_renewing, write)
        return write

    def _start_renewing(self, write: "_Write") -> None:
        write.renewal = Renewal(write.token, lambda token: self._renewed(token, write.texts), every=self._renew_every)

    async def _renewed(self, token: str, texts: Collection[str]) -> str:
        """Renew a write at the fence; return its token from now on."""
        if token == "" or not self._guard.breaker.closed:  # finishing makes the keys dirty then
            return token
        try:
            return await self._fence.renew(token, texts)
        except Exception as exc:  # noqa: BLE001 - as in get()
            self._guard.failed(exc)
            return token

    async def _finish(self, write: "_Write", documents: Mapping[str, Document]) -> None:
        """End a write at the fence; where that fails its keys are dirty."""
        guard, texts, token = self._guard, write.texts, write.token
        write.timer.cancel()
        if write.renewal is not None:
            token = await write.renewal.stop()
        if guard.breaker.closed:
            try:
                await self._fence.finish(token, texts, documents, self._ttl)
            except Exception as exc:  # noqa: BLE001 - as in get()
                guard.failed(exc)
            except BaseException:
                guard.mark(texts)
                raise
            else:
                if guard.dirty:
                    guard.clean(texts)
                return
        guard.mark(texts)


class _Write:
    """A write that stands at the fence, and is renewed there until it ends. A short one costs a timer, and no task."""

    __slots__ = ("renewal", "texts", "timer", "token")

    timer: asyncio.TimerHandle

    def __init__(self, texts: Collection[str]) -> None:
        self.texts = texts
        self.token = ""
        self.renewal: Renewal | None = None


async def _finished(work: Coroutine[Any, Any, None]) -> None:
    """Await to the end even if this task is cancelled meanwhile: what began at a fence has to finish."""
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
