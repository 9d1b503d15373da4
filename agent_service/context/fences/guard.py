"""What a cache-backed store knows about its cache: whether it serves, and which keys it may hold wrongly.

No failure of a cache reaches a caller, so each failure has to be made up for later. Three facts decide what the cache
is asked:

* **The circuit breaker** (:mod:`agent_service.core.breaker`). An outage opens it, and the cache is asked nothing until
  a probe succeeds.
* **Dirty keys.** A key is dirty from a write that could not remove it from the cache until it is removed. A dirty key
  is not read. The probe removes all of them before the cache is read again; where the cache stayed up, the next load of
  a dirty key removes it first.
* **The blind time.** Beyond 10,000 dirty keys, or 16 MiB of them, they are not remembered one by one. Nothing is read
  then until everything that was cached before has expired.

Every exception counts as a failure of the cache, whoever wrote it. Cancellations and exits pass through, and leave
dirty what they may have left cached.
"""

import logging
import math
from collections import Counter
from collections.abc import Collection
from sys import getsizeof
from typing import Final

from agent_service.context.fences.protocol import Fence
from agent_service.core.breaker import CircuitBreaker
from agent_service.core.clock import Clock
from agent_service.core.errors import (
    ContextStoreError,
    DatabaseUnavailableError,
    RedisRefusedError,
    RedisUnavailableError,
)
from agent_service.core.memo import size_of
from agent_service.core.store_metrics import store_error

__all__ = ["CacheGuard"]

logger = logging.getLogger("agent_service.context")

_OUTAGES = (RedisUnavailableError, RedisRefusedError, DatabaseUnavailableError, OSError)
_MOST_DIRTY: Final = 10_000
_MOST_DIRTY_BYTES: Final = 16 << 20


class CacheGuard:
    """The state described above, of one store. Keys are encoded.

    :param fence: of the cache; it removes dirty keys.
    :param ttl: seconds a cached document lives at most.
    """

    def __init__(self, fence: Fence, *, ttl: float, clock: Clock) -> None:
        self._fence = fence
        self._ttl = ttl
        self._clock = clock
        self.breaker = CircuitBreaker(clock=clock)
        self.dirty: dict[str, None] = {}
        self._dirty_bytes = 0
        self._blind_until = -math.inf
        self._logged: set[type[BaseException]] = set()
        self._told = False
        """Whether the log says that the cache does not serve."""
        self.counters: Counter[str] = Counter(hits=0, misses=0, fills=0, fills_refused=0, cache_errors=0)

    def trusts(self, key: str) -> bool:
        """Whether the cache may be read for a key."""
        return self.breaker.closed and key not in self.dirty and not self.is_blind

    @property
    def is_blind(self) -> bool:
        """Whether something cached may be wrong without being among the dirty keys."""
        return self._blind_until != -math.inf and self._clock.monotonic() < self._blind_until

    def failed(self, exc: Exception) -> None:
        """Count a failure of the cache; an outage opens the breaker."""
        self.counters["cache_errors"] += 1
        error = store_error(exc, "the cache", "use the cache")
        cause = exc if error is not exc else exc.__cause__
        if isinstance(cause, _OUTAGES):
            # The client of our own Redis logs its outages.
            if self.breaker.failed() and not isinstance(cause, RedisUnavailableError):
                self._told = True
                logger.warning("The cache of a context store does not serve; the database serves alone: %s", error)
        elif type(cause or exc) not in self._logged:
            self._logged.add(type(cause or exc))
            logger.warning("The cache of a context store failed; the database serves where it does: %s", error)

    def mark(self, keys: Collection[str]) -> None:
        """Make keys dirty."""
        news = {key: None for key in keys if key not in self.dirty}
        self.dirty.update(news)
        self._dirty_bytes += size_of(news)
        if len(self.dirty) > _MOST_DIRTY or self._dirty_bytes > _MOST_DIRTY_BYTES:
            self.dirty.clear()
            self._dirty_bytes = 0
            self._blind_until = self._clock.monotonic() + self._ttl

    def clean(self, keys: Collection[str]) -> None:
        """Record that keys were removed from the cache."""
        for key in keys:
            if key in self.dirty:
                del self.dirty[key]
                self._dirty_bytes -= getsizeof(key)

    async def clear_dirty(self, keys: Collection[str]) -> None:
        """Remove those of the keys from the cache that are dirty."""
        dirty = [key for key in keys if key in self.dirty]
        if dirty:
            await self._fence.finish("", dirty, {}, self._ttl)
            self.clean(dirty)

    async def serves_again(self, keys: Collection[str]) -> bool:
        """If the wait of the open breaker is over, probe the cache; return whether it serves.

        :param keys: what the caller is about to use; one of them is the probe if none is dirty.
        """
        if not self.breaker.try_probe():
            return False
        removed = list(self.dirty) or list(keys)[:1]
        try:
            await self._fence.finish("", removed, {}, self._ttl)
        except Exception as exc:  # noqa: BLE001 - whatever a cache raises, the database serves
            if isinstance(exc.__cause__ if isinstance(exc, ContextStoreError) else exc, _OUTAGES):
                self.breaker.attempt_failed()
                return False
            # One of the keys is refused; it stays dirty until it is removed by itself.
        except BaseException:
            self.breaker.attempt_failed()
            raise
        else:
            self.clean(removed)
        self.breaker.probe_succeeded()
        self.breaker.close()
        if self._told:
            logger.info("The cache of a context store serves again")
        self._told = False
        return True
