"""A Redis Cluster and a set of sentinels, made of real servers."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.redis import START_SECONDS, RedisServer

SLOTS = 16_384


@contextmanager
def running_cluster(primaries: int = 3, *, certificate: Path | None = None) -> Iterator[list[RedisServer]]:
    """Start primaries that share the slots evenly. Takes about two seconds, which they spend getting acquainted.

    :param certificate: speak TLS as well.
    """
    options = [("cluster-enabled", "yes"), ("cluster-node-timeout", "1000"), ("cluster-config-file", "nodes.conf")]
    if certificate is not None:
        options.append(("tls-cluster", "yes"))
    with ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(*options, certificate=certificate)) for _ in range(primaries)]
        for number, node in enumerate(nodes):
            first, last = SLOTS * number // primaries, SLOTS * (number + 1) // primaries
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.cli("CLUSTER", "ADDSLOTS", *range(first, last))
            node.cli("CLUSTER", "MEET", "127.0.0.1", nodes[0].tls_port or nodes[0].port)
        deadline = time.monotonic() + START_SECONDS
        while not all(_is_complete(node, primaries) for node in nodes):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.02)
        yield nodes


def _is_complete(node: RedisServer, primaries: int) -> bool:
    facts = node.cli("CLUSTER", "INFO").splitlines()
    return b"cluster_state:ok" in facts and b"cluster_size:%d" % primaries in facts


@contextmanager
def running_sentinels(
    master: RedisServer, *, service: str, number: int = 2, certificate: Path | None = None
) -> Iterator[list[RedisServer]]:
    """Start sentinels that watch a server. Nobody fails over: there is no replica.

    :param certificate: speak TLS as well, and to the master by nothing else.
    """
    with ExitStack() as stack:
        sentinels = [stack.enter_context(RedisServer(sentinel=True, certificate=certificate)) for _ in range(number)]
        for sentinel in sentinels:
            port = master.tls_port if certificate is not None else master.port
            sentinel.cli("SENTINEL", "MONITOR", service, "127.0.0.1", port, 1)
        yield sentinels
