"""A fence over any store, seen by this process alone; its event loops and threads share it."""

import math
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent_service.context.documents import accepts_encoded, as_values
from agent_service.context.fences.protocol import Fence
from agent_service.context.interface import ContextStore, Document
from agent_service.context.key_locks import KeyLocks
from agent_service.context.keys import decode_key
from agent_service.core.ttl import NEVER

__all__ = ["LocalFence"]


@dataclass(slots=True)
class _State:
    """Who is under way with one key."""

    writers: set[str] = field(default_factory=set)
    contended: bool = False
    leases: set[str] = field(default_factory=set)


class LocalFence(Fence):
    """Keeps who is under way in memory. See :mod:`.protocol`."""

    def __init__(self, cache: ContextStore) -> None:
        self._cache = cache
        self._accepts_encoded = accepts_encoded(cache)
        self._states: dict[str, _State] = {}
        self._locks = KeyLocks()

    async def begin(self, keys: Collection[str]) -> str:
        token = secrets.token_hex(8)
        async with self._locks.hold(keys):
            for key in keys:
                state = self._states.setdefault(key, _State())
                state.contended = state.contended or bool(state.writers)
                state.leases.clear()
                state.writers.add(token)
            try:
                await self._remove(keys)
            except BaseException:
                self._leave(token, keys)
                raise
        return token

    async def renew(self, token: str, keys: Collection[str]) -> str:  # noqa: ARG002 - it counts until it finishes
        return token

    async def finish(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> None:
        async with self._locks.hold(keys):
            alone = self._leave(token, keys)
            kept = {key: documents[key] for key in keys if key in alone and key in documents}
            for key in keys:
                if key not in alone:
                    self._state(key).leases.clear()
                    self._forget(key)
            await self._remove([key for key in keys if key not in kept])
            await self._store(kept, ttl)

    async def lease(self, keys: Collection[str]) -> str:
        token = secrets.token_hex(8)
        async with self._locks.hold(keys):
            for key in keys:
                state = self._states.setdefault(key, _State())
                if not state.writers:
                    state.leases.add(token)
        return token

    async def fill(self, token: str, keys: Collection[str], documents: Mapping[str, Document], ttl: float) -> int:
        async with self._locks.hold(keys):
            standing = [key for key in keys if token in self._state(key).leases]
            for key in keys:
                self._state(key).leases.discard(token)
                self._forget(key)
            kept = {key: documents[key] for key in standing if key in documents}
            await self._store(kept, ttl)
        return len(kept)

    async def _remove(self, keys: Collection[str]) -> None:
        if keys:
            await self._cache.delete_many([decode_key(key) for key in keys])

    async def _store(self, documents: Mapping[str, Document], ttl: float) -> None:
        if documents:
            pairs = [
                (decode_key(key), each if self._accepts_encoded else dict(each)) for key, each in documents.items()
            ]
            await self._cache.set_many(as_values(pairs), ttl=NEVER if ttl == math.inf else ttl)

    def _state(self, key: str) -> _State:
        return self._states.get(key) or _State()

    def _leave(self, token: str, keys: Collection[str]) -> set[str]:
        """Remove a writer; return the keys that it alone was writing since it began."""
        alone = set()
        for key in keys:
            state = self._state(key)
            if token in state.writers and not state.contended:
                alone.add(key)
            state.writers.discard(token)
            state.contended = state.contended and bool(state.writers)
            self._forget(key)
        return alone

    def _forget(self, key: str) -> None:
        state = self._states.get(key)
        if state is not None and not state.writers and not state.leases:
            del self._states[key]
