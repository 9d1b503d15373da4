"""Commands on Redis, each an operation with a slot, a deadline and one translation of errors: ``operation.py``."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from agent_service.infrastructure.redis.joined_reads import JoinedReads
from agent_service.infrastructure.redis.operation import Operation, Operations
from agent_service.infrastructure.redis.replication import Confirmation
from agent_service.infrastructure.redis.reply_errors import give_or_raise
from agent_service.infrastructure.redis.scripts import Script
from agent_service.infrastructure.redis.substitutes import Substitutes
from agent_service.infrastructure.redis.transport.base import MAX_KEYS_PER_COMMAND, Argument, Command, Transport

__all__ = ["RedisCommands"]

_Send: TypeAlias = Callable[[Operation, Sequence[Command]], Awaitable[list[Any]]]
"""Sends commands in one round trip and returns their replies."""


class RedisCommands:
    """The commands of a client. What holds for all of them is said by its subclass,
    :class:`~agent_service.infrastructure.redis.client.RedisClient`, which also opens and closes the transport.
    """

    def __init__(self, transport: Transport, operations: Operations) -> None:
        self._transport = transport
        self._operations = operations
        self._reads = JoinedReads(self.get_many)
        self._impatient_reads = JoinedReads(partial(self.get_many, patience=operations.timeout))
        self.substitutes = Substitutes()

    async def execute(self, *command: Argument) -> Any:
        """Run one command and return its reply as RESP2 has it, unconverted: bytes, int, list or None."""
        async with self._operations.begin() as operation:
            operation.command = command
            return await self._transport.execute(operation, command)

    async def get(self, key: bytes) -> bytes | None:
        """Return the string at the key; None when it is missing or no string (what MGET gives).

        Concurrent calls travel together as one MGET.
        """
        return (await self.get_together((key,)))[0]

    def get_together(self, keys: Sequence[bytes], *, patient: bool = True) -> Awaitable[Sequence[bytes | None]]:
        """:meth:`get` for a few keys that one caller needs at once; what several callers ask for is read once.

        :param patient: whether the wait for a turn may take longer than ``timeout``.
        """
        reads = self._reads if patient else self._impatient_reads
        return reads.join(keys) if reads.in_flight else self._get_at_once(reads, keys)

    async def _get_at_once(self, reads: JoinedReads, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        reads.in_flight += 1
        try:
            return await reads.read(keys)
        finally:
            reads.in_flight -= 1

    async def get_many(self, keys: Sequence[bytes], *, patience: float | None = None) -> list[bytes | None]:
        """Return the strings at the keys in their order, in one round trip; None for what is missing or no string.

        :param patience: seconds to wait for a turn; None: as long as the server answers others.
        """
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
        """Run commands in one round trip and return their replies.

        The first error among the replies is raised after all were read; without ``atomic`` the other commands were
        executed. A script that the server does not know yet, and a command that it takes in another form only, runs
        after the other commands.

        :param atomic: run them as one transaction (MULTI); on a cluster all keys must then share a slot. A command that
            fails while the transaction runs does not undo the others.
        :param wrong_types: return None where a command met a key that holds something else than it expects.
        :param denied: return the :class:`~agent_service.core.errors.RedisDeniedError` of a command that the server
            denies as its reply.
        :param patience: seconds to wait for a turn; None: as long as the server answers others.
        :param confirmation: is told how many replicas have confirmed the commands; not with ``atomic``.
        """
        if not commands:
            return []
        if self.substitutes.losses:
            commands = [self.substitutes.before(each) for each in commands]
        send: _Send = (
            partial(self._transport.pipeline, atomic=atomic)
            if confirmation is None
            else partial(self._send_confirmed, confirmation)
        )
        async with self._operations.begin(patience) as operation:
            replies = await send(operation, commands)
            for reply in replies:
                if isinstance(reply, Exception):
                    await self._send_substitutes(send, operation, commands, replies)
                    give_or_raise(operation, commands, replies, wrong_types=wrong_types, denied=denied)
                    break
            return replies

    async def _send_confirmed(
        self, confirmation: Confirmation, operation: Operation, commands: Sequence[Command]
    ) -> list[Any]:
        waits = confirmation.commands
        replies = await self._transport.pipeline(operation, [*commands, *waits], atomic=False)
        confirmation.read(operation, waits, replies[-len(waits) :])
        return replies[: len(commands)]

    async def _send_substitutes(
        self, send: _Send, operation: Operation, commands: Sequence[Command], replies: list[Any]
    ) -> None:
        """Send again, in another form, what the server takes in another form only, and put its replies in place."""
        others = {
            place: other
            for place, reply in enumerate(replies)
            if (other := self.substitutes.after(commands[place], reply)) is not None
        }
        if not others:
            return
        later = await send(operation, list(others.values()))
        for place, reply in zip(others, later, strict=True):
            if self.substitutes.accept(commands[place], replies[place], reply):
                replies[place] = reply

    async def run_script(self, script: Script, keys: Sequence[bytes] = (), args: Sequence[Argument] = ()) -> Any:
        """Run a Lua script by its digest; where the server does not know it yet, send its source."""
        async with self._operations.begin() as operation:
            command: Command = (*script.call, len(keys), *keys, *args)
            operation.command = command = self.substitutes.before(command) if self.substitutes.losses else command
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

        A key that exists from the first to the last page is returned at least once, perhaps more often; pages may be
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
        """Delete keys, the memory being freed in the background; return how many there were.

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
        """Make sure that commands which were abandoned, for want of an answer in time, will not run any more.

        When it returns there are none. On a Redis Cluster this does nothing, nor on a server that does not permit it,
        which is logged once.
        """
        async with self._operations.begin() as operation:
            lacking = await self._transport.settle(operation)
        if lacking is not None:
            self.substitutes.lose(lacking)

    async def ping(self) -> None:
        """Make sure that Redis answers."""
        await self.execute(b"PING")
