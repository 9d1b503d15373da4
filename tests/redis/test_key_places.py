"""What the cluster transport knows of commands is what servers say of them."""

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster

from agent_service.infrastructure.redis.transport import key_places
from agent_service.infrastructure.redis.transport.key_places import KeyPlaces
from tests.servers.redis import GivenServer, RedisServer

KNOWN = sorted(key_places._FIRST | key_places._ALL | key_places._PAIRS)


@pytest.mark.parametrize("name", KNOWN)
async def test_the_keys_are_where_the_server_says(name: str, redis_server: RedisServer | GivenServer):
    places = KeyPlaces(RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", 1)]))
    arguments = [b"1", b"2", b"3", b"4"]
    (described,) = redis_server.cli("COMMAND", "INFO", name)
    first, last, step = described[3:6]

    keys = await places.get_keys(name.upper(), *arguments)

    assert list(keys or ()) == [name.encode(), *arguments][first : last + 1 or None : step]
