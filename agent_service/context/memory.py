"""Context in this process's memory."""

import math
import threading
from collections.abc import Collection, Iterable, Mapping

from agent_service.context.base import REMOVED, Change, DocumentStore
from agent_service.context.documents import read_document
from agent_service.context.expiry import ExpiryHeap
from agent_service.context.interface import Document, Key
from agent_service.context.keys import encode_key
from agent_service.core.clock import SYSTEM_CLOCK, Clock
from agent_service.core.forking import renew_after_fork
from agent_service.core.ttl import NEVER, TTL

__all__ = ["InMemoryContextStore"]


class InMemoryContextStore(DocumentStore):
    """Keeps contexts until the process ends. Any number of threads and event loops may share it; no call ever waits.

    Nothing is evicted: what does not expire stays. A read costs the decoding of the document, a few microseconds.

    :param ttl: default time to live.
    :param clock: where time comes from.
    """

    expires = True
    never_waits = True

    def __init__(self, *, ttl: TTL = NEVER, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__(ttl=ttl)
        self._clock = clock
        self._renew_lock()
        renew_after_fork(self._renew_lock)
        self._entries: dict[str, tuple[bytes, float]] = {}
        self._deadlines = ExpiryHeap()

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    async def _read(self, texts: Collection[str]) -> Mapping[str, bytes]:
        with self._lock:
            self._expire()
            return {text: self._entries[text][0] for text in texts if text in self._entries}

    async def _write(self, documents: Mapping[str, bytes], ttl: float) -> None:
        with self._lock:
            self._expire()
            deadline = self._clock.monotonic() + ttl
            for text, data in documents.items():
                self._put(text, data, deadline)

    async def _remove(self, texts: Collection[str]) -> int:
        with self._lock:
            self._expire()
            return sum(self._entries.pop(text, None) is not None for text in texts)

    async def _change(self, text: str, change: Change, ttl: float | None) -> None:
        with self._lock:
            self._expire()
            data, deadline = self._entries.get(text, (None, math.inf))
            if ttl is not None:
                deadline = self._clock.monotonic() + ttl
            changed = change(data)
            if changed == REMOVED:
                self._entries.pop(text, None)
            elif changed is not None:
                self._put(text, changed, deadline)

    async def _texts(self) -> Iterable[str]:
        with self._lock:
            self._expire()
            return list(self._entries)

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        text = encode_key(key)
        with self._lock:
            self._expire()
            data, deadline = self._entries.get(text, (None, math.inf))
            left = deadline - self._clock.monotonic()
        if data is None:
            return None
        return read_document(data), NEVER if deadline == math.inf else left

    def _put(self, text: str, data: bytes, deadline: float) -> None:
        self._entries[text] = (data, deadline)
        if deadline != math.inf:
            self._deadlines.add(text, deadline, self._entries)

    def _expire(self) -> None:
        if self._deadlines.heap:
            self._deadlines.expire(self._entries, self._clock.monotonic())
