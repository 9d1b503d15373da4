"""Contexts spread over several stores."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeVar

from agent_service.context.documents import as_pairs, write_document
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import encode_key, hide_one_another
from agent_service.context.lifetimes import refuse_ttl
from agent_service.context.outside import as_store
from agent_service.core.errors import ConfigurationError, ContextStoreError
from agent_service.core.ttl import TTL

__all__ = ["RebalanceProgress", "ShardManager"]

T = TypeVar("T")

_CONCURRENT_MOVES: Final = 16


@dataclass(frozen=True, slots=True)
class RebalanceProgress:
    """How far :meth:`ShardManager.rebalance` is: keys looked at, keys there are, and keys that had to move."""

    done: int
    total: int
    moved: int


class ShardManager(ContextStore):
    """A store over named shards, each of which holds the keys that hash to it.

    A key belongs to the shard of the highest weight, a BLAKE2b digest of the shard's name and the key (rendezvous
    hashing; Thaler and Ravishankar, 1998): the same in every process, and when one shard is added to n, one key in
    n + 1 moves, to it. Routing costs about half a microsecond a shard. A shard's name is what counts, not its place.

    Bulk calls go to all shards at once and are atomic for each shard only. A shard that fails is named in the error;
    a list of keys without its keys is an error, too.

    After shards changed, :meth:`rebalance` moves what must move.

    :param shards: stores by name; they are the caller's, but :meth:`aclose` closes them.
    :raises ConfigurationError: for no shards, names that are no text, what is no store, or one store under two names.
    """

    def __init__(self, shards: Mapping[str, Any]) -> None:
        if not isinstance(shards, Mapping) or not shards:
            raise ConfigurationError("shards must be a mapping of names to stores with at least one entry")
        for name in shards:
            if not isinstance(name, str):
                raise ConfigurationError(f"the name of a shard must be text, not {type(name).__name__}: {name!r:.80}")
        try:
            self._shards = {name: as_store(store, f"shard {name!r}") for name, store in shards.items()}
        except ContextStoreError as exc:
            raise ConfigurationError(str(exc)) from exc
        if len({id(store) for store in self._shards.values()}) < len(shards):
            raise ConfigurationError("one store stands under two names; give each shard a store of its own")
        self._weights = [(name, blake2b(name.encode() + b"\x00", digest_size=8)) for name in sorted(self._shards)]
        self._strays: dict[str, list[tuple[str, Key]]] = {}
        self._locks = KeyLocks()
        self.expires = all(store.expires for store in self._shards.values())

    @property
    def shards(self) -> Mapping[str, ContextStore]:
        """The stores by name."""
        return dict(self._shards)

    def shard_of(self, key: Key) -> str:
        """Give the name of the shard that a key belongs to."""
        return self._route(encode_key(key))

    def _route(self, text: str) -> str:
        data = text.encode()
        best, chosen = b"", self._weights[0][0]
        for name, start in self._weights:
            weight = start.copy()
            weight.update(data)
            digest = weight.digest()
            if digest > best:
                best, chosen = digest, name
        return chosen

    async def get(self, key: Key) -> Document | None:
        name = await self._home(key)
        return await self._named(name, self._shards[name].get(key))

    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        self._check_ttl(ttl)
        name = await self._home(key)
        await self._named(name, self._shards[name].set(key, value, ttl=ttl))

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        name = await self._home(key)
        return await self._named(name, self._shards[name].update(key, patch, drop_none=drop_none))

    async def delete(self, key: Key) -> None:
        name = await self._home(key)
        await self._named(name, self._shards[name].delete(key))

    async def list_keys(self) -> list[Any]:
        listed = await self._all({name: store.list_keys for name, store in self._shards.items()})
        return list({encode_key(key): key for keys in listed.values() for key in keys}.values())

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        wanted = list(keys)
        if hide_one_another(wanted):
            singly = [(key, await self.get(key)) for key in wanted]
            return {key: each for key, each in singly if each is not None}
        groups = await self._grouped(wanted)
        found = await self._all({name: _call(self._shards[name].get_many, group) for name, group in groups.items()})
        return {key: each for part in found.values() for key, each in part.items()}

    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        self._check_ttl(ttl)
        pairs = {encode_key(key): (key, value) for key, value in as_pairs(values)}
        for _, value in pairs.values():
            write_document(value)  # so that no shard stores its part when another must refuse
        groups = await self._grouped(key for key, _ in pairs.values())
        await self._all(
            {
                name: _call(self._shards[name].set_many, [pairs[encode_key(key)] for key in group], ttl=ttl)
                for name, group in groups.items()
            }
        )

    async def delete_many(self, keys: Iterable[Key]) -> int:
        groups = await self._grouped(keys)
        removed = await self._all(
            {name: _call(self._shards[name].delete_many, group) for name, group in groups.items()}
        )
        return sum(removed.values())

    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        self._check_ttl(ttl)
        name = await self._home(key)
        return await self._named(name, self._shards[name].compare_and_set(key, value, expected=expected, ttl=ttl))

    async def rebalance(self, progress: Callable[[RebalanceProgress], None] | None = None) -> RebalanceProgress:
        """Move every key to the shard it belongs to, and give what was done.

        Reads and writes through this manager go on, each moving its own key first. For other processes a key that is
        not moved yet is missing, and what they write to it wins over what is moved. Broken off, it is simply called
        again: whenever that happens, a context is in its old shard, its new one, or both. A moved key gets its new
        shard's default time to live.

        :param progress: called at the beginning, after every few keys, and at the end.
        :raises ContextStoreError: when a shard fails; it is named.
        """
        listed = await self._all({name: store.list_keys for name, store in self._shards.items()})
        for name, keys in listed.items():
            for key in keys:
                if self.shard_of(key) != name:
                    self._strays.setdefault(encode_key(key), []).append((name, key))
        total, moved = sum(map(len, listed.values())), 0
        waiting = list(self._strays)
        try:
            for start in range(0, len(waiting), _CONCURRENT_MOVES):
                _report(progress, total - len(waiting) + start, total, moved)
                chunk = waiting[start : start + _CONCURRENT_MOVES]
                _raise_first(await asyncio.gather(*map(self._settle, chunk), return_exceptions=True))
                moved += len(chunk)
        finally:
            self._strays.clear()
        return _report(progress, total, total, moved)

    async def _settle(self, text: str) -> None:
        """Bring a key home. Copies, then deletes, so that it is always somewhere."""
        async with self._locks.hold((text,)):
            home = self._route(text)
            for source, key in self._strays.get(text, ()):
                document = await self._named(source, self._shards[source].get(key))
                if document is not None:
                    await self._named(home, self._shards[home].compare_and_set(key, document, expected=None))
                    await self._named(source, self._shards[source].delete(key))
            self._strays.pop(text, None)

    async def _home(self, key: Key) -> str:
        text = encode_key(key)
        if text in self._strays:
            await self._settle(text)
        return self._route(text)

    def _check_ttl(self, ttl: TTL | None) -> None:
        if not self.expires:
            refuse_ttl(ttl, "not every shard can expire entries")

    async def _grouped(self, keys: Iterable[Key]) -> dict[str, list[Key]]:
        groups: dict[str, list[Key]] = {}
        for key in keys:
            groups.setdefault(await self._home(key), []).append(key)
        return groups

    async def _all(self, calls: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, T]:
        """Call several shards at once; when some fail, wait for all and raise the first failure."""
        results = await asyncio.gather(
            *(self._named(name, call()) for name, call in calls.items()), return_exceptions=True
        )
        _raise_first(results)
        return dict(zip(calls, results, strict=True))  # type: ignore[arg-type] # no exception is among them

    @staticmethod
    async def _named(name: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except ContextStoreError as exc:
            raise ContextStoreError(f"shard {name!r}: {exc}") from exc
        except Exception as exc:  # of a store that others wrote
            raise ContextStoreError(f"shard {name!r} raised {type(exc).__name__}: {exc}") from exc

    async def aclose(self) -> None:
        await self._all({name: store.aclose for name, store in self._shards.items()})


def _call(method: Callable[..., Awaitable[T]], *arguments: Any, **options: Any) -> Callable[[], Awaitable[T]]:
    return lambda: method(*arguments, **options)


def _report(
    progress: Callable[[RebalanceProgress], None] | None, done: int, total: int, moved: int
) -> RebalanceProgress:
    reached = RebalanceProgress(done, total, moved)
    if progress is not None:
        progress(reached)
    return reached


def _raise_first(results: Collection[Any]) -> None:
    for each in results:
        if isinstance(each, BaseException):
            raise each
