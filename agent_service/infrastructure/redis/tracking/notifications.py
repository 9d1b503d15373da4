"""Notifications by a stream: a blocking read waits on the server for new entries, instead of polling.

A stream is read from a position, so no entry is missed that is added while a connection is lost. It is a key, so the
right to the keys of a prefix is enough (a channel needs a right of its own since Redis 7).
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from agent_service.core.backoff import Backoff
from agent_service.core.errors import RedisCommandError
from agent_service.core.milliseconds import to_milliseconds
from agent_service.core.turns import Turns
from agent_service.core.urls.redis import RedisTarget
from agent_service.infrastructure.redis.errors import is_translatable, translate
from agent_service.infrastructure.redis.tracking.primaries import Primary, find_primaries
from agent_service.infrastructure.redis.tracking.push_connection import PushConnection, PushConnector
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["StreamNotifications"]

logger = logging.getLogger("agent_service.redis")

_BLOCK: Final = 10.0
"""Seconds that one read waits on the server; its answer proves that the connection still works."""
_LOST_PAUSES: Final = (0.05, 1.0)
"""The first and the longest pause, in seconds, before a lost connection is opened again."""
_REFUSED_PAUSES: Final = (1.0, 60.0)


class StreamNotifications:
    """Calls back when a stream gets an entry, and when that can no longer, or again, be relied on.

    It belongs to the event loop that starts it, and costs one connection and, while nothing happens, a command every 10
    seconds. There may be one call for several entries, and calls without an entry.

    :param target: where Redis is.
    :param key: of the stream. It may be missing, trimmed, expire and come back, as long as its ids grow.
    :param on_change: called on the loop after an entry was added, and after each change of :attr:`live`.
    :param timeout: seconds to wait for an answer that the server does not hold back.
    """

    def __init__(self, target: RedisTarget, key: bytes, on_change: Callable[[], None], *, timeout: float) -> None:
        self.live = False
        """Whether each new entry is followed by a call. A network that went silent is noticed within seconds."""
        self._target = target
        self._key = key
        self._on_change = on_change
        self._timeout = timeout
        self._connector = PushConnector(target)
        self._primaries = find_primaries(target, self._connector, timeout=timeout)
        self._refused = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, on the running event loop. Redis may be down."""
        self._task = asyncio.create_task(self._supervise(), name="redis-notifications")

    async def aclose(self) -> None:
        """Close the connection. Calling it again does nothing."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _supervise(self) -> None:
        try:
            while True:
                try:
                    await self._listen()
                except Exception as exc:  # noqa: BLE001 - any error is logged, and listening begins again
                    self._note(exc)
                pauses = Backoff(*(_REFUSED_PAUSES if self._refused else _LOST_PAUSES))
                self._failures += 1
                await asyncio.sleep(pauses.pause(self._failures - 1))
        finally:
            with suppress(RedisError, OSError):  # of a sentinel that hangs or is gone
                await self._primaries.aclose()

    async def _listen(self) -> None:
        """Read until something fails."""
        owner = await self._owner()
        async with Turns(self._timeout):
            connection = await self._connector.open(owner.address, on_push=lambda _: None, on_lost=lambda: None)
        try:
            # From the beginning: a server that took over may give smaller ids than those that were seen.
            last = b"0-0"
            blocking: tuple[str | int, ...] = ()
            while True:
                reply = await self._read(connection, last, *blocking)
                if reply:
                    last = reply[self._key][-1][0]
                if not blocking:
                    blocking = ("BLOCK", to_milliseconds(_BLOCK))
                    self._become_live()
                elif reply:
                    self._on_change()
        finally:
            if self.live:
                self.live = False
                self._on_change()
            await connection.aclose()

    async def _owner(self) -> Primary:
        for each in await self._primaries.find():
            if each.owns(self._key):
                return each
        raise RedisConnectionError("no node of the cluster answers for the stream now")

    async def _read(self, connection: PushConnection, last: bytes, *blocking: str | int) -> Any:
        command: Command = ("XREAD", *blocking, "STREAMS", self._key, last)
        async with Turns(self._timeout + (_BLOCK if blocking else 0), connection.has_arrived):
            return await connection.ask(*command)

    def _become_live(self) -> None:
        if self._refused:
            logger.info("Redis notifies of new entries in %s again (%s)", self._key.decode(), self._target)
        self.live, self._refused, self._failures = True, False, 0
        self._on_change()

    def _note(self, exc: Exception) -> None:
        if not is_translatable(exc):
            logger.error("Waiting for notifications failed (%s)", self._target, exc_info=exc)
            return
        refused = isinstance(translate(exc, sent=False), RedisCommandError)
        if refused and not self._refused:
            logger.warning(
                "Redis refuses to notify of new entries in %s, so it is polled: %s (%s)",
                *(self._key.decode(), exc, self._target),
            )
        self._refused = refused
