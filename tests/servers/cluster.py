"""Redis Clusters of real servers: one that the tests of a run share, and others for those that change its nodes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.servers.redis import START_SECONDS, RedisServer, needs_redis

SLOTS = 16_384
NODE = (("cluster-enabled", "yes"), ("cluster-node-timeout", "1000"), ("cluster-config-file", "nodes.conf"))
"""The options of a server that can be a node."""


@contextmanager
def running_cluster(primaries: int = 3, *, certificate: Path | None = None) -> Iterator[list[RedisServer]]:
    """Start primaries that share the slots evenly. Takes about two seconds, until each knows the others.

    :param certificate: speak TLS as well.
    """
    options = NODE if certificate is None else (*NODE, ("tls-cluster", "yes"))
    with ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(*options, certificate=certificate)) for _ in range(primaries)]
        for number, node in enumerate(nodes):
            first, last = SLOTS * number // primaries, SLOTS * (number + 1) // primaries
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.cli("CLUSTER", "ADDSLOTS", *range(first, last))
            node.cli("CLUSTER", "MEET", "127.0.0.1", nodes[0].tls_port or nodes[0].port)
        wait_until_complete(nodes)
        yield nodes


def wait_until_complete(nodes: list[RedisServer]) -> None:
    """Wait until every node knows that all of them serve."""
    deadline = time.monotonic() + START_SECONDS
    while not all(_is_complete(node, len(nodes)) for node in nodes):
        assert time.monotonic() < deadline, "the cluster does not come together"
        time.sleep(0.02)


def _is_complete(node: RedisServer, primaries: int) -> bool:
    facts = node.cli("CLUSTER", "INFO").splitlines()
    return b"cluster_state:ok" in facts and b"cluster_size:%d" % primaries in facts


def url_of(nodes: list[RedisServer]) -> str:
    """Return the URL of a cluster, with all its nodes."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@pytest.fixture(scope="session")
def cluster() -> Iterator[list[RedisServer]]:
    """Three nodes that the tests share; take ``cluster_url`` for a cluster that is empty."""
    needs_redis()
    with running_cluster() as nodes:
        yield nodes


@pytest.fixture
def cluster_url(cluster: list[RedisServer]) -> str:
    """The URL of the shared cluster, emptied, and complete even where the test before had stopped a node."""
    wait_until_complete(cluster)
    for node in cluster:
        node.cli("FLUSHALL")
    return url_of(cluster)
