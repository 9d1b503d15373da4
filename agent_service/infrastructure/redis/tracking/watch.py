"""Connections to all primaries at once, on which they push the keys that change.

They make one unit: when one is lost, the others are cut too, because what its server would have pushed is missing. All
are asked the same at the same time, without a task for each. ``stream.py`` says what the answers prove.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain
from typing import Any, Final
from uuid import uuid4

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from agent_service.core.milliseconds import to_milliseconds
from agent_service.core.turns import Turns
from agent_service.infrastructure.redis.tracking.primaries import Primaries, Primary
from agent_service.infrastructure.redis.tracking.push_connection import PushConnection, PushConnector
from agent_service.infrastructure.redis.transport.base import Command

__all__ = ["Watch"]

_PROBE_NAMES: Final = 1000
"""Names to choose probe keys from: enough that nearly every primary of a cluster owns one of them."""
_PROBE_TTL_MS: Final = 10_000
_MARK_TTL: Final = 60.0
"""Seconds that the mark of a database lives; it is renewed after a third of them."""


class Watch:
    """The connections from their opening to their end. Methods raise errors of redis-py, and OSError.

    :param patience: seconds to wait for an answer.
    """

    def __init__(self, primaries: Primaries, found: Sequence[Primary], *, patience: float) -> None:
        self.tracked: frozenset[bytes] = frozenset()
        """The prefixes that all servers track."""
        self._primaries = primaries
        self._found = found
        self._patience = patience
        self._connections: list[PushConnection] = []
        self._unseen: set[bytes] = set()
        self._mark = b""
        self._marked = 0.0
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def connected(
        self, connector: PushConnector, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]
    ) -> AsyncIterator[None]:
        """Open the connections; cut them at the end of the block.

        :param on_push: called for each push, in the order in which its server sent it.
        :param on_lost: called at the moment a connection ends.
        """

        def lose() -> None:
            self._changed.set()
            on_lost()

        async with AsyncExitStack() as stack:
            for primary in self._found:
                async with Turns(self._patience):
                    connection = await connector.open(primary.address, on_push=on_push, on_lost=lose)
                stack.push_async_callback(connection.aclose)
                self._connections.append(connection)
            yield

    @property
    def intact(self) -> bool:
        """Whether no connection has ended."""
        return all(each.failure is None for each in self._connections)

    async def track(self, prefixes: frozenset[bytes]) -> None:
        """Have the servers track these prefixes beside those that they track already."""
        added = sorted(prefixes - self.tracked)
        options = [argument for prefix in added for argument in (b"PREFIX", prefix)]
        await self._ask(("CLIENT", "TRACKING", "ON", "BCAST", *options))
        self.tracked |= prefixes

    async def mark(self, prefix: bytes) -> None:
        """Put a mark into the database, by which :meth:`beat` recognises it. Earlier copies may be of another database.

        :param prefix: of the mark's name.
        """
        if self._primaries.has_databases:
            self._mark = self._mark or prefix + uuid4().hex.encode()
            await self._ask(self._set_mark(), ("WATCH", self._mark))

    def _set_mark(self) -> Command:
        self._marked = time.monotonic()
        return ("SET", self._mark, b"", "PX", to_milliseconds(_MARK_TTL))

    async def beat(self) -> bool:
        """Prove that every push for what was executed before this call was received, by the same primaries as before.

        PING proves the former. Servers refuse it in the middle of a long script, when they push nothing for a while.

        :return: whether the database is still the one that was marked. SWAPDB pushes nothing, but it breaks a
            transaction that watches a key of one of the two databases, even if they were swapped back since.
        """
        await self._ask(("PING",))
        transaction: list[Command] = []
        if self._mark:
            renewal = [self._set_mark()] if time.monotonic() > self._marked + _MARK_TTL / 3 else []
            transaction = [("MULTI",), ("EXISTS", self._mark), *renewal, ("EXEC",), ("WATCH", self._mark)]
        replies = await self._ask(self._primaries.question, *transaction)
        await self._primaries.confirm(dict(zip(self._found, [each[0] for each in replies], strict=True)))
        executed = [each[-2] for each in replies] if transaction else []
        return all(each is not None and each[0] for each in executed)

    async def prove_pushes(self, prefix: bytes, write: Callable[[Sequence[Command]], Awaitable[Any]]) -> None:
        """Write a key on each primary by the ordinary way and wait for the pushes.

        They prove that the servers that push to us are those that are written to. A primary of a cluster without slots,
        or with very few, is left out.

        :param prefix: of the keys; one that is tracked.
        :raises ResponseError: when pushes do not come.
        """
        own = prefix + uuid4().hex.encode()
        names = [b"%s:%d" % (own, number) for number in range(_PROBE_NAMES)]
        chosen = (next((name for name in names if each.owns(name)), None) for each in self._found)
        probes = {name for name in chosen if name is not None}
        self._unseen = set(probes)
        await write([("SET", key, b"", "PX", _PROBE_TTL_MS) for key in probes])
        with suppress(TimeoutError):
            async with Turns(self._patience, self._has_arrived):
                while self._unseen and self.intact:
                    self._changed.clear()
                    await self._changed.wait()
        for connection in self._connections:
            if connection.failure is not None:
                raise connection.failure
        if self._unseen:
            raise ResponseError(f"no push arrived within {self._patience:g} s for a key that was written")

    def saw(self, keys: Sequence[bytes]) -> None:
        """Note keys that were pushed."""
        if self._unseen:
            self._unseen.difference_update(keys)
            self._changed.set()

    def _has_arrived(self) -> bool:
        return any(each.has_arrived() for each in self._connections)

    async def _ask(self, *commands: Command) -> list[list[Any]]:
        """Send commands on all connections; return the replies by connection."""
        waiting = [each.send(*commands) for each in self._connections]
        try:
            async with Turns(self._patience, self._has_arrived):
                await asyncio.wait(waiting)
        except TimeoutError as exc:
            raise RedisTimeoutError(f"no answer within {self._patience:g} s") from exc
        replies = [each.result() for each in waiting]
        for reply in chain.from_iterable(replies):
            if isinstance(reply, Exception):
                raise reply
        return replies
