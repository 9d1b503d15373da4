"""Contexts spread over several stores."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from agent_service.context.documents import as_pairs, as_values, write_document
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import encode_key, hide_one_another
from agent_service.context.lifetimes import refuse_ttl
from agent_service.context.moving import (
    Movable,
    Shard,
    bring_home,
    is_reservation,
    read_both,
    reserved_by,
    visible,
    withdraw,
)
from agent_service.context.shards.placement import Placement
from agent_service.core.errors import ConfigurationError
from agent_service.core.ttl import TTL

__all__ = ["RebalanceProgress", "ShardManager"]

T = TypeVar("T")

_CONCURRENT_MOVES: Final = 16
_CHUNK: Final = 500
"""Keys that are read at once to tell those that hold something from those that are only being moved."""


@dataclass(frozen=True, slots=True)
class RebalanceProgress:
    """How far :meth:`ShardManager.rebalance` is: keys looked at, keys there are, and keys that had to move."""

    done: int
    total: int
    moved: int


class ShardManager(ContextStore, Movable):
    """A store over named shards, each of which holds the keys that hash to it.

    A key belongs to the shard of the highest weight, a BLAKE2b digest of the shard's name and the key (rendezvous
    hashing; Thaler and Ravishankar, 1998): the same in every process, and when one shard is added to n, one key in
    n + 1 moves, to it. Routing costs about half a microsecond a shard. A shard's name is what counts, not its place.

    Bulk calls go to all shards at once and are atomic for each shard only. A shard that fails is named in the error;
    a list of keys without its keys is an error, too.

    To change the shards of a running service, tell every process the shards of before as ``previous``, then
    :meth:`rebalance` in one of them, then leave ``previous`` out again::

        ShardManager({"a": a, "b": b, "c": c}, previous={"a": a, "b": b})

    With ``previous``, every read and write of a key that moves looks at both its shards, from the first moment on, and
    a write moves the key first: nothing is lost, whichever process moves it when. That costs one or two more reads for
    those keys, and :meth:`list_keys` reads the contexts that have moved. A process that knows only the new shards does
    not see what has not moved yet, and what it writes there wins over it. A process that knows only the old ones does
    not see what has moved, and what it writes there is lost. So start no rebalance before all processes know both.

    :param shards: stores by name; they are the caller's, but :meth:`aclose` closes them.
    :param previous: the shards of before, those that are gone included. A shard that stays has the same store in both.
    :raises ConfigurationError: for no shards, names that are no text, what is no store, one store under two names, or
        ``previous`` beside a shard that is itself a manager with ``previous``.
    """

    def __init__(self, shards: Mapping[str, Any], *, previous: Mapping[str, Any] | None = None) -> None:
        self._placement = Placement(shards, previous)
        self._locks = KeyLocks()
        if self.is_changing:
            for name, shard in self._placement.shards.items():
                if isinstance(shard.store, ShardManager) and shard.store.is_changing:
                    # Each would take the other's reservations for its own, and remove them.
                    raise ConfigurationError(
                        f"the shard {name!r} is a ShardManager that has previous itself; rebalance it and leave its "
                        "previous out first"
                    )
        self.expires = all(store.expires for store in self._placement.stores.values())
        self.stamped_as_cache = any(store.stamped_as_cache for store in self._placement.stores.values())

    @property
    def shards(self) -> Mapping[str, ContextStore]:
        """The stores by name, without those that are only in ``previous``."""
        return dict(self._placement.stores)

    @property
    def is_changing(self) -> bool:
        """Whether ``previous`` named other shards."""
        return self._placement.changed

    def shard_of(self, key: Key) -> str:
        """Return the name of the shard that a key belongs to."""
        return self._placement.home_of(encode_key(key)).name

    async def get(self, key: Key) -> Document | None:
        home, former = self._placement.of(encode_key(key))
        return await read_both(key, home, former)

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        self._check_ttl(ttl)
        home = await self._home(key)
        await home.call(home.store.set(key, value, ttl=ttl))

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        home = await self._home(key)
        while True:
            document = await home.call(home.store.update(key, patch, drop_none=drop_none))
            reservation = reserved_by(document)
            if not reservation:
                return document
            # The key was deleted, and a late move reserved it, since it came home: the result is the patch alone.
            document = {name: each for name, each in document.items() if name not in reservation}
            if await home.replace(key, document, expected=reservation):
                return document

    async def delete(self, key: Key) -> None:
        home = await self._home(key)
        await home.call(home.store.delete(key))

    async def list_keys(self) -> list[Any]:
        first, second = self._placement.listing_order()
        listed = await self._ask_all({name: self._placement.shards[name].store.list_keys for name in first})
        keys = {encode_key(key): key for found in listed.values() for key in found}
        if second:
            # A key that was not listed by its former shard any more has been at home since, or is gone.
            listed = await self._ask_all({name: self._placement.shards[name].store.list_keys for name in second})
            arrived = {encode_key(key): key for found in listed.values() for key in found}
            keys.update(await self._held({text: key for text, key in arrived.items() if text not in keys}))
        return list(keys.values())

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        wanted = list(keys)
        if hide_one_another(wanted):
            singly = [(key, await self.get(key)) for key in wanted]
            return {key: each for key, each in singly if each is not None}
        places = {key: self._placement.of(encode_key(key)) for key in wanted}
        found = await self._get_grouped({key: home for key, (home, _) in places.items()})
        moving = {key: former for key, (_, former) in places.items() if former and key not in found}
        if moving:
            for turn in range(max(map(len, moving.values()))):
                found |= await self._get_grouped(
                    {key: former[turn] for key, former in moving.items() if turn < len(former) and key not in found}
                )
            found |= await self._get_grouped({key: places[key][0] for key in moving if key not in found})
        return {key: found[key] for key in wanted if key in found}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        self._check_ttl(ttl)
        pairs = {encode_key(key): (key, value) for key, value in as_pairs(values)}
        for _, value in pairs.values():
            write_document(value)  # so that no shard stores its part when another must refuse
        keys = [key for key, _ in pairs.values()]
        await self._bring_all_home(keys)
        groups = self._grouped(keys)
        await self._ask_all(
            {
                name: _call(
                    self._placement.shards[name].store.set_many,
                    as_values([pairs[encode_key(key)] for key in group]),
                    ttl=ttl,
                )
                for name, group in groups.items()
            }
        )

    async def delete_many(self, keys: Iterable[Key]) -> int:
        listed = list(keys)
        groups = self._grouped(listed)
        await self._bring_all_home(listed)
        removed = await self._ask_all(
            {name: _call(self._placement.shards[name].store.delete_many, group) for name, group in groups.items()}
        )
        return sum(removed.values())

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        self._check_ttl(ttl)
        home = await self._home(key)
        if await home.call(home.store.compare_and_set(key, value, expected=expected, ttl=ttl)):
            return True
        while expected is None:
            present = await home.call(home.store.get(key))
            if present is not None and not is_reservation(present):
                return False
            if await home.call(home.store.compare_and_set(key, value, expected=present, ttl=ttl)):
                return True
        return False

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        home, former = self._placement.of(encode_key(key))
        places: list[Shard] = [home, *former, home] if former else [home]  # as a read does
        for shard in places:
            found = await shard.read_to_move(key)
            if found is not None:
                return found
        return None

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        home = await self._home(key)
        return await home.call(withdraw(home.store, key, expected))

    async def rebalance(self, progress: Callable[[RebalanceProgress], None] | None = None) -> RebalanceProgress:
        """Move every key to the shard it belongs to, and return what was done.

        Reads and writes go on, through this manager and in every process that was told ``previous``. Without
        ``previous`` this manager looks at every shard from this call on until the keys are listed, and at those that
        hold the key until the end; other processes lose what the class describes. Broken off, it is simply called
        again: whenever that happens, a context is in its old shard, its new one, or both. Any number may run at once.
        A moved key keeps what is left of its time to live where both shards can expire keys; a shard that cannot tell
        what is left gives it the new shard's default.

        :param progress: called at the beginning, after every few keys, and at the end.
        :raises ContextStoreError: when a shard fails; it is named.
        """
        with self._placement.searching() as search:
            shards = self._placement.shards
            listed = await self._ask_all({name: each.store.list_keys for name, each in shards.items()})
            total = sum(map(len, listed.values()))
            waiting, arrived = search.take(listed)
            moved = 0
            for start in range(0, len(waiting), _CONCURRENT_MOVES):
                _report(progress, total - len(waiting) + start, total, moved)
                chunk = waiting[start : start + _CONCURRENT_MOVES]
                await _all_of(map(self._home, chunk))
                moved += len(chunk)
            # Clean up after interrupted moves: reservations, and copies that are out of date.
            await self._bring_all_home(arrived)
        return _report(progress, total, total, moved)

    async def _held(self, keys: Mapping[str, Key]) -> dict[str, Key]:
        """Return the keys that hold something, without those that are only reserved."""
        texts = list(keys)
        held: dict[str, Key] = {}
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            if hide_one_another([keys[text] for text in chunk]):
                found = {text: await self._placement.home_of(text).get(keys[text]) for text in chunk}
                held.update({text: keys[text] for text in chunk if found[text] is not None})
            else:
                documents = await self._get_grouped({keys[text]: self._placement.home_of(text) for text in chunk})
                held.update({text: keys[text] for text in chunk if keys[text] in documents})
        return held

    async def _home(self, key: Key) -> Shard:
        """Bring a key home, and return the shard."""
        text = encode_key(key)
        home, former = self._placement.of(text)
        if former:
            async with self._locks.hold((text,)):
                await bring_home(key, home, former)
        return home

    async def _bring_all_home(self, keys: Iterable[Key]) -> None:
        moving = [key for key in keys if self._placement.of(encode_key(key))[1]]
        for start in range(0, len(moving), _CONCURRENT_MOVES):
            await _all_of(map(self._home, moving[start : start + _CONCURRENT_MOVES]))

    def _check_ttl(self, ttl: TTL | None) -> None:
        if not self.expires:
            refuse_ttl(ttl, "not every shard can expire entries")

    def _grouped(self, keys: Iterable[Key]) -> dict[str, list[Key]]:
        groups: dict[str, list[Key]] = {}
        for key in keys:
            groups.setdefault(self.shard_of(key), []).append(key)
        return groups

    async def _get_grouped(self, places: Mapping[Any, Shard]) -> dict[Any, Document]:
        """Read keys, each in its place."""
        groups: dict[str, list[Key]] = {}
        for key, place in places.items():
            groups.setdefault(place.name, []).append(key)
        found = await self._ask_all(
            {name: _call(self._placement.shards[name].store.get_many, group) for name, group in groups.items()}
        )
        documents = ((key, visible(each)) for part in found.values() for key, each in part.items())
        return {key: each for key, each in documents if each is not None}

    async def _ask_all(self, calls: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, T]:
        """Call several shards at once; when some fail, wait for all and raise the first failure."""
        results = await _all_of(self._placement.shards[name].call(call()) for name, call in calls.items())
        return dict(zip(calls, results, strict=True))

    async def aclose(self) -> None:
        await self._ask_all({name: each.store.aclose for name, each in self._placement.shards.items()})


def _call(method: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> Callable[[], Awaitable[T]]:
    return lambda: method(*arguments, **options)


def _report(
    progress: Callable[[RebalanceProgress], None] | None, done: int, total: int, moved: int
) -> RebalanceProgress:
    reached = RebalanceProgress(done, total, moved)
    if progress is not None:
        progress(reached)
    return reached


async def _all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Await all at once; when some fail, wait for the others and raise the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException):
            raise each
    return results  # type: ignore[return-value] # no exception is among them
