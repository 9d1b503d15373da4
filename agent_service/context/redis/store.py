"""Context in Redis: one hash a key, so that an update is one atomic step of the server."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from agent_service.context.documents import EncodedDocument, as_document, as_pairs, takes_encoded
from agent_service.context.fences.protocol import LEASE_SECONDS, Fence, Fenced
from agent_service.context.fences.redis import FENCE_MARK, RedisFence
from agent_service.context.interface import ContextStore, Document, Documents, Key
from agent_service.context.keys import decode_key, encode_key
from agent_service.context.lifetimes import resolve_store_ttl
from agent_service.context.moving import Movable
from agent_service.context.redis.source import DEFAULT_PREFIX, GivenRedis, check_prefix, url_of
from agent_service.core.errors import ContextStoreError
from agent_service.core.keys import glob_escape
from agent_service.core.loop_registry import PerLoop
from agent_service.core.store_metrics import store_errors
from agent_service.core.ttl import NEVER, TTL
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import get_redis_manager
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.records.fields import EncodedRecord
from agent_service.infrastructure.redis.records.record import HashRecord
from agent_service.infrastructure.redis.records.sets import (
    exchange_record,
    read_record_with_ttl,
    read_records,
    withdraw_record,
    write_records,
)

__all__ = ["RedisContextStore"]


class RedisContextStore(ContextStore, Fenced, Movable):
    """Keeps contexts in Redis, shared by every process that names the same server and prefix.

    ::

        RedisContextStore(RedisContextConfig("redis://localhost:6379/0", prefix="bro"))
        RedisContextStore(host="localhost", port=6379)
        RedisContextStore(url="redis+cluster://node1:7000,node2:7001")
        RedisContextStore()  # the Redis of REDIS_URL

    The key ``k`` is the hash ``{prefix}_{k}``, each top-level entry a field of JSON. Every call is one round trip, but
    :meth:`list_keys`, which scans the whole key space. With a URL the store opens connections of its own, on every
    event loop that uses it, and :meth:`aclose` closes them. A client or manager that was given is the caller's, and
    must be used on the caller's loop. On a cluster a bulk call is atomic for each key. A replica that takes over may
    lack the latest writes.

    :param config: an object or mapping with ``url`` and perhaps ``prefix``; or, as text, the host.
    :param url: any URL that REDIS_URL may be: one server, TLS, a socket, sentinels, a cluster.
    :param client: a :class:`RedisClient`, or a client of ``redis.asyncio`` (``Redis``, ``RedisCluster``) that does not
        decode replies.
    :param manager: a :class:`RedisManager`, whose client is used; the prefix stays that of this store.
    :param prefix: begins every Redis key. "" means bare keys, and then :meth:`list_keys` is refused. Stores that share
        a server need prefixes of which none, with its ``_``, begins another.
    :param ttl: default time to live.
    :param timeout: seconds an operation may take.
    :raises ConfigurationError: for arguments that contradict one another, or a URL that cannot be used.
    """

    expires = True

    def __init__(
        self,
        config: Any = None,
        /,
        port: int = 6379,
        db: int = 0,
        *,
        host: str | None = None,
        url: str | None = None,
        client: Any = None,
        manager: RedisManager | None = None,
        username: str | None = None,
        password: str | None = None,
        ssl: bool = False,
        prefix: str | None = None,
        ttl: TTL = NEVER,
        timeout: float = 0.5,
        max_connections: int = 50,
    ) -> None:
        given = GivenRedis(config, host=host, url=url, client=client, manager=manager, prefix=prefix)
        if given.host is not None:
            given.url = url_of(given.host, port, db, username, password, ssl=ssl)
        self._prefix = check_prefix(DEFAULT_PREFIX if given.prefix is None else given.prefix)
        self.start = f"{self._prefix}_".encode() if self._prefix else b""
        """What every Redis key begins with."""
        self._default_ttl = resolve_store_ttl(ttl, math.inf)
        self._given = given.client(timeout=timeout, max_connections=max_connections)
        self.place = ("redis", given.url, id(self._given if client is None else client), self._prefix)
        self._clients: PerLoop[RedisClient] | None = None
        if given.url is not None:
            target = given.url

            def connect() -> RedisClient:
                return RedisClient(target, timeout=timeout, max_connections=max_connections)

            connect()  # so that a URL that cannot be used is refused now; nothing is connected
            self._clients = PerLoop(connect, RedisClient.aclose)

    @property
    def prefix(self) -> str:
        """What begins every Redis key, without the ``_`` that follows it."""
        return self._prefix

    def redis_key(self, key: Key) -> bytes:
        """Return the Redis key of a key: ``{prefix}_{key}``, or the key alone without a prefix."""
        return self.start + encode_key(key).encode()

    async def client(self) -> RedisClient:
        """Return the running loop's client."""
        if self._given is not None:
            return self._given
        if self._clients is not None:
            return self._clients.get()
        with store_errors(type(self).__name__, "find Redis"):
            return (await get_redis_manager()).client

    async def get(self, key: Key) -> Document | None:
        name, client = self.redis_key(key), await self.client()
        with store_errors(type(self).__name__, "read a context"):
            return await HashRecord(client, name).get()

    @takes_encoded
    async def set(self, key: Key, value: Mapping[str, Any], *, ttl: TTL | None = None) -> None:
        name, document, seconds = self.redis_key(key), _record(value), self._seconds(ttl)
        client = await self.client()
        with store_errors(type(self).__name__, "write a context"):
            await HashRecord(client, name, ttl=seconds).set(document)

    async def update(self, key: Key, patch: Mapping[str, Any], *, drop_none: bool = False) -> Document:
        name, news, client = self.redis_key(key), as_document(patch, "patch"), await self.client()
        if drop_none:
            news = {field: value for field, value in news.items() if value is not None}
        with store_errors(type(self).__name__, "update a context"):
            return await HashRecord(client, name, ttl=self._seconds(None)).merge(news)

    async def delete(self, key: Key) -> None:
        await self.delete_many((key,))

    async def list_keys(self) -> list[Any]:
        if not self._prefix:
            raise ContextStoreError(
                "this store has no prefix, so its keys cannot be told from others in Redis; give it one to list them"
            )
        start, client = self.start, await self.client()
        names: dict[bytes, None] = {}
        with store_errors(type(self).__name__, "list the keys of contexts"):
            async for page in client.scan(glob_escape(start.decode()).encode() + b"*"):
                names.update(dict.fromkeys([name for name in page if not name.startswith(start + FENCE_MARK)]))
        try:
            return [decode_key(name[len(start) :].decode()) for name in names]
        except UnicodeDecodeError as exc:
            raise ContextStoreError("a key under this store's prefix is no UTF-8; another program wrote it") from exc

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Document]:
        names = [(key, self.redis_key(key)) for key in keys]
        client = await self.client()
        with store_errors(type(self).__name__, "read contexts"):
            found = await read_records(client, [name for _, name in names])
        return {key: each for (key, _), each in zip(names, found, strict=True) if each is not None}

    @takes_encoded
    async def set_many(self, values: Documents, *, ttl: TTL | None = None) -> None:
        seconds = self._seconds(ttl)
        records = {self.redis_key(key): _record(value) for key, value in as_pairs(values)}
        client = await self.client()
        with store_errors(type(self).__name__, "write contexts"):
            await write_records(client, records, seconds)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        names = list({self.redis_key(key): None for key in keys})
        client = await self.client()
        with store_errors(type(self).__name__, "delete contexts"):
            return await client.unlink(names)

    @takes_encoded
    async def compare_and_set(
        self, key: Key, value: Mapping[str, Any], *, expected: Mapping[str, Any] | None, ttl: TTL | None = None
    ) -> bool:
        name, document, seconds = self.redis_key(key), _record(value), self._seconds(ttl)
        wanted = None if expected is None else as_document(expected, "expected")
        client = await self.client()
        with store_errors(type(self).__name__, "compare and set a context"):
            return await exchange_record(client, name, document, expected=wanted, ttl=seconds)

    async def read_to_move(self, key: Key) -> tuple[Document, TTL | None] | None:
        name, client = self.redis_key(key), await self.client()
        with store_errors(type(self).__name__, "read a context"):
            found = await read_record_with_ttl(client, name)
        return None if found is None else (found[0], NEVER if found[1] is None else max(found[1], 0.001))

    async def withdraw(self, key: Key, expected: Mapping[str, Any]) -> bool:
        name, client = self.redis_key(key), await self.client()
        with store_errors(type(self).__name__, "withdraw a context"):
            return await withdraw_record(client, name, expected=expected)

    def _seconds(self, ttl: TTL | None) -> float | None:
        seconds = self._default_ttl if ttl is None else resolve_store_ttl(ttl, self._default_ttl)
        return None if seconds == math.inf else seconds

    def fence(self, lease: float = LEASE_SECONDS) -> Fence:
        client = self.client if self._clients is None else self._clients.get
        return RedisFence(client, self.start, lease, store=type(self).__name__)

    async def aclose(self) -> None:
        if self._clients is not None:
            await self._clients.aclose()


def _record(value: Any) -> Mapping[str, Any]:
    """Return what the Redis room takes for a value."""
    return EncodedRecord(value.fields) if type(value) is EncodedDocument and value.fields else as_document(value)
