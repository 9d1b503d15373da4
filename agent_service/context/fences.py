"""Fences: what keeps a cache from holding what the database no longer says.

Writers and readers of one key, in any number of processes, go by one protocol:

* A writer *begins* before it writes to the database: the cached value goes, and so does every lease. It *finishes*
  afterwards, and its value is cached only if no other writer was under way meanwhile, because then nobody knows whose
  value the database holds; otherwise the key stays out of the cache.
* A reader who misses takes a *lease* before he reads the database, and *fills* the cache with it. There is no lease
  while a writer is under way, and a writer who begins breaks it: a late fill is refused.

So whoever dies between the database and the cache leaves the key out of the cache. Between processes a writer counts as
under way for a lease, which it *renews* while it writes; so it counts for a lease after its death, in which what it had
asked of the database comes to its end. The idea of the lease is that of "Scaling Memcache at Facebook" (NSDI 2013).
"""

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent_service.context.interface import ContextStore, Document, Key
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import encode_key
from agent_service.core.ttl import NEVER

__all__ = ["LEASE_SECONDS", "Fence", "Fenced", "LocalFence"]


LEASE_SECONDS: Final = 10.0
"""How long a writer that dies counts as under way, unless told otherwise."""


class Fence(ABC):
    """The protocol above over one cache. Every method raises ContextStoreError when the cache fails."""

    @abstractmethod
    async def begin(self, keys: Collection[Key]) -> str:
        """Uncache the keys, break their leases, and give the token of a write that is under way."""

    @abstractmethod
    async def renew(self, token: str, keys: Collection[Key]) -> str:
        """Say that a write is still under way; give the token that goes on in place of its own."""

    @abstractmethod
    async def finish(self, token: str, keys: Collection[Key], documents: Mapping[Any, Document], ttl: float) -> None:
        """End a write: cache those keys' documents for ``ttl`` seconds, if it was alone; uncache the others."""

    @abstractmethod
    async def lease(self, keys: Collection[Key]) -> str:
        """Return the token of a load that is under way."""

    @abstractmethod
    async def fill(self, token: str, keys: Collection[Key], documents: Mapping[Any, Document], ttl: float) -> int:
        """End a load of these keys: cache those documents whose lease stands for ``ttl`` seconds; give how many."""


class Fenced(ABC):
    """A store that has a fence of its own, better than one that only this process sees."""

    @abstractmethod
    def fence(self, lease: float = LEASE_SECONDS) -> Fence:
        """Return the fence.

        :param lease: seconds that a writer or reader counts as under way, unless it is renewed.
        """


@dataclass(slots=True)
class _State:
    """Who is under way with one key."""

    writers: set[str] = field(default_factory=set)
    contended: bool = False
    leases: set[str] = field(default_factory=set)


class LocalFence(Fence):
    """A fence over any store, seen by this process alone; its event loops and threads share it."""

    def __init__(self, cache: ContextStore) -> None:
        self._cache = cache
        self._states: dict[str, _State] = {}
        self._locks = KeyLocks()

    async def begin(self, keys: Collection[Key]) -> str:
        token, texts = secrets.token_hex(8), [encode_key(key) for key in keys]
        async with self._locks.hold(texts):
            for text in texts:
                state = self._states.setdefault(text, _State())
                state.contended = state.contended or bool(state.writers)
                state.leases.clear()
                state.writers.add(token)
            try:
                await self._cache.delete_many(keys)
            except BaseException:
                self._leave(token, texts)
                raise
        return token

    async def renew(self, token: str, keys: Collection[Key]) -> str:  # noqa: ARG002 - it counts until it finishes
        return token

    async def finish(self, token: str, keys: Collection[Key], documents: Mapping[Any, Document], ttl: float) -> None:
        texts = {encode_key(key): key for key in keys}
        async with self._locks.hold(texts):
            alone = self._leave(token, texts)
            kept = {key: documents[key] for text, key in texts.items() if text in alone and key in documents}
            for text in texts.keys() - alone:
                self._state(text).leases.clear()
                self._forget(text)
            await self._cache.delete_many([key for key in keys if key not in kept])
            await self._store(kept, ttl)

    async def lease(self, keys: Collection[Key]) -> str:
        token, texts = secrets.token_hex(8), [encode_key(key) for key in keys]
        async with self._locks.hold(texts):
            for text in texts:
                state = self._states.setdefault(text, _State())
                if not state.writers:
                    state.leases.add(token)
        return token

    async def fill(self, token: str, keys: Collection[Key], documents: Mapping[Any, Document], ttl: float) -> int:
        texts = {encode_key(key): key for key in keys}
        async with self._locks.hold(texts):
            standing = {text: key for text, key in texts.items() if token in self._state(text).leases}
            for text in texts:
                self._state(text).leases.discard(token)
                self._forget(text)
            kept = {key: documents[key] for key in standing.values() if key in documents}
            await self._store(kept, ttl)
        return len(kept)

    async def _store(self, documents: Mapping[Any, Document], ttl: float) -> None:
        if documents:
            await self._cache.set_many(documents, ttl=NEVER if ttl == math.inf else ttl)

    def _state(self, text: str) -> _State:
        return self._states.get(text) or _State()

    def _leave(self, token: str, texts: Collection[str]) -> set[str]:
        """Take a writer out; give the keys that it alone was writing since it began."""
        alone = set()
        for text in texts:
            state = self._state(text)
            if token in state.writers and not state.contended:
                alone.add(text)
            state.writers.discard(token)
            state.contended = state.contended and bool(state.writers)
            self._forget(text)
        return alone

    def _forget(self, text: str) -> None:
        state = self._states.get(text)
        if state is not None and not state.writers and not state.leases:
            del self._states[text]
