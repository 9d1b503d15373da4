"""Passing on what Redis pushes: one stream of changed keys, for the copies of all namespaces of a prefix."""

import math
import time
from collections.abc import Sequence

from agent_service.core.keys import root_prefix
from agent_service.infrastructure.cache.near.copies import NearCopies
from agent_service.infrastructure.cache.redis.names import EntryNames
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, TOKEN_KIND, Tokens
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.tracking.stream import TrackingState

__all__ = ["NearFeed"]


class NearFeed:
    """Keeps the copies of several namespaces coherent with Redis.

    A copy is never served later than ``max_staleness`` after its entry was changed in Redis, by whatever means and
    whatever happens to the connection. With a server that cannot push, which is logged as a warning, copies live for
    ``max_staleness`` seconds at most instead, which keeps the same bound. It needs one more connection to each server.

    :param client: made from a URL; not closed by this object.
    :param prefix: first component of every physical key.
    :param max_staleness: seconds.
    :raises ConfigurationError: for a client that was given its connections, and for an unusable bound.
    """

    def __init__(self, client: RedisClient, *, prefix: str = "agent_service", max_staleness: float = 1.0) -> None:
        self.prefix = prefix
        self.max_staleness = max_staleness
        self._root = root_prefix(prefix)
        self._entries: dict[bytes, NearCopies] = {}
        self._tokens: dict[bytes, tuple[Tokens, NearCopies]] = {}
        self._stream = client.invalidations(
            prefix=prefix, on_invalidate=self._changed, on_flush=self._flush, max_staleness=max_staleness
        )

    def watch(self, names: EntryNames, tokens: Tokens, copies: NearCopies) -> None:
        """Tell ``copies`` what changes in a namespace from now on."""
        self._entries[names.prefix] = copies
        self._stream.add_prefix(names.prefix)
        for prefix in tokens.prefixes:
            self._tokens[prefix] = (tokens, copies)
            self._stream.add_prefix(prefix)

    def start(self) -> None:
        """Begin to listen, in the running event loop. Calling it again does nothing."""
        self._stream.start()

    def clock(self) -> float:
        """Monotonic seconds; infinity while copies may not be served."""
        now = time.monotonic()
        if now < self._stream.trusted_until or not self._stream.supported:
            return now
        return math.inf

    def longest(self) -> float:
        """Seconds that a copy may live at most."""
        return math.inf if self._stream.supported else self.max_staleness

    def state(self) -> TrackingState:
        """How the stream stands, for metrics."""
        return self._stream.state

    def _changed(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            end = key.find(b":", len(self._root)) + 1 if key.startswith(self._root) else 0
            copies = self._entries.get(key[:end])
            if copies is not None:
                copies.drop((key[end:].decode(errors="replace"),))
            else:
                self._token_changed(key)

    def _token_changed(self, key: bytes) -> None:
        start = key.find(TOKEN_KIND)
        found = self._tokens.get(key[: key.find(b"}", start) + 1]) if start >= 0 else None
        if found is None:
            return
        tokens, copies = found
        name = tokens.name(key)
        if name == NAMESPACE:
            copies.drop_all()
        elif name is not None:
            copies.drop_tags((name,))

    def _flush(self) -> None:
        for copies in self._entries.values():
            copies.drop_all()

    async def aclose(self) -> None:
        """Serve no copy any more, and close the connection."""
        await self._stream.aclose()
        self._flush()
