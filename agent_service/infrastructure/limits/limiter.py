"""Rate limits on the cache's own Redis.

Why the algorithms are our own and not those of the library ``limits``, which is the one to compare with:

* Its strategies ask a storage of its own, with connections of its own. Here one client owns the connections, and one
  breaker knows whether Redis serves.
* It takes one window after another, so a call that the second one refuses has been charged to the first.
* Its exact strategy, the moving window, writes one item for each unit of weight, and takes the time of the client. The
  others let up to twice the quota pass within a window, around the moment at which one ends.

One script of ours takes all windows or none, by the clock of Redis, in one round trip, at a cost that does not grow
with the weight.
"""

import re
from typing import Any, Final, NamedTuple

from agent_service.core.errors import CacheKeyError, ConfigurationError, RateLimitExceededError, RateLimitValueError
from agent_service.core.keys import check_key
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.fallback.cache import FallbackBackend, FallbackCache
from agent_service.infrastructure.cache.memory.cache import InMemoryCache, MemoryBackend
from agent_service.infrastructure.cache.redis.cache import RedisBackend
from agent_service.infrastructure.cache.table import Entry
from agent_service.infrastructure.limits.rates import Rate, checked_rates
from agent_service.infrastructure.limits.windows import Outcome, TakenWeights
from agent_service.infrastructure.redis.scripts import load_script

__all__ = ["Decision", "RateLimiter", "Remaining"]

_TAKE: Final = load_script("held", "limit_take")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAMESPACE: Final = "limits"


class Remaining(NamedTuple):
    """How much of a rate is left."""

    rate: Rate
    quota: int
    """The weight that is left now."""
    reset_after: float
    """Seconds until all of the quota is back, if nothing more is taken."""


class Decision(NamedTuple):
    """What became of a call."""

    taken: bool
    """Whether the weight was within all rates, and is taken of all of them. If not, it is taken of none."""
    retry_after: float
    """Seconds until the same weight could be taken, if others take none; 0 where it was."""
    remaining: tuple[Remaining, ...]
    """For each rate, the shortest first."""
    level: str
    """"redis": all processes share what was taken; "memory": this process alone."""


class RateLimiter:
    """Lets through so much weight for each key and window, for all processes together.

    ::

        chat = RateLimiter("chat", "20/minute", "1000/day")
        decision = await chat.take("user:7")

    No more than the quota is taken in any stretch of a window's length. What was taken comes back in steps of a
    sixtieth of the window. Time is that of the Redis server. While Redis does not serve, every process keeps the limits
    by itself, and begins with all of the quota; no call fails for it. Without REDIS_URL that is always so.

    :param name: tells limiters apart: up to 64 letters, digits, ``_``, ``.`` and ``-``.
    :param rates: such as "20/minute"; a call has to be within all of them.
    :param cache: whose Redis and memory are used; None: those of the settings.
    :raises ConfigurationError: for a name or rates that cannot be used.
    """

    def __init__(
        self, name: str, *rates: str | Rate, cache: "FallbackCache[Any] | InMemoryCache[Any] | None" = None
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"name must be up to 64 letters, digits, _, . and -, a letter or digit first, got {name!r:.80}"
            )
        self.name = name
        self.rates = checked_rates(rates)
        self.most = min(each.quota for each in self.rates)
        """The largest weight that can ever be taken."""
        self._cache = cache
        self._windows = [number for each in self.rates for number in (each.quota, each.milliseconds, each.slot)]
        self._longest = max(each.milliseconds + each.slot for each in self.rates) / 1000

    async def take(self, key: str, weight: int = 1) -> Decision:
        """Take a weight, if it is within all rates. One round trip to Redis.

        :param key: whose limit it is: a user, a tenant, an address.
        :param weight: how much the call counts, such as its tokens; 0 only looks.
        :raises RateLimitValueError: for a key or weight that cannot be used, and for a weight that no waiting helps.
        """
        name = self._checked(key, weight)
        backend = (self._cache or await open_cache(_NAMESPACE, l1=False)).backend
        if isinstance(backend, FallbackBackend):
            reply = await backend.on_redis(lambda redis: self._ask(redis, name, weight))
            if reply is not None:
                taken, wait, *left = reply[1:]
                outcome = Outcome(bool(taken), wait, tuple(zip(left[::2], left[1::2], strict=True)))
                return self._decision(outcome, "redis")
            backend = backend.memory
        assert isinstance(backend, MemoryBackend)
        return self._decision(self._take_here(backend, name, weight), "memory")

    async def require(self, key: str, weight: int = 1) -> Decision:
        """:meth:`take`, or an error.

        :raises RateLimitExceededError: the weight is not within all rates; its ``retry_after`` says when it would be.
        :raises RateLimitValueError: as :meth:`take` does.
        """
        decision = await self.take(key, weight)
        if not decision.taken:
            raise RateLimitExceededError(
                f"limiter {self.name} has too little left; try again in {decision.retry_after:.3f} seconds",
                retry_after=decision.retry_after,
            )
        return decision

    def _checked(self, key: str, weight: int) -> str:
        """Return the name under which a key is counted."""
        if type(weight) is not int or weight < 0:
            raise RateLimitValueError(f"weight must be an int of at least 0, got {weight!r:.80}")
        if weight > self.most:
            raise RateLimitValueError(
                f"weight must be at most {self.most}, all that limiter {self.name} ever lets through at once, got "
                f"{weight!r:.80}; take it in parts, or raise the rate"
            )
        try:
            return f"{self.name}:{check_key(key)}"
        except CacheKeyError as exc:
            raise RateLimitValueError(str(exc)) from None

    async def _ask(self, redis: RedisBackend, name: str, weight: int) -> list[int]:
        reply: list[int] = await redis.client.run_script(_TAKE, [redis.names.limit(name)], [weight, *self._windows])
        return reply

    def _take_here(self, backend: MemoryBackend, name: str, weight: int) -> Outcome:
        table, outcome = backend.table, Outcome(True, 0, ())

        def change(entry: Entry | None) -> Entry:
            nonlocal outcome
            now = table.monotonic()
            taken = entry.value if entry is not None and type(entry.value) is TakenWeights else TakenWeights()
            outcome = taken.take(self.rates, weight, int(now * 1000))
            size = len(name) + 64 * sum(map(len, taken.by_slot))
            return Entry(name, taken, expires=now + self._longest, created=now, size=size)

        table.update(name, change)
        return outcome

    def _decision(self, outcome: Outcome, level: str) -> Decision:
        left = zip(self.rates, outcome.left, strict=True)
        remaining = tuple([Remaining(rate, quota, reset / 1000) for rate, (quota, reset) in left])
        return Decision(outcome.taken, outcome.wait / 1000, remaining, level)
