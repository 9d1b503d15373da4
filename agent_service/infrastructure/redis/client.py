"""One client per event loop: every command of the package goes through it."""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self
from weakref import WeakSet

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from agent_service.core.availability import Availability
from agent_service.core.errors import ConfigurationError, RedisOperationError, RedisUnavailableError
from agent_service.core.metrics import CacheMetrics
from agent_service.core.tracing import Server
from agent_service.core.urls.redis import RedisTarget, parse_redis_url
from agent_service.infrastructure.redis.commands import RedisCommands
from agent_service.infrastructure.redis.operation import UNKNOWN, Operations
from agent_service.infrastructure.redis.replication import Replication, check_replication
from agent_service.infrastructure.redis.tracking.notifications import StreamNotifications
from agent_service.infrastructure.redis.tracking.stream import InvalidationStream
from agent_service.infrastructure.redis.transport.base import Transport
from agent_service.infrastructure.redis.transport.connect import open_transport
from agent_service.infrastructure.redis.transport.given import transport_over

__all__ = ["RedisClient"]


class RedisClient(RedisCommands):
    """Runs commands on Redis, whatever its topology; bytes go in and bytes come out.

    It connects when first used, in the event loop that uses it, and belongs to that loop. ``max_connections``
    operations run at once, the others wait their turn. From its turn on an operation has ``timeout`` seconds for
    connecting, sending and the reply, not counting time in which this process was too busy to read it. The wait before
    is no sign of an outage. It ends with ``RedisUnavailableError`` when the server has answered no operation for
    ``timeout`` seconds, and with ``RedisBusyError`` after the ``patience`` (seconds) that a method was given.
    Nothing is ever sent twice. A caller that is cancelled costs no other caller a reply. Beside that cancellation all
    methods raise only kinds of :class:`~agent_service.core.errors.RedisOperationError`:

    * ``RedisUnavailableError``: no server, no answer in time, or a closed client; ``maybe_executed`` tells whether
      the command may have been executed all the same. ``RedisBusyError`` is the kind for a turn that never came;
    * ``RedisRefusedError``: out of memory, read-only replica, loading, failed save;
    * ``RedisCommandError``: wrong type, wrong arguments; its kind ``RedisDeniedError``: a command, key or login that
      the server denies this user.

    :param url: see :func:`~agent_service.core.urls.redis.parse_redis_url`.
    :param timeout: seconds per operation, from its turn on.
    :param max_connections: operations that run at once; further ones wait, first come, first served.
    :param metrics: where durations are counted; None: counters of its own.
    :param replication: what invalidations of caches wait for; None: for no replica.
    :raises ConfigurationError: for a URL that cannot be used, and for a replication that its Redis does not support.
    """

    replication: Replication | None = None
    _url: str | None = None
    _location: RedisTarget | None = None

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 0.5,
        max_connections: int = 50,
        metrics: CacheMetrics | None = None,
        replication: Replication | None = None,
    ) -> None:
        _check_limits(timeout, max_connections)
        target = self._location = _placed(parse_redis_url(url))
        if replication is not None:
            check_replication(replication, target, timeout)
            self.replication = replication
        self._url = url
        self._initialise(open_transport(target, timeout=timeout), target, timeout, max_connections, metrics)

    @classmethod
    def over(
        cls,
        client: Redis | RedisCluster,
        *,
        timeout: float = 0.5,
        max_connections: int = 50,
        metrics: CacheMetrics | None = None,
    ) -> Self:
        """Use a redis-py asyncio client that the caller owns and closes.

        It is built with ``protocol=2`` and does not decode replies. No more operations run at once than its pool has
        connections.

        :raises ConfigurationError: when it is none, decodes replies, or speaks RESP3.
        """
        _check_limits(timeout, max_connections)
        transport, most = transport_over(client)
        self = cls.__new__(cls)
        self._initialise(transport, None, timeout, min(max_connections, most), metrics)
        return self

    def _initialise(
        self,
        transport: Transport,
        location: RedisTarget | None,
        timeout: float,
        max_connections: int,
        metrics: CacheMetrics | None,
    ) -> None:
        self.metrics = metrics if metrics is not None else CacheMetrics()
        self._max_connections = max_connections
        self._streams: WeakSet[InvalidationStream] = WeakSet()
        operations = Operations(
            target="a given client" if location is None else str(location),
            server=UNKNOWN if location is None else _server(location),
            timeout=timeout,
            slots=max_connections,
            latency=self.metrics.redis_latency,
            errors=self.metrics.redis_errors,
        )
        super().__init__(transport, operations)

    def for_another_loop(self) -> "RedisClient":
        """Return a client of the same Redis and limits for another event loop; its user closes it.

        :raises RedisUnavailableError: for a client made by :meth:`over`, whose Redis has no known address.
        """
        if self._url is None:
            raise RedisUnavailableError(
                "this Redis client was given and belongs to the event loop that made it; its address is not known on "
                "another loop. Await on that loop (runtime.bridge does it for threads), or name the Redis by its URL"
            )
        return RedisClient(
            self._url,
            timeout=self.timeout,
            max_connections=self._max_connections,
            metrics=self.metrics,
            replication=self.replication,
        )

    @property
    def raw(self) -> Any:
        """The redis-py client itself, on the same pool; what runs on it has no deadline, limit or translation."""
        return self._transport.raw

    @property
    def availability(self) -> Availability:
        """Whether its Redis is away, as the log tells it."""
        return self._operations.availability

    @property
    def target(self) -> str:
        """The URL with user name and passwords masked."""
        return self._operations.target

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take, once it has its turn."""
        return self._operations.timeout

    @property
    def is_cluster(self) -> bool:
        """Whether keys of one script or transaction must share a slot."""
        return self._transport.is_cluster

    @property
    def available(self) -> bool | None:
        """Whether the latest operation reached the server; None before the first one. No I/O."""
        return self._operations.available

    @property
    def running(self) -> int:
        """How many operations hold a connection now."""
        return self._operations.slots.held

    @property
    def waiting(self) -> int:
        """How many operations wait for a connection now."""
        return len(self._operations.slots.waiting)

    @property
    def closed(self) -> bool:
        """Whether :meth:`aclose` was called."""
        return self._operations.closed

    def invalidations(
        self,
        *,
        prefix: str,
        on_invalidate: Callable[[Sequence[bytes]], None],
        on_flush: Callable[[], None],
        max_staleness: float = 1.0,
    ) -> InvalidationStream:
        """Return a stream that tells which keys change; see :class:`InvalidationStream`. The caller starts it, and
        closes it unless it is to end with this client.

        :raises ConfigurationError: for a ``max_staleness`` that cannot be used, and for a client made by :meth:`over`,
            which does not know where its Redis is.
        :raises RedisUnavailableError: when the client is closed.
        """
        if self.closed:
            raise RedisUnavailableError(f"The client of {self.target} was closed; make a new one")
        stream = InvalidationStream(
            self._known_location("invalidations"),
            self.pipeline,
            is_served=self._is_served,
            prefix=prefix,
            on_invalidate=on_invalidate,
            on_flush=on_flush,
            max_staleness=max_staleness,
            timeout=self.timeout,
        )
        self._streams.add(stream)
        return stream

    async def _is_served(self) -> bool:
        """Whether Redis answers now; it is not asked during an outage, whose end its next operation finds."""
        if self.availability.away:
            return False
        try:
            await self.ping()
        except RedisOperationError:
            return False
        return True

    def notifications(self, key: bytes, on_change: Callable[[], None]) -> StreamNotifications:
        """Return what calls back when a stream gets an entry; see :class:`StreamNotifications`. The caller starts and
        closes it.

        :raises ConfigurationError: for a client made by :meth:`over`, which does not know where its Redis is.
        """
        return StreamNotifications(self._known_location("notifications"), key, on_change, timeout=self.timeout)

    def _known_location(self, needed_by: str) -> RedisTarget:
        if self._location is None:
            raise ConfigurationError(f"{needed_by} need a client made from a URL; a given client does not tell its own")
        return self._location

    async def aclose(self) -> None:
        """Refuse new operations, wait for the others (at most twice ``timeout`` seconds) and close the connections.

        Streams of invalidations end at once.

        A client that was given to :meth:`over` stays open. Calling it again does nothing.
        """
        if self.closed:
            return
        try:
            await asyncio.gather(self._operations.close(), *(each.aclose() for each in self._streams))
        finally:
            with suppress(RedisError, OSError):  # of a server that hangs or is gone
                await self._transport.aclose()


def _server(target: RedisTarget) -> Server:
    """Return where Redis is, for traces and metrics; which node serves is not known of several."""
    if target.path is not None:
        return Server("redis", str(target.db), target.path)
    address = target.addresses[0] if target.topology == "single" else (None, None)
    return Server("redis", str(target.db), *address)


def _placed(target: RedisTarget) -> RedisTarget:
    """Return the target with the place of its server, if that is embedded; see :func:`...embedded.place.placed`."""
    if not target.embedded:
        return target
    from agent_service.infrastructure.redis.embedded.place import placed  # noqa: PLC0415 - others do not pay for it

    return placed(target)


def _check_limits(timeout: float, max_connections: int) -> None:
    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout must be a finite number of seconds above 0, got {timeout!r:.80}")
    if max_connections < 1:
        raise ConfigurationError(f"max_connections must be at least 1, got {max_connections!r:.80}")
