"""The transport to one server, or to the master that sentinels name: a pool of redis-py connections, used one by one.

A connection is taken from the pool, written to, read from and given back here, not by ``redis.asyncio.Redis``. So we
know whether a command was sent, and nothing is sent twice. No caller gets the reply to another's command, because

* redis-py drops a connection when the wait for a reply ends in any exception, a cancellation included;
* before it hands out an idle connection, it drops one that holds unread bytes or was closed by the server;
* that check is off while maintenance notifications are on, as they are by default over RESP3; we use RESP2.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import hiredis
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import DataError, RedisError, ResponseError

from agent_service.infrastructure.redis.operation import Operation
from agent_service.infrastructure.redis.transport.abandoned import Abandoned, drop
from agent_service.infrastructure.redis.transport.arrived import has_arrived
from agent_service.infrastructure.redis.transport.base import MAX_KEYS_PER_COMMAND, Command, ScanCursor, Transport
from agent_service.infrastructure.redis.transport.sentinels import SharedSentinel

__all__ = ["ServerTransport"]


class ServerTransport(Transport):
    """Runs commands on the pool of a redis-py client.

    :param client: not closed here unless ``owned``.
    :param sentinel: what found the client's server; closed with it.
    :param starting: tells whether this process waits for its own server to start, which is no failure of it.
    """

    is_cluster = False

    def __init__(
        self,
        client: Redis,
        *,
        owned: bool,
        sentinel: SharedSentinel | None = None,
        starting: Callable[[], bool] | None = None,
    ) -> None:
        self._client = client
        self._pool: ConnectionPool = client.connection_pool
        self._owned = owned
        self._sentinel = sentinel
        self._starting = starting
        self._abandoned = Abandoned()

    @property
    def raw(self) -> Redis:
        return self._client

    async def execute(self, operation: Operation, command: Command) -> Any:
        packed = _packed(command)
        operation.arrived = self._starting
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            operation.sent = True
            operation.arrived = partial(has_arrived, connection)
            await connection.send_packed_command(packed)
            return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            self._abandoned.add(connection)
            raise
        finally:
            await self._pool.release(connection)

    def pipeline(self, operation: Operation, commands: Sequence[Command], *, atomic: bool) -> Awaitable[list[Any]]:
        return self._transaction(operation, commands) if atomic else self._exchange(operation, commands)

    async def _transaction(self, operation: Operation, commands: Sequence[Command]) -> list[Any]:
        *queued, replies = await self._exchange(operation, [("MULTI",), *commands, ("EXEC",)])
        # A command that could not be queued says why; EXEC then only says that there was one.
        refusal = next((reply for reply in queued if isinstance(reply, ResponseError)), replies)
        if isinstance(refusal, ResponseError):
            raise refusal
        return list(replies)

    async def _exchange(self, operation: Operation, commands: Sequence[Command]) -> list[Any]:
        packed = b"".join([_packed(command) for command in commands])
        operation.arrived = self._starting
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        replies: list[Any] = []
        try:
            operation.sent = True
            operation.arrived = partial(has_arrived, connection)
            await connection.send_packed_command(packed)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except ResponseError as exc:
                    replies.append(exc)
        except BaseException:
            self._abandoned.add(connection)
            raise
        finally:
            await self._pool.release(connection)
        return replies

    def get_many(self, operation: Operation, keys: Sequence[bytes]) -> Awaitable[list[bytes | None]]:
        if len(keys) <= MAX_KEYS_PER_COMMAND:
            return self.execute(operation, (b"MGET", *keys))
        return self._get_in_chunks(operation, keys)

    async def _get_in_chunks(self, operation: Operation, keys: Sequence[bytes]) -> list[bytes | None]:
        return [value for page in await self._in_chunks(operation, b"MGET", keys) for value in page]

    async def set_many(self, operation: Operation, values: Mapping[bytes, bytes]) -> None:
        await self.execute(operation, (b"MSET", *chain.from_iterable(values.items())))

    async def delete(self, operation: Operation, command: bytes, keys: Sequence[bytes]) -> int:
        return sum(await self._in_chunks(operation, command, keys))

    async def _in_chunks(self, operation: Operation, command: bytes, keys: Sequence[bytes]) -> list[Any]:
        starts = range(0, len(keys), MAX_KEYS_PER_COMMAND)
        replies = await self._exchange(
            operation, [(command, *keys[start : start + MAX_KEYS_PER_COMMAND]) for start in starts]
        )
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies

    async def scan_page(
        self, operation: Operation, cursor: ScanCursor | None, match: bytes, count: int
    ) -> tuple[ScanCursor | None, list[bytes]]:
        position = cursor.position if cursor else 0
        following, keys = await self.execute(operation, (b"SCAN", position, b"MATCH", match, b"COUNT", count))
        return (ScanCursor(int(following)) if int(following) else None), keys

    async def settle(self, operation: Operation) -> str | None:
        lacking = "CLIENT INFO" if self._abandoned.take_unidentified() else None
        while identities := self._abandoned.identities():  # others may be given up while the server drops these
            replies = await self._exchange(operation, [drop(each) for each in identities])
            if any(isinstance(reply, ResponseError) for reply in replies):
                lacking = "CLIENT KILL"
            self._abandoned.forget(identities)
        return lacking

    async def aclose(self) -> None:
        if self._owned:
            await self._pool.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


def _packed(command: Command) -> bytes:
    """Return the command as it is sent, at about a tenth of the cost of redis-py's own packing in Python."""
    if not command:
        raise DataError("a command needs a name")
    try:
        return bytes(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError) as exc:
        raise DataError(f"cannot send an argument of {command[0]!r:.40}: {exc}") from exc
