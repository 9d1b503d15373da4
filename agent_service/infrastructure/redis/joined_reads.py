"""Concurrent reads, joined into MGETs.

One GET costs a connection, a write, a read and their wake-ups; a hundred of them in one MGET cost little more. So while
a read is in flight, further reads wait for the end of their loop tick and travel together; a key that several of them
need is read once. No caller gets a value that is older than the call: a batch is sent after its last caller has joined.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

from agent_service.core.errors import RedisOperationError
from agent_service.core.exception_copies import copy_for_another

__all__ = ["JoinedReads"]

_MAX_BATCH = 128
"""Reads per MGET: beyond it nothing is gained, and large values would hold up more readers."""

_MAX_KEYS = 512
"""Keys per MGET, for reads of many keys each."""

Values: TypeAlias = "Sequence[bytes | None]"
_Waiting: TypeAlias = "tuple[Sequence[bytes], asyncio.Future[Values]]"


class JoinedReads:
    """Joins reads of few keys.

    :param read: reads keys in one command, within a deadline of its own.
    """

    def __init__(self, read: Callable[[Sequence[bytes]], Awaitable[list[bytes | None]]]) -> None:
        self.read = read
        self.in_flight = 0
        """Commands under way. While there is none, a read is sent at once, by ``read``, and counted here."""
        self._waiting: list[_Waiting] = []
        self._batches: set[asyncio.Task[None]] = set()

    def join(self, keys: Sequence[bytes]) -> Awaitable[Values]:
        """Return the strings at the keys, None for what is missing. To be awaited at once."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Values] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((keys, answer))
        return answer

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for part in _batches(waiting):
            self.in_flight += 1
            batch = asyncio.create_task(self._answer(part))
            self._batches.add(batch)
            batch.add_done_callback(self._batches.discard)

    async def _answer(self, waiting: list[_Waiting]) -> None:
        wanted = dict.fromkeys([key for keys, _ in waiting for key in keys])
        try:
            values = dict(zip(wanted, await self.read(list(wanted)), strict=True))
        except RedisOperationError as exc:
            for _, answer in waiting:
                if not answer.done():  # else its caller was cancelled
                    answer.set_exception(copy_for_another(exc))
                    answer.exception()  # marks it as retrieved: a caller that is cancelled now will never ask for it
            return
        except BaseException:
            for _, answer in waiting:
                answer.cancel()
            raise
        finally:
            self.in_flight -= 1
        for keys, answer in waiting:
            if not answer.done():
                answer.set_result([values[key] for key in keys])


def _batches(waiting: list[_Waiting]) -> Iterator[list[_Waiting]]:
    if len(waiting) <= _MAX_BATCH and sum([len(keys) for keys, _ in waiting]) <= _MAX_KEYS:
        yield waiting
        return
    part: list[_Waiting] = []
    size = 0
    for each in waiting:
        if part and (len(part) == _MAX_BATCH or size + len(each[0]) > _MAX_KEYS):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each[0])
    yield part
