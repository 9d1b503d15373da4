"""Moving a key from one store to another while any number of processes read and write it.

A key that moves has a *home*, where it shall be, and *former* stores, where it may still be. The truth is what its home
holds; while that is nothing, what a former store holds. Nobody writes to a former store, except to delete there what
the home holds already. Therefore:

* A reader asks the home, then the former stores, then the home once more, because the key may have moved meanwhile.
* A writer brings the key home first, and then writes there.
* Whoever brings a key home puts a *reservation* under it at home, reads the former store, and replaces that very
  reservation with what it read. A late copy therefore never replaces a newer value, and never brings back what was
  deleted meanwhile: in both cases its reservation is gone. Reservations count as nothing. Anybody may replace one with
  an own one, so whoever dies in the middle holds up nobody.

Copied first and deleted then, a key is always somewhere; broken off, the next one goes on.
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

__all__ = ["Movable", "Shard", "bring_home", "is_reservation", "read_both", "read_to_move", "reserved_by", "withdraw"]

T = TypeVar("T")

_RESERVED: Final = "agent_service:moving"
"""The only field of a reservation; its value is a token."""
_RESERVATION_TTL: Final = 60.0
_COURTESY: Final = 0.01
"""Seconds, at most, that somebody who moves the key already is left alone."""


class Movable(ABC):
    """A store from which keys can be moved exactly: with their time to live, and without a race."""

    @abstractmethod
    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        """Return what is stored under the key and the time it has left (None: it cannot tell), or None."""

    @abstractmethod
    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        """Remove the key if its value has these entries among its own, atomically; return whether it had."""


async def read_to_move(store: ContextStore, key: Key) -> tuple[Document, TTL | None] | None:
    """Do what :class:`Movable` says, for any store."""
    if isinstance(store, Movable):
        return await store.read_to_move(key)
    document = await store.get(key)
    return None if document is None else (document, None if store.expires else NEVER)


async def withdraw(store: ContextStore, key: Key, expected: Mapping[str, Any]) -> bool:
    """Do what :class:`Movable` says; in two steps for a store that cannot do it in one."""
    if isinstance(store, Movable):
        return await store.withdraw(key, expected)
    found = await store.get(key)
    if found is None or not holds(found, expected):
        return False
    await store.delete(key)
    return True


class Shard:
    """A store by name; every error tells the name."""

    def __init__(self, name: str, store: ContextStore) -> None:
        self.name = name
        self.store = store

    async def call(self, work: Awaitable[T]) -> T:
        """Await a call of the store.

        :raises ContextStoreError: for every failure, chained, naming the shard.
        """
        try:
            return await work
        except Exception as exc:
            raise ContextStoreError(f"shard {self.name!r}: {exc}") from exc

    async def get(self, key: Key) -> Document | None:
        """Return what is stored under the key, a reservation being nothing."""
        document = await self.call(self.store.get(key))
        return None if is_reservation(document) else document

    async def replace(self, key: Key, document: Document, *, expected: Document | None, ttl: TTL | None = None) -> bool:
        """Store a document in place of what is expected; return whether it was there."""
        lifetime = ttl if self.store.expires else None
        return await self.call(self.store.compare_and_set(key, document, expected=expected, ttl=lifetime))

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        """Return what is stored under the key and the time it has left: None where the store cannot tell."""
        found = await self.call(read_to_move(self.store, key))
        return None if found is None or is_reservation(found[0]) else found

    async def withdraw(self, key: Key, reservation: Document) -> None:
        """Remove a reservation, unless something else has taken its place."""
        await self.call(withdraw(self.store, key, reservation))


def is_reservation(document: Document | None) -> bool:
    """Whether a document stands for nothing, because somebody is bringing its key here."""
    return document is not None and len(document) == 1 and _RESERVED in document


def reserved_by(document: Document) -> Document:
    """Return the reservation that a document was merged into; an empty dictionary where there was none."""
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
        if not await _held(key, former):
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


async def _held(key: Key, former: Sequence[Shard]) -> bool:
    for each in former:
        if await each.get(key) is not None:
            return True
    return False


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
