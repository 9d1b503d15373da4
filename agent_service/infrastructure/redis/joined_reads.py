"""Concurrent GETs, joined into MGETs.

One GET costs a connection, a write, a read and their wake-ups; a hundred of them in one MGET cost little more. A GET
that finds nothing in flight is sent at once; the others of its loop tick wait for the end of the tick and travel
together. Nobody gets a value older than his own call: a batch is sent after its last caller has joined.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import copy

from agent_service.core.errors import RedisOperationError

__all__ = ["JoinedReads"]

_MAX_BATCH = 128
"""Keys per MGET: beyond it nothing is gained, and large values would hold up more readers."""


class JoinedReads:
    """Joins single reads.

    :param read_one: reads one key, now.
    :param read_many: reads keys in one command, within a deadline of its own.
    """

    def __init__(
        self,
        read_one: Callable[[bytes], Awaitable[bytes | None]],
        read_many: Callable[[Sequence[bytes]], Awaitable[list[bytes | None]]],
    ) -> None:
        self._read_one = read_one
        self._read_many = read_many
        self._in_flight = 0
        self._waiting: list[tuple[bytes, asyncio.Future[bytes | RedisOperationError | None]]] = []
        self._batches: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> bytes | None:
        """Give the string at the key, or None."""
        if not self._in_flight:
            self._in_flight += 1
            try:
                return await self._read_one(key)
            finally:
                self._in_flight -= 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes | RedisOperationError | None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((key, answer))
        reply = await answer
        if isinstance(reply, RedisOperationError):
            raise copy(reply) from reply
        return reply

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MAX_BATCH):
            self._in_flight += 1
            batch = asyncio.create_task(self._answer(waiting[start : start + _MAX_BATCH]))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def _answer(self, waiting: list[tuple[bytes, "asyncio.Future[bytes | RedisOperationError | None]"]]) -> None:
        replies: Sequence[bytes | RedisOperationError | None]
        try:
            replies = await self._read_many([key for key, _ in waiting])
        except RedisOperationError as exc:
            replies = [exc] * len(waiting)
        except BaseException:
            for _, answer in waiting:
                answer.cancel()
            raise
        finally:
            self._in_flight -= 1
        for (_, answer), reply in zip(waiting, replies, strict=True):
            if not answer.done():  # else its caller was cancelled
                answer.set_result(reply)
