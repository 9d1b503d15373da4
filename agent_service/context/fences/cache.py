"""A fence over any cache, so that it holds between all processes that share the cache.

A cache offers an atomic counter, and a load whose value is not stored when its key was deleted since the load began.
So each key has a counter beside its entry, its *mark*. It holds two numbers: in the lowest 16 bits how many writers are
under way, above them a ticket, which every writer raises by a random step when it begins and when it finishes. A mark
that was evicted or has expired begins again with a random ticket, so no mark is ever taken for an earlier one.

* A writer raises the mark, then deletes the entry. It was alone if the mark counted no other writer, and is still the
  same when it finishes.
* A reader notes the mark before it reads the database; there is no lease while a writer is under way. It fills if the
  mark is still the same.
* The mark is compared inside a load of the cache. A writer who begins later deletes the entry, and with it the right of
  that load to store; so nothing comes between the comparison and the fill.

A writer that never finishes counts as under way until its mark expires: a lease after the last writer began or renewed.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

from agent_service.context.fences.protocol import LEASE_SECONDS, Fence
from agent_service.context.interface import Document, Key
from agent_service.context.keys import encode_key
from agent_service.core.errors import CacheValueError
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import NEVER
from agent_service.infrastructure.cache.interface import ICache

__all__ = ["CacheFence", "entry_name"]

T = TypeVar("T")

_WRITERS: Final = 0xFFFF
_NOT_ALONE: Final = 0
"""In place of a mark: whatever stands now, another one may have written meanwhile."""
_STEPS: Final = 1 << 24
_CONCURRENT: Final = 32
"""Marks that are asked for at once; a cache has no call for many counters."""


class CacheFence(Fence):
    """See the module. Holds no state.

    :param cache: where entries and marks are.
    :param owner: name of the class of the store that this is the fence of, for errors and metrics.
    :param lease: seconds that a mark lives after the last writer began or renewed; the same in every process.
    """

    def __init__(self, cache: ICache[Any], owner: str, lease: float = LEASE_SECONDS) -> None:
        self._cache = cache
        self._owner = owner
        self._lease = lease

    async def begin(self, keys: Collection[str]) -> str:
        since = time.monotonic()  # of the mark that is set first: the others may take long
        with store_errors(self._owner, "begin to write through a cache"):
            marks = await _each(keys, self._enter)
            await self._cache.delete_many([_entry(key) for key in keys])
            return json.dumps({"since": since, "marks": dict(zip(keys, marks, strict=True))})

    async def renew(self, token: str, keys: Collection[str]) -> str:
        begun: dict[str, Any] = json.loads(token)
        marks: dict[str, int] = begun["marks"]
        since = time.monotonic()
        in_time = since - begun["since"] < self._lease
        with store_errors(self._owner, "go on writing through a cache"):
            counted = await _each(keys, self._extend)
            lapsed = [key for key, each in zip(keys, counted, strict=True) if not (each and in_time)]
            if lapsed:  # others may have read, cached or written since: begin again, as one of several
                await _each(lapsed, self._enter)
                await self._cache.delete_many([_entry(key) for key in lapsed])
                marks |= dict.fromkeys(lapsed, _NOT_ALONE)
        return json.dumps({"since": since, "marks": marks})

    async def finish(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> None:
        begun: dict[str, Any] = json.loads(token) if token else {"since": 0.0, "marks": {}}
        marks: Mapping[str, int] = begun["marks"]
        alone = {
            key: (documents[key], marks[key]) for key in keys if key in documents and marks.get(key, 0) & _WRITERS == 1
        }
        with store_errors(self._owner, "finish writing through a cache"):
            stored = await self._fill(alone, ttl) if alone else set()
            lost = [_entry(key) for key in keys if key not in stored]
            if lost:
                await self._cache.delete_many(lost)
            await _each(marks, lambda key: self._leave(key, begun["since"]))

    async def lease(self, keys: Collection[str]) -> str:
        with store_errors(self._owner, "take a lease in a cache"):
            marks = await _each(keys, self._note)
        return json.dumps({key: mark for key, mark in zip(keys, marks, strict=True) if not mark & _WRITERS})

    async def fill(
        self,
        token: str,
        keys: Collection[str],  # noqa: ARG002 - a lease is a number that was noted, and ends by itself
        documents: Mapping[str, Document],
        ttl: float,
    ) -> int:
        marks = json.loads(token)
        standing = {key: (document, marks[key]) for key, document in documents.items() if key in marks}
        if not standing:
            return 0
        with store_errors(self._owner, "fill a cache"):
            return len(await self._fill(standing, ttl))

    async def _fill(self, entries: Mapping[str, tuple[Document, int]], ttl: float) -> set[str]:
        """Store those documents whose marks are as noted; return the keys of what was stored by this call."""
        unchanged: set[str] = set()

        async def load(names: list[str]) -> Mapping[str, Document]:
            keys = [name[1:] for name in names]
            marks = await _each(keys, self._present)
            unchanged.update(key for key, mark in zip(keys, marks, strict=True) if mark == entries[key][1])
            return {_entry(key): dict(entries[key][0]) for key in keys if key in unchanged}

        lifetime = NEVER if ttl == float("inf") else ttl
        await self._cache.get_or_load_many([_entry(key) for key in entries], load, ttl=lifetime)
        return unchanged

    async def _enter(self, key: str) -> int:
        """Count one more writer, and return the mark."""
        step = _step() + 1
        mark = await self._add(key, step)
        while mark != step:  # it was there, with a time to live of its own
            if await self._cache.expire(_mark(key), self._lease):
                break
            mark = await self._add(key, step)  # it expired between the two
        return mark

    async def _extend(self, key: str) -> bool:
        """Let a mark live for another lease; return whether it counts a writer."""
        extended = await self._cache.expire(_mark(key), self._lease)
        return extended and await self._present(key) & _WRITERS != 0

    async def _leave(self, key: str, since: float) -> None:
        # A writer whose mark may have expired is not counted any more: another one may be, in its place.
        writers = -1 if time.monotonic() - since < self._lease else 0
        mark = await self._add(key, _step() + writers)
        if mark & _WRITERS > _WRITERS >> 1:  # the mark was evicted and counted no writer
            await self._add(key, 1)

    async def _note(self, key: str) -> int:
        """Return the mark that tells later whether anyone has written; where there is none, make one."""
        return await self._present(key) or await self._add(key, _step())

    async def _present(self, key: str) -> int:
        # Adding nothing asks the cache that all share; a read could be answered by a copy in memory.
        return await self._add(key, 0)

    async def _add(self, key: str, amount: int) -> int:
        name = _mark(key)
        try:
            return await self._cache.increment(name, amount, ttl=self._lease)
        except CacheValueError:  # beyond 64 bits after millions of writes without a pause
            await self._cache.delete(name)
            return await self._cache.increment(name, amount, ttl=self._lease)


def entry_name(key: Key) -> str:
    """Return the name of a context's entry. A cache has no empty keys, so each begins with a sign."""
    return _entry(encode_key(key))


def _entry(key: str) -> str:
    return f"={key}"


def _mark(key: str) -> str:
    return f"!{key}"


def _step() -> int:
    """How far a writer raises the ticket."""
    return (1 + secrets.randbelow(_STEPS)) << 16


async def _each(items: Collection[T], call: Callable[[T], Awaitable[Any]]) -> list[Any]:
    if len(items) == 1:
        return [await call(each) for each in items]
    slots = asyncio.Semaphore(_CONCURRENT)

    async def one(item: T) -> Any:
        async with slots:
            return await call(item)

    return list(await asyncio.gather(*(one(each) for each in items)))
