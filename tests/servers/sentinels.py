"""Sentinels that watch a real server."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.redis import RedisServer


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
