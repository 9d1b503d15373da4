"""One client per event loop: every command of the package goes through it."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self
from weakref import WeakSet

from redis.asyncio import Connection, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError, ResponseError

from agent_service.core.errors import ConfigurationError, RedisRefusedError, RedisUnavailableError
from agent_service.core.metrics import CacheMetrics
from agent_service.core.urls.redis import RedisTarget, parse_redis_url
from agent_service.infrastructure.redis.denials import denial
from agent_service.infrastructure.redis.errors import translate
from agent_service.infrastructure.redis.joined_reads import JoinedReads
from agent_service.infrastructure.redis.operation import Operation, Operations
from agent_service.infrastructure.redis.replication import Confirmation, Replication, check_replication
from agent_service.infrastructure.redis.scripts import Script
from agent_service.infrastructure.redis.substitutes import Substitutes
from agent_service.infrastructure.redis.tracking.notifications import StreamNotifications
from agent_service.infrastructure.redis.tracking.stream import InvalidationStream
from agent_service.infrastructure.redis.transport.base import MAX_KEYS_PER_COMMAND, Argument, Command, Transport
from agent_service.infrastructure.redis.transport.cluster import ClusterTransport
from agent_service.infrastructure.redis.transport.connect import open_transport
from agent_service.infrastructure.redis.transport.server import ServerTransport

__all__ = ["RedisClient"]


class RedisClient:
    """Runs commands on Redis, whatever its topology; bytes go in and bytes come out.

    It connects when first used, in the event loop that uses it, and belongs to that loop. ``max_connections``
    operations run at once, the others wait their turn. From its turn on an operation has ``timeout`` seconds for
    connecting, sending and the reply, not counting time in which this process was too busy to read it. The wait before
    is no sign of an outage. It ends with ``RedisUnavailableError`` where the server has answered nobody for ``timeout``
    seconds, and where a method was given ``patience`` (seconds) with ``RedisBusyError`` when that is over.
    Nothing is ever sent twice. All methods raise only :class:`~agent_service.core.errors.RedisOperationError` kinds
    (and the caller's own cancellation, which costs nobody else his reply):

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
    :raises ConfigurationError: for a URL that cannot be used, and for a replication that it cannot give.
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
        target = self._location = parse_redis_url(url)
        if replication is not None:
            check_replication(replication, target, timeout)
            self.replication = replication
        self._url = url
        self._set_up(open_transport(target, timeout=timeout), str(target), timeout, max_connections, metrics)

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
        transport: Transport = (
            ClusterTransport(client, owned=False)
            if isinstance(client, RedisCluster)
            else ServerTransport(client, owned=False)
        )
        self._set_up(transport, "a given client", timeout, max_connections, metrics)
        return self

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

    def _set_up(
        self, transport: Transport, target: str, timeout: float, max_connections: int, metrics: CacheMetrics | None
    ) -> None:
        self.metrics = metrics if metrics is not None else CacheMetrics()
        self._max_connections = max_connections
        self._transport = transport
        self._operations = Operations(
            target=target, timeout=timeout, slots=max_connections, latency=self.metrics.redis_latency
        )
        self._streams: WeakSet[InvalidationStream] = WeakSet()
        self._reads = JoinedReads(self.get_many)
        self._impatient_reads = JoinedReads(partial(self.get_many, patience=timeout))
        self.substitutes = Substitutes()

    @property
    def raw(self) -> Any:
        """The redis-py client itself, on the same pool; what runs on it has no deadline, limit or translation."""
        return self._transport.raw

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
        return isinstance(self._transport, ClusterTransport)

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
        async with self._operations.begin() as operation:
            operation.command = command
            return await self._transport.execute(operation, command)

    async def get(self, key: bytes) -> bytes | None:
        """Return the string at the key; None when it is missing or no string (what MGET gives).

        Concurrent calls travel together as one MGET.
        """
        return (await self._reads.get((key,)))[0]

    def get_together(self, keys: Sequence[bytes], *, patient: bool = True) -> Awaitable[Sequence[bytes | None]]:
        """:meth:`get` for a few keys that one caller needs at once; what several callers ask for is read once.

        :param patient: whether the wait for a turn may take longer than ``timeout``.
        """
        return (self._reads if patient else self._impatient_reads).get(keys)

    async def get_many(self, keys: Sequence[bytes], *, patience: float | None = None) -> list[bytes | None]:
        """Return the strings at the keys in their order, in one round trip; None for what is missing or no string."""
        if not keys:
            return []
        async with self._operations.begin(patience) as operation:
            operation.command = (b"MGET", *keys)
            return await self._transport.get_many(operation, keys)

    async def set_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store strings without expiry in one round trip; all or none of them on one server, per slot on a cluster."""
        if not values:
            return
        async with self._operations.begin() as operation:
            operation.command = (b"MSET", *values)
            await self._transport.set_many(operation, values)

    async def pipeline(
        self,
        commands: Sequence[Command],
        *,
        atomic: bool = False,
        wrong_types: bool = False,
        denied: bool = False,
        patience: float | None = None,
        confirmation: Confirmation | None = None,
    ) -> list[Any]:
        """Run commands in one round trip and give their replies.

        The first error among the replies is raised after all were read; without ``atomic`` the other commands were
        executed. A script that the server does not know yet, and a command that it takes in another form only, runs
        after the other commands.

        :param atomic: run them as one transaction (MULTI); on a cluster all keys must then share a slot. A command that
            fails while the transaction runs does not undo the others.
        :param wrong_types: give None where a command met a key that holds something else than it expects.
        :param denied: give the :class:`~agent_service.core.errors.RedisDeniedError` of a command that the server denies
            as its reply.
        :param patience: seconds to wait for a turn; None: as long as the server answers others.
        :param confirmation: is told how many replicas have confirmed the commands; not with ``atomic``.
        """
        if not commands:
            return []
        if self.substitutes:
            commands = [self.substitutes.before(each) for each in commands]
        async with self._operations.begin(patience) as operation:
            replies = await self._send(operation, commands, confirmation, atomic=atomic)
            again = {
                place: other
                for place, reply in enumerate(replies)
                if isinstance(reply, ResponseError)
                and (other := self.substitutes.after(commands[place], reply)) is not None
            }
            if again:
                later = await self._send(operation, list(again.values()), confirmation, atomic=atomic)
                for place, reply in zip(again, later, strict=True):
                    if self.substitutes.accept(commands[place], replies[place], reply):
                        replies[place] = reply
            for number, reply in enumerate(replies, start=1):
                if isinstance(reply, Exception):
                    if denied and (error := denial(reply, commands[number - 1])) is not None:
                        replies[number - 1] = error
                        continue
                    if wrong_types and str(reply).startswith("WRONGTYPE"):
                        replies[number - 1] = None
                        continue
                    operation.command = commands[number - 1]
                    reply.args = (f"{reply} (command {number} of {len(replies)} of the pipeline)",)
                    raise reply
            return replies

    async def _send(
        self, operation: Operation, commands: Sequence[Command], confirmation: Confirmation | None, *, atomic: bool
    ) -> list[Any]:
        if confirmation is None:
            return await self._transport.pipeline(operation, commands, atomic=atomic)
        waits = confirmation.commands
        replies = await self._transport.pipeline(operation, [*commands, *waits], atomic=False)
        for command, reply in zip(waits, replies[-len(waits) :], strict=True):
            if isinstance(reply, Exception):
                if isinstance(translate(reply, sent=True), RedisRefusedError):
                    confirmation.note(0)  # no memory is left for the mark: the rest was done all the same
                    break
                operation.command = command
                raise reply
        else:
            confirmation.note(int(replies[-1]))
        return replies[: len(commands)]

    async def run_script(self, script: Script, keys: Sequence[bytes] = (), args: Sequence[Argument] = ()) -> Any:
        """Run a Lua script by its digest; where the server does not know it yet, send it whole."""
        async with self._operations.begin() as operation:
            command = script.command(keys, args)
            operation.command = command = self.substitutes.before(command) if self.substitutes else command
            try:
                return await self._transport.execute(operation, command)
            except ResponseError as exc:
                other = self.substitutes.after(command, exc)
                if other is None:
                    raise
                operation.command = other
                reply = await self._transport.execute(operation, other)
                self.substitutes.accept(command, exc, reply)
                return reply

    async def scan(self, match: bytes, count: int = 1000) -> AsyncGenerator[list[bytes], None]:
        """Return the keys that match a Redis glob, page by page, from all primaries.

        A key that exists from the first to the last page is given at least once, perhaps more often; pages may be
        empty. Each page is an operation with its own deadline. The whole key space is read, matching or not.

        :param count: keys that the server looks at per page; larger pages block it longer (1000: about 0.3 ms).
        """
        cursor = None
        while True:
            async with self._operations.begin() as operation:
                operation.command = (b"SCAN",)
                cursor, keys = await self._transport.scan_page(operation, cursor, match, count)
            yield keys
            if cursor is None:
                return

    async def unlink(self, keys: Sequence[bytes], *, confirmation: Confirmation | None = None) -> int:
        """Delete keys, the memory being freed in the background; give how many there were.

        :param confirmation: is told how many replicas have confirmed it.
        """
        if not keys:
            return 0
        if confirmation is not None:
            starts = range(0, len(keys), MAX_KEYS_PER_COMMAND)
            commands: list[Command] = [("UNLINK", *keys[start : start + MAX_KEYS_PER_COMMAND]) for start in starts]
            return sum(await self.pipeline(commands, confirmation=confirmation))
        async with self._operations.begin() as operation:
            name = b"DEL" if "UNLINK" in self.substitutes.losses else b"UNLINK"
            operation.command = (name, *keys)
            try:
                return await self._transport.delete(operation, name, keys)
            except ResponseError as exc:
                if self.substitutes.after(operation.command, exc) is None:
                    raise
                count = await self._transport.delete(operation, b"DEL", keys)
                self.substitutes.accept(operation.command, exc, count)
                return count

    async def settle(self) -> None:
        """See to it that commands which were given up, for want of an answer in time, will not run any more.

        At the moment it returns there are none. On a Redis Cluster this does nothing, nor on a server that does not
        permit it, which is said once.
        """
        async with self._operations.begin() as operation:
            lacking = await self._transport.settle(operation)
        if lacking is not None:
            self.substitutes.lose(lacking)

    def invalidations(
        self,
        *,
        prefix: str,
        on_invalidate: Callable[[Sequence[bytes]], None],
        on_flush: Callable[[], None],
        max_staleness: float = 1.0,
    ) -> InvalidationStream:
        """Make a stream that tells which keys change; see :class:`InvalidationStream`. The caller starts it, and closes
        it unless it is to end with this client.

        :raises ConfigurationError: for a ``max_staleness`` that cannot be used, and for a client made by :meth:`over`,
            which does not know where its Redis is.
        :raises RedisUnavailableError: when the client is closed.
        """
        if self.closed:
            raise RedisUnavailableError(f"The client of {self.target} was closed; make a new one")
        if self._location is None:
            raise ConfigurationError(
                "invalidations need a client made from a URL; a given client does not tell its own"
            )
        stream = InvalidationStream(
            self._location,
            self.pipeline,
            prefix=prefix,
            on_invalidate=on_invalidate,
            on_flush=on_flush,
            max_staleness=max_staleness,
            timeout=self._operations.timeout,
        )
        self._streams.add(stream)
        return stream

    def notifications(self, key: bytes, on_change: Callable[[], None]) -> StreamNotifications:
        """Return what calls back when a stream gets an entry; see :class:`StreamNotifications`. The caller starts and
        closes it.

        :raises ConfigurationError: for a client made by :meth:`over`, which does not know where its Redis is.
        """
        if self._location is None:
            raise ConfigurationError(
                "notifications need a client made from a URL; a given client does not tell its own"
            )
        return StreamNotifications(self._location, key, on_change, timeout=self._operations.timeout)

    async def ping(self) -> None:
        """Make sure that Redis answers."""
        await self.execute(b"PING")

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


def _check_limits(timeout: float, max_connections: int) -> None:
    if not 0 < timeout < math.inf:
        raise ConfigurationError(f"timeout must be a finite number of seconds above 0, got {timeout!r:.80}")
    if max_connections < 1:
        raise ConfigurationError(f"max_connections must be at least 1, got {max_connections!r:.80}")
