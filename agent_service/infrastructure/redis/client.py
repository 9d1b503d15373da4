"""One client per event loop: every command of the package goes through it."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from redis.asyncio import Connection, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from agent_service.core.errors import ConfigurationError
from agent_service.core.metrics import CacheMetrics
from agent_service.infrastructure.redis.cluster import ClusterLane
from agent_service.infrastructure.redis.connect import open_lane
from agent_service.infrastructure.redis.joined_reads import JoinedReads
from agent_service.infrastructure.redis.lane import Argument, Command, Lane
from agent_service.infrastructure.redis.operation import Operations
from agent_service.infrastructure.redis.scripts import Script, whole
from agent_service.infrastructure.redis.server import ServerLane
from agent_service.infrastructure.redis.tracking import InvalidationStream
from agent_service.infrastructure.redis.url import RedisTarget, parse_redis_url

__all__ = ["RedisClient"]


class RedisClient:
    """Runs commands on Redis, whatever its topology; bytes go in and bytes come out.

    It connects when first used, in the event loop that uses it, and belongs to that loop. Each operation has
    ``timeout`` seconds for everything: waiting for one of ``max_connections`` slots, connecting, sending and the reply.
    Nothing is ever sent twice. All methods raise only :class:`~agent_service.core.errors.RedisOperationError` kinds
    (and the caller's own cancellation, which costs nobody else his reply):

    * ``RedisUnavailableError``: no server, no answer in time, or a closed client; ``maybe_executed`` tells whether
      the command may have been executed all the same;
    * ``RedisRefusedError``: out of memory, read-only replica, loading, failed save;
    * ``RedisCommandError``: wrong type, wrong arguments, wrong password, no permission.

    :param url: see :func:`~agent_service.infrastructure.redis.url.parse_redis_url`.
    :param timeout: seconds per operation.
    :param max_connections: operations that run at once; further ones wait, first come, first served.
    :param metrics: where durations are counted; None: counters of its own.
    :raises ConfigurationError: for a URL that cannot be used.
    """

    _location: RedisTarget | None = None

    def __init__(
        self, url: str, *, timeout: float = 0.5, max_connections: int = 50, metrics: CacheMetrics | None = None
    ) -> None:
        _check_limits(timeout, max_connections)
        target = self._location = parse_redis_url(url)
        self._set_up(open_lane(target, timeout=timeout), str(target), timeout, max_connections, metrics)

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
        if not isinstance(client, Redis | RedisCluster) or isinstance(client, Pipeline):
            kind = type(client)
            raise ConfigurationError(
                f"client is a {kind.__module__}.{kind.__qualname__}, which cannot be awaited as a client is; give "
                "url=, a RedisClient, or a client of redis.asyncio (Redis or RedisCluster)"
            )
        if client.get_encoder().decode_responses:
            raise ConfigurationError("client decodes replies; build it with decode_responses=False")
        place: Any = client.connection_pool if isinstance(client, Redis) else client
        if Connection(protocol=place.connection_kwargs.get("protocol")).protocol != 2:
            raise ConfigurationError(
                "client speaks RESP3, over which redis-py may reuse a connection that still holds an unread reply; "
                "build it with protocol=2"
            )
        if isinstance(client, Redis):
            max_connections = min(max_connections, place.max_connections)
        self = cls.__new__(cls)
        lane: Lane = (
            ClusterLane(client, owned=False) if isinstance(client, RedisCluster) else ServerLane(client, owned=False)
        )
        self._set_up(lane, "a given client", timeout, max_connections, metrics)
        return self

    def _set_up(
        self, lane: Lane, target: str, timeout: float, max_connections: int, metrics: CacheMetrics | None
    ) -> None:
        self.metrics = metrics if metrics is not None else CacheMetrics()
        self._lane = lane
        self._operations = Operations(target=target, timeout=timeout, latency=self.metrics.redis_latency)
        self._slots = asyncio.Semaphore(max_connections)
        self._reads = JoinedReads(self.get_many)

    @property
    def raw(self) -> Any:
        """The redis-py client itself, on the same pool; what runs on it has no deadline, limit or translation."""
        return self._lane.raw

    @property
    def target(self) -> str:
        """The URL with user name and passwords masked."""
        return self._operations.target

    @property
    def timeout(self) -> float:
        """Seconds that an operation may take."""
        return self._operations.timeout

    @property
    def is_cluster(self) -> bool:
        """Whether keys of one script or transaction must share a slot."""
        return isinstance(self._lane, ClusterLane)

    @property
    def available(self) -> bool | None:
        """Whether the latest operation reached the server; None before the first one. No I/O."""
        return self._operations.available

    @property
    def closed(self) -> bool:
        """Whether :meth:`aclose` was called."""
        return self._operations.closed

    async def execute(self, *command: Argument) -> Any:
        """Run one command and give its reply as RESP2 has it, unconverted: bytes, int, list or None."""
        with self._operations.begin() as operation:
            async with self._slots:
                return await self._lane.execute(operation, command)

    async def get(self, key: bytes) -> bytes | None:
        """Give the string at the key; None when it is missing or no string (what MGET gives).

        Concurrent calls travel together as one MGET.
        """
        return (await self._reads.get((key,)))[0]

    def get_together(self, keys: Sequence[bytes]) -> Awaitable[Sequence[bytes | None]]:
        """:meth:`get` for a few keys that one caller needs at once; what several callers ask for is read once."""
        return self._reads.get(keys)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give the strings at the keys in their order, in one round trip; None for what is missing or no string."""
        if not keys:
            return []
        with self._operations.begin() as operation:
            async with self._slots:
                return await self._lane.get_many(operation, keys)

    async def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store strings without expiry in one round trip; all or none of them on one server, per slot on a cluster."""
        if not values:
            return
        with self._operations.begin() as operation:
            async with self._slots:
                await self._lane.set_many(operation, values)

    async def pipeline(
        self, commands: Sequence[Command], *, atomic: bool = False, wrong_types: bool = False
    ) -> list[Any]:
        """Run commands in one round trip and give their replies.

        The first error among the replies is raised after all were read; without ``atomic`` the other commands were
        executed. A script that the server does not know yet runs after the other commands.

        :param atomic: run them as one transaction (MULTI); on a cluster all keys must then share a slot. A command that
            fails while the transaction runs does not undo the others.
        :param wrong_types: give None where a command met a key that holds something else than it expects.
        """
        if not commands:
            return []
        with self._operations.begin() as operation:
            async with self._slots:
                replies = await self._lane.pipeline(operation, commands, atomic=atomic)
                unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if unknown:
                    again = [whole(commands[place]) for place in unknown]
                    for place, reply in zip(
                        unknown, await self._lane.pipeline(operation, again, atomic=atomic), strict=True
                    ):
                        replies[place] = reply
            for number, reply in enumerate(replies, start=1):
                if isinstance(reply, Exception):
                    if wrong_types and str(reply).startswith("WRONGTYPE"):
                        replies[number - 1] = None
                        continue
                    reply.args = (f"{reply} (command {number} of {len(replies)} of the pipeline)",)
                    raise reply
            return replies

    async def run_script(self, script: Script, keys: Sequence[bytes] = (), args: Sequence[Argument] = ()) -> Any:
        """Run a Lua script by its digest; where the server does not know it yet, send it whole."""
        with self._operations.begin() as operation:
            async with self._slots:
                try:
                    return await self._lane.execute(operation, (b"EVALSHA", script.digest, len(keys), *keys, *args))
                except NoScriptError:
                    return await self._lane.execute(operation, (b"EVAL", script.source, len(keys), *keys, *args))

    async def scan(self, match: bytes, count: int = 1000) -> AsyncGenerator[list[bytes], None]:
        """Give the keys that match a Redis glob, page by page, from all primaries.

        A key that exists from the first to the last page is given at least once, perhaps more often; pages may be
        empty. Each page is an operation with its own deadline. The whole key space is read, matching or not.

        :param count: keys that the server looks at per page; larger pages block it longer (1000: about 0.3 ms).
        """
        cursor = None
        while True:
            with self._operations.begin() as operation:
                async with self._slots:
                    cursor, keys = await self._lane.scan_page(operation, cursor, match, count)
            yield keys
            if cursor is None:
                return

    async def unlink(self, keys: Sequence[bytes]) -> int:
        """Delete keys, the memory being freed in the background; give how many there were."""
        if not keys:
            return 0
        with self._operations.begin() as operation:
            async with self._slots:
                return await self._lane.unlink(operation, keys)

    async def settle(self) -> None:
        """See to it that commands which were given up, for want of an answer in time, will not run any more.

        At the moment it returns there are none. On a Redis Cluster this does nothing.
        """
        with self._operations.begin() as operation:
            async with self._slots:
                await self._lane.settle(operation)

    def invalidations(
        self,
        *,
        prefix: str,
        on_invalidate: Callable[[Sequence[bytes]], None],
        on_flush: Callable[[], None],
        max_staleness: float = 1.0,
    ) -> InvalidationStream:
        """Make a stream that tells which keys change; see :class:`InvalidationStream`. The caller starts and closes it.

        :raises ConfigurationError: for a ``max_staleness`` that cannot be used, and for a client made by :meth:`over`,
            which does not know where its Redis is.
        """
        if self._location is None:
            raise ConfigurationError(
                "invalidations need a client made from a URL; a given client does not tell its own"
            )
        return InvalidationStream(
            self._location,
            self.pipeline,
            prefix=prefix,
            on_invalidate=on_invalidate,
            on_flush=on_flush,
            max_staleness=max_staleness,
            timeout=self._operations.timeout,
        )

    async def ping(self) -> None:
        """Make sure that Redis answers."""
        await self.execute(b"PING")

    async def aclose(self) -> None:
        """Refuse new operations, wait for the running ones (at most ``timeout`` seconds) and close the connections.

        A client that was given to :meth:`over` stays open. Calling it again does nothing.
        """
        if self.closed:
            return
        try:
            await self._operations.close()
        finally:
            with suppress(RedisError, OSError):  # of a server that hangs or is gone
                await self._lane.aclose()


def _check_limits(timeout: float, max_connections: int) -> None:
    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout must be a finite number of seconds above 0, got {timeout!r:.80}")
    if max_connections < 1:
        raise ConfigurationError(f"max_connections must be at least 1, got {max_connections!r:.80}")
