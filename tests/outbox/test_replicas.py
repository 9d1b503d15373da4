"""A row stays until as many replicas as REDIS_WAIT_REPLICAS asks for have what it invalidates."""

import asyncio

import pytest

from agent_service.infrastructure.cache.factory import get_cache
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from tests.servers.proxy import TcpProxy
from tests.servers.redis import GivenServer, RedisServer
from tests.support.outbox import NAMESPACE, configure, rows
from tests.support.waiting import until


async def test_a_row_stays_until_a_replica_has_it(
    house: TcpProxy, redis_server: RedisServer | GivenServer, monkeypatch: pytest.MonkeyPatch
):
    configure(monkeypatch, redis_timeout="5", redis_wait_replicas="1", redis_wait_timeout="0.05")
    cache = await get_cache(NAMESPACE)
    await cache.set("ada", 1)
    async with get_session() as db:
        invalidate_in(db, keys=["ada"], namespace=NAMESPACE)

    assert await drain_outbox() == 0
    assert await cache.get("ada") is None
    assert await rows() == 1

    assert isinstance(redis_server, RedisServer)
    redis_server.cli("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    with RedisServer(("replicaof", f"127.0.0.1 {redis_server.port}")) as replica:
        await asyncio.to_thread(replica.wait_until, "replication", "master_link_status:up")

        async def drained() -> bool:
            return await drain_outbox() == 1

        await until(drained)
        assert await rows() == 0
