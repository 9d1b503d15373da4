"""The documented face of Redis: keys by name, health and the metrics of every cache."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from agent_service.core.envelope import is_sealed
from agent_service.core.errors import (
    CacheKeyError,
    CacheValueError,
    RedisUnavailableError,
)
from agent_service.core.keys import (
    DEFAULT_NAMESPACE,
    check_key,
    check_keys,
    glob_escape,
    is_internal,
    logical_key,
    root_prefix,
)
from agent_service.core.metrics import CacheMetrics
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.health import check_health, unknown_health
from agent_service.infrastructure.redis.replication import Replication

__all__ = ["RedisManager"]

logger = logging.getLogger("agent_service.redis")

_NOT_CONFIGURED = (
    "REDIS_URL is not set, so there is no Redis to ask; set it, for example REDIS_URL=redis://localhost:6379/0"
)
_NAMED = 5
"""Names in one log line."""

_SWEEP_PAGE = 1000
"""Keys looked at per SCAN while deleting: the server is not held longer than a few milliseconds at a time."""


class RedisManager:
    """Redis as the caches of one event loop use it.

    A *name* is what follows ``{prefix}:`` in a key: entry ``user:123`` of ``get_cache("users")`` has the name
    ``users:user:123``. Patterns are Redis globs over names; a pattern also finds the entries of the default namespace
    by their keys alone (``temp:*`` finds ``default:temp:1``). Names are always returned in full. The bookkeeping of
    caches, under the same prefix, has no name here: no pattern finds it.

    Commands raise :class:`~agent_service.core.errors.RedisOperationError` kinds; without a URL they all raise
    ``RedisUnavailableError``, while the metrics work.

    :param url: see :func:`~agent_service.core.urls.redis.parse_redis_url`; None: there is no Redis.
    :param prefix: first component of every key.
    :param timeout: seconds per Redis operation; scans and deletions by pattern are many operations.
    :param metrics: counters of the caches; None: new ones.
    :param client: used instead of ``url``, and not closed here.
    :param replication: what invalidations of caches wait for; None: for no replica.
    :raises ConfigurationError: for a URL that cannot be used.
    """

    def __init__(
        self,
        url: str | None,
        *,
        prefix: str = "agent_service",
        timeout: float = 0.5,
        metrics: CacheMetrics | None = None,
        client: RedisClient | None = None,
        replication: Replication | None = None,
    ) -> None:
        self.metrics = metrics if metrics is not None else CacheMetrics()
        self.prefix = prefix
        self._root = root_prefix(prefix)
        self._owned = client is None
        if client is None and url is not None:
            client = RedisClient(url, timeout=timeout, metrics=self.metrics, replication=replication)
        self._client = client
        self.is_open = True
        """Whether :meth:`aclose` was not called yet. No property, because every decorated call asks."""

    @property
    def client(self) -> RedisClient:
        """The client below, for commands on physical keys.

        :raises RedisUnavailableError: when no URL was given.
        """
        if self._client is None:
            raise RedisUnavailableError(_NOT_CONFIGURED)
        return self._client

    def for_another_loop(self) -> "RedisManager":
        """Return a manager of the same Redis, prefix and metrics for another event loop; its user closes it.

        :raises RedisUnavailableError: when a client was given that does not tell its address.
        """
        manager = RedisManager(None, prefix=self.prefix, metrics=self.metrics)
        if self._client is not None:
            manager._client = self._client.for_another_loop()
        return manager

    @property
    def is_configured(self) -> bool:
        """Whether there is a Redis at all."""
        return self._client is not None

    @property
    def is_available(self) -> bool:
        """Whether the latest operation reached Redis; False before the first one. No I/O: see :meth:`health_check`."""
        return self._client is not None and self._client.available is True

    @property
    def closed(self) -> bool:
        """Whether :meth:`aclose` was called."""
        return not self.is_open

    async def scan_keys(self, pattern: str, count: int = 100) -> list[str]:
        """Return the names that match, each once, in no order. Reads the whole key space of the server.

        :param count: keys that the server looks at per page.
        :raises CacheKeyError: for a pattern that is no str, empty or too long.
        :raises CacheValueError: for a count below 1.
        """
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise CacheValueError(f"count must be an int of at least 1, got {count!r:.80}")
        names: dict[str, None] = {}
        for match in self._matches(pattern):
            async for page in self.client.scan(match, count):
                for key in page:
                    if (name := logical_key(key, self._root)) is not None and not is_internal(name):
                        names[name] = None
        return list(names)

    async def mget(self, keys: Iterable[str]) -> list[str | None]:
        """Return the strings under the names, in their order; None where there is none.

        A value that is no text counts as missing: other types, as with MGET itself, and bytes, such as what
        ``get_cache()`` wrote. A warning names those and says how to read them.

        :raises CacheKeyError: for a name that cannot be used.
        """
        names = check_keys(keys, name="name")
        values = await self.client.get_many([self._key(name) for name in names])
        texts = [None if value is None else _text(value) for value in values]
        refused = [name for name, value, text in zip(names, values, texts, strict=True) if text is None is not value]
        if refused:
            logger.warning(
                "mget() returns None for %s: no text that mset() stored; read the entries of a cache with "
                "get_cache(namespace).get(key), other bytes with manager.client.get_many()",
                ", ".join([f"{name!r:.80}" for name in refused[:_NAMED]]) + (" and others" * (len(refused) > _NAMED)),
            )
        return texts

    async def mset(self, mapping: Mapping[str, str]) -> bool:
        """Store strings as they are, without expiry; True when done.

        :raises CacheKeyError: for a name that cannot be used.
        :raises CacheValueError: for a value that is no str or has no UTF-8 form, and for what is no mapping. Nothing is
            stored then.
        """
        if not isinstance(mapping, Mapping):
            raise CacheValueError(f"mapping must map names to strings, not {type(mapping).__name__}; pass a dict")
        await self.client.set_many({self._key(name): _bytes(name, value) for name, value in mapping.items()})
        return True

    async def delete_by_pattern(self, pattern: str) -> int:
        """Delete the keys whose names match; return how many there were. Reads the whole key space of the server.

        Keys that others add meanwhile may stay.

        :raises CacheKeyError: for a pattern that is no str, empty or too long.
        """
        return sum([await self._sweep(match) for match in self._matches(pattern)])

    async def _sweep(self, match: bytes) -> int:
        deleted = 0
        async with aclosing(self.client.scan(match, _SWEEP_PAGE)) as pages:
            page = await anext(pages, None)
            while page is not None:  # the next page is read while this one is deleted
                count, page = await asyncio.gather(self.client.unlink(self._named(page)), _following(pages))
                deleted += count
        return deleted

    def _named(self, page: Sequence[bytes]) -> list[bytes]:
        start = len(self._root)
        return [key for key in page if key[start : start + 1] != b"%" or not is_internal(key[start:].decode("latin-1"))]

    def _matches(self, pattern: str) -> list[bytes]:
        root = glob_escape(self._root.decode())
        matches = [f"{root}{check_key(pattern, name='pattern')}"]
        if not pattern.startswith("*"):  # "*x" over whole names already matches "default:" + whatever "*x" matches
            matches.append(f"{root}{DEFAULT_NAMESPACE}:{pattern}")
        return [match.encode() for match in matches]

    def _key(self, name: str) -> bytes:
        if is_internal(check_key(name, name="name")):
            raise CacheKeyError(f"name {name!r:.80} belongs to the bookkeeping of caches; use one without a leading %")
        return self._root + name.encode()

    def get_metrics(self) -> dict[str, Any]:
        """Return the counters of all caches of this loop: ``hit_rate`` (percent of all reads), ``metrics`` by
        ``"{namespace}:{counter}"``, latencies, ``last_reset``, ``uptime_seconds``. The process's own manager adds
        ``stores``: calls, errors and latency of context and state stores, by class.
        """
        return self.metrics.snapshot()

    def get_hit_rate(self, namespace: str = DEFAULT_NAMESPACE) -> float:
        """Return the hit rate of a namespace in percent, 0 to 100; 0.0 before its first read."""
        return self.metrics.hit_rate(namespace)

    async def health_check(self) -> dict[str, Any]:
        """Ask Redis how it is, and whether it permits all that caches need. Never raises.

        The report has ``ok``, ``configured``, ``latency_ms`` (of a PING), ``version``, ``mode`` and ``error``; what is
        unknown is None. ``limits`` says what is lost without commands that are denied and not needed.
        """
        if self._client is None:
            return {**unknown_health(), "error": _NOT_CONFIGURED}
        return await check_health(self._client, self.prefix)

    async def aclose(self) -> None:
        """Close the client, unless it was given. Calling it again does nothing."""
        self.is_open = False
        if self._client is not None and self._owned:
            await self._client.aclose()


async def _following(pages: AsyncIterator[list[bytes]]) -> list[bytes] | None:
    return await anext(pages, None)


def _text(value: bytes) -> str | None:
    """Return the text that mset() stored; None for the entry of a cache and for other bytes."""
    if is_sealed(value):
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _bytes(name: str, value: str) -> bytes:
    if not isinstance(value, str):
        raise CacheValueError(
            f"the value of {name!r:.80} must be a str, not {type(value).__name__}; mset() stores strings as they are, "
            "get_cache().set_many() stores other types"
        )
    try:
        return value.encode()
    except UnicodeEncodeError as exc:
        raise CacheValueError(
            f"the value of {name!r:.80} holds a lone surrogate at position {exc.start}; replace it"
        ) from None
