"""Moving a key from one store to another while any number of processes read and write it.

A key that moves has a *home*, its new store, and *former* stores, where it may still be. Its value is what the home
holds, or, while the home holds nothing, what a former store holds. No process writes to a former store, except to
delete a copy that the home has already. The protocol:

* A read asks the home, then the former stores, then the home again, because the key may have moved in between.
* A write first moves the key home, then writes there.
* A move puts a *reservation* under the key at home, reads the former store, and replaces exactly that reservation with
  what it read (compare-and-set with a unique token). A late copy cannot overwrite a newer value or bring back a deleted
  one: in both cases its reservation is gone. Readers treat a reservation as absent. Any process may replace another
  one's reservation with its own, so a process that dies in the middle blocks nobody.

The copy is made before the original is deleted, so the key is always in one of the stores. An interrupted move is
completed by the next one.
"""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, TypeVar
from uuid import uuid4

from agent_service.context.documents import holds
from agent_service.context.interface import ContextStore, Document, Key
from agent_service.core.errors import ContextStoreError
from agent_service.core.ttl import NEVER, TTL

__all__ = [
    "Movable",
    "Shard",
    "bring_home",
    "is_reservation",
    "read_both",
    "read_to_move",
    "reserved_by",
    "visible",
    "withdraw",
]

T = TypeVar("T")

_RESERVED: Final = "agent_service:moving"
"""The only field of a reservation; its value is a token."""
_RESERVATION_TTL: Final = 60.0
_COURTESY: Final = 0.01
"""Longest wait, in seconds, for another process that is moving the key already."""


class Movable(ABC):
    """A store that can hand over a key with its time to live, and remove a reservation atomically."""

    @abstractmethod
    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        """Return what is stored under the key and the time it has left (None: it cannot tell), or None."""

    @abstractmethod
    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        """Remove the key if its value has these entries among its own, atomically; return whether it had."""


async def read_to_move(store: ContextStore, key: Key) -> tuple[Document, TTL | None] | None:
    """Call :meth:`Movable.read_to_move`, or do the same for a store without it."""
    if isinstance(store, Movable):
        return await store.read_to_move(key)
    document = await store.get(key)
    return None if document is None else (document, None if store.expires else NEVER)


async def withdraw(store: ContextStore, key: Key, expected: Mapping[str, Any]) -> bool:
    """Call :meth:`Movable.withdraw`; for a store without it, read, compare and delete, which is not atomic."""
    if isinstance(store, Movable):
        return await store.withdraw(key, expected)
    found = await store.get(key)
    if found is None or not holds(found, expected):
        return False
    await store.delete(key)
    return True


class Shard:
    """A store and its name, which every error carries."""

    def __init__(self, name: str, store: ContextStore) -> None:
        self.name = name
        self.store = store

    async def call(self, work: Awaitable[T]) -> T:
        """Await a call of the store.

        :raises ContextStoreError: for every failure, chained, naming the shard.
        """
        try:
            return await work
        except ContextStoreError as exc:
            raise ContextStoreError(f"shard {self.name!r}: {exc}") from exc
        except Exception as exc:  # of a store that others wrote
            raise ContextStoreError(f"shard {self.name!r} raised {type(exc).__name__}: {exc}") from exc

    async def get(self, key: Key) -> Document | None:
        """Return what is stored under the key, or None; a reservation counts as absent."""
        return visible(await self.call(self.store.get(key)))

    async def replace(self, key: Key, document: Document, *, expected: Document | None, ttl: TTL | None = None) -> bool:
        """Store a document in place of what is expected; return whether it was there."""
        lifetime = ttl if self.store.expires else None
        return await self.call(self.store.compare_and_set(key, document, expected=expected, ttl=lifetime))

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        """Return what is stored under the key and the time it has left: None where the store cannot tell."""
        found = await self.call(read_to_move(self.store, key))
        document = None if found is None else visible(found[0])
        return None if found is None or document is None else (document, found[1])

    async def withdraw(self, key: Key, reservation: Document) -> None:
        """Remove a reservation, unless something else has taken its place."""
        await self.call(withdraw(self.store, key, reservation))


def is_reservation(document: Document | None) -> bool:
    """Whether a document is only the reservation of a move."""
    return document is not None and len(document) == 1 and _RESERVED in document


def visible(document: Document | None) -> Document | None:
    """Return a document as callers see it: without a reservation, which an update may have been merged into."""
    if document is None or _RESERVED not in document:
        return document
    return {name: each for name, each in document.items() if name != _RESERVED} or None


def reserved_by(document: Document) -> Document:
    """Return the reservation that an update was merged into; {} if there was none."""
    return {_RESERVED: document[_RESERVED]} if _RESERVED in document else {}


async def read_both(key: Key, home: Shard, former: Sequence[Shard]) -> Document | None:
    """Return what is stored under a key that may still be in one of its former stores."""
    document = await home.get(key)
    for each in former:
        if document is not None:
            return document
        document = await each.get(key)
    return document if document is not None or not former else await home.get(key)


async def bring_home(key: Key, home: Shard, former: Sequence[Shard]) -> bool:
    """Move a key home; return whether there is anything under it. Afterwards no former store has it."""
    courted: Document | None = None
    while True:
        present = await home.call(home.store.get(key))
        if present is not None and not is_reservation(present):
            await _forget(key, former)
            return True
        if present is not None and present != courted:
            courted = present
            await asyncio.sleep(random.uniform(0, _COURTESY))  # noqa: S311 - spreads movers, keeps no secret
            continue
        if await _read(key, former) is None:  # a cache may say yet that there is something
            if present is not None:
                await home.withdraw(key, present)
            elif await home.call(home.store.get(key)) is None:
                return False
            continue
        reservation = {_RESERVED: uuid4().hex}
        if not await home.replace(key, reservation, expected=present, ttl=_RESERVATION_TTL):
            continue
        document, ttl = await _read(key, former) or (None, None)
        if document is None:
            await home.withdraw(key, reservation)
        elif await home.replace(key, document, expected=reservation, ttl=ttl):
            await _forget(key, former)
            return True


async def _read(key: Key, former: Sequence[Shard]) -> tuple[Document, TTL | None] | None:
    for each in former:
        found = await each.read_to_move(key)
        if found is not None:
            return found
    return None


async def _forget(key: Key, former: Sequence[Shard]) -> None:
    for each in former:
        if await each.get(key) is not None:  # a read costs less than a deletion, and mostly finds nothing
            await each.call(each.store.delete(key))
