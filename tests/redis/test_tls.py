"""TLS to a real server: one context for all connections, made beside the event loop, whatever the topology."""

import asyncio
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent_service.core.errors import RedisUnavailableError
from agent_service.core.urls.redis import parse_redis_url
from agent_service.infrastructure.redis.tracking.stream import TrackingState
from agent_service.infrastructure.redis.transport.tls import tls_of
from tests.redis.conftest import Connect, Listen
from tests.servers.cluster import running_cluster
from tests.servers.redis import RedisServer
from tests.servers.sentinels import running_sentinels
from tests.support.certificates import make_certificate


@pytest.fixture
def server(certificate: Path) -> Iterator[RedisServer]:
    """A server that speaks TLS and asks clients for a certificate only if they have one."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(RedisServer(("tls-auth-clients", "optional"), certificate=certificate))
        except AssertionError as exc:
            if "'tls-" not in str(exc):
                raise
            pytest.skip("this redis-server was built without TLS")


@pytest.fixture
def other_certificate(tmp_path: Path) -> Path:
    """One that no server of a test has."""
    folder = tmp_path / "other"
    folder.mkdir()
    return make_certificate(folder, name="other")


def secure(server: RedisServer, **options: object) -> str:
    return f"rediss://127.0.0.1:{server.tls_port}/0?" + "&".join(f"{name}={value}" for name, value in options.items())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which contexts are made."""
    threads: list[str] = []
    make = ssl.create_default_context

    def make_and_note(*args: Any, **options: Any) -> ssl.SSLContext:
        threads.append(threading.current_thread().name)
        return make(*args, **options)

    monkeypatch.setattr(ssl, "create_default_context", make_and_note)
    return threads


def encrypt(key: Path, password: str) -> Path:
    openssl = shutil.which("openssl")
    assert openssl is not None
    encrypted = key.with_name("encrypted.pem")
    command = [openssl, "rsa", "-aes128", "-in", str(key), "-out", str(encrypted), "-passout", f"pass:{password}"]
    subprocess.run(command, check=True, capture_output=True)
    return encrypted


async def test_fifty_first_callers_share_one_context_that_no_loop_waited_for(
    server: RedisServer, certificate: Path, made: list[str], connect: Connect
):
    client = connect(secure(server, ssl_ca_certs=certificate), timeout=5)

    counts = await asyncio.gather(*(client.execute("INCR", b"n") for _ in range(50)))

    assert sorted(counts) == list(range(1, 51))
    assert made == ["redis-tls"]
    assert b"cmdstat_incr:calls=50," in server.cli("INFO", "commandstats")


async def test_clients_and_streams_with_the_same_options_share_one_context(
    server: RedisServer, certificate: Path, made: list[str], connect: Connect, listen: Listen
):
    url = secure(server, ssl_ca_certs=certificate)

    await asyncio.gather(*(connect(url, timeout=5).ping() for _ in range(3)))
    await listen(url).is_trusted()
    assert made == ["redis-tls"]
    await connect(secure(server, ssl_ca_certs=certificate, ssl_check_hostname="false"), timeout=5).ping()

    assert made == ["redis-tls"] * 2


async def test_a_stream_alone_makes_its_context_beside_the_loop(
    server: RedisServer, certificate: Path, made: list[str], listen: Listen
):
    listener = listen(secure(server, ssl_ca_certs=certificate))
    await listener.is_trusted()

    server.cli("SET", "app:a", 1)

    await listener.hears(b"app:a")
    assert set(made) == {"redis-tls"}


async def test_who_stops_waiting_for_the_context_takes_it_from_nobody(
    server: RedisServer, certificate: Path, made: list[str], connect: Connect
):
    client = connect(secure(server, ssl_ca_certs=certificate), timeout=5)
    first = asyncio.create_task(client.ping())
    second = asyncio.create_task(client.ping())
    for _ in range(3):
        await asyncio.sleep(0)

    first.cancel()
    await asyncio.wait([first, second])

    assert second.exception() is None
    assert made == ["redis-tls"]


async def test_certificates_of_servers_are_checked_unless_that_is_switched_off(server: RedisServer, connect: Connect):
    with pytest.raises(RedisUnavailableError, match="certificate verify failed"):
        await connect(secure(server), timeout=5).ping()

    await connect(secure(server, ssl_cert_reqs="none"), timeout=5).ping()


async def test_a_client_shows_its_certificate_where_one_is_demanded(
    server: RedisServer, certificate: Path, connect: Connect
):
    server.cli("CONFIG", "SET", "tls-auth-clients", "yes")
    key = certificate.with_name("key.pem")
    encrypted = encrypt(key, "right")
    trust = {"ssl_ca_certs": certificate}

    await connect(secure(server, **trust, ssl_certfile=certificate, ssl_keyfile=key), timeout=5).ping()
    locked = {**trust, "ssl_certfile": certificate, "ssl_keyfile": encrypted}
    await connect(secure(server, **locked, ssl_password="right"), timeout=5).ping()
    with pytest.raises(RedisUnavailableError):
        await connect(secure(server, **trust), timeout=5).ping()
    for wrong in ({}, {"ssl_password": "wrong"}):
        with pytest.raises(RedisUnavailableError, match="TLS options") as caught:
            await connect(secure(server, **locked, **wrong), timeout=5).ping()
        assert "wrong" not in str(caught.value)


async def test_a_file_that_is_missing_is_named_and_used_when_it_comes(
    server: RedisServer, certificate: Path, tmp_path: Path, connect: Connect
):
    missing = tmp_path / "later.pem"
    client = connect(secure(server, ssl_ca_certs=missing), timeout=5)
    for _ in range(2):
        with pytest.raises(RedisUnavailableError, match=r"ssl_ca_certs=.*later\.pem.*No such file"):
            await client.ping()

    shutil.copy(certificate, missing)

    await client.ping()


async def test_a_certificate_that_was_renewed_is_used_without_a_restart(
    server: RedisServer, certificate: Path, other_certificate: Path, tmp_path: Path, connect: Connect
):
    trusted, renewed = tmp_path / "trusted.pem", tmp_path / "renewed.pem"
    shutil.copy(other_certificate, trusted)
    client = connect(secure(server, ssl_ca_certs=trusted), timeout=5)
    with pytest.raises(RedisUnavailableError, match="verify failed"):
        await client.ping()

    shutil.copy(certificate, renewed)
    renewed.replace(trusted)

    await client.ping()


async def test_a_server_that_hangs_does_not_keep_its_connections_open(
    server: RedisServer, certificate: Path, connect: Connect
):
    client = connect(secure(server, ssl_ca_certs=certificate), timeout=0.5)
    await asyncio.gather(*(client.ping() for _ in range(5)))
    server.stop()
    try:
        with pytest.raises(RedisUnavailableError, match="within"):
            await client.ping()
        started = time.monotonic()
        await client.aclose()
        took = time.monotonic() - started
    finally:
        server.cont()

    assert took < 15, "half of what Python waits for a farewell"


async def test_a_connection_the_server_dropped_is_replaced(server: RedisServer, certificate: Path, connect: Connect):
    client = connect(secure(server, ssl_ca_certs=certificate, client_name="dropped"), timeout=5)
    await client.ping()

    server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.05)  # until the end of the connection has been read

    await client.ping()


async def test_sentinels_and_their_master_are_asked_over_tls(
    server: RedisServer, certificate: Path, made: list[str], connect: Connect, listen: Listen
):
    with running_sentinels(server, service="main", certificate=certificate) as sentinels:
        hosts = ",".join(f"127.0.0.1:{each.tls_port}" for each in sentinels)
        key = certificate.with_name("key.pem")
        url = (
            f"redis+sentinel://{hosts}/main?ssl=true&ssl_ca_certs={certificate}"
            f"&ssl_certfile={certificate}&ssl_keyfile={key}"
        )
        client = connect(url, timeout=5)
        counts = await asyncio.gather(*(client.execute("INCR", b"n") for _ in range(50)))
        listener = listen(url)
        await listener.is_trusted()

        assert sorted(counts) == list(range(1, 51))
        assert set(made) == {"redis-tls"}
        assert len(made) == 1
        await listener.stream.aclose()
        await client.aclose()


async def test_the_nodes_of_a_cluster_are_asked_over_tls(
    certificate: Path, made: list[str], server: RedisServer, connect: Connect, listen: Listen
):
    key = encrypt(certificate.with_name("key.pem"), "right")
    with running_cluster(certificate=certificate) as nodes:
        hosts = ",".join(f"127.0.0.1:{each.tls_port}" for each in nodes)
        url = (
            f"redis+cluster://{hosts}?ssl=true&ssl_ca_certs={certificate}"
            f"&ssl_certfile={certificate}&ssl_keyfile={key}&ssl_password=right"
        )
        client = connect(url, timeout=5)
        replies = await asyncio.gather(*(client.execute("SET", b"k%d" % n, n) for n in range(150)))
        listener = listen(url)
        await listener.is_trusted()

        assert replies == [b"OK"] * 150
        assert made == ["redis-tls"]
        await listener.stream.aclose()
        assert listener.stream.state is TrackingState.CLOSED
        await client.aclose()


async def test_options_are_kept_apart_by_their_values(certificate: Path):
    def of(options: str) -> object:
        return tls_of(parse_redis_url(f"rediss://localhost?{options}"))

    trusting = of(f"ssl_ca_certs={certificate}")

    assert of(f"ssl_ca_certs={certificate}") is trusting
    assert of("") is not trusting
    assert tls_of(parse_redis_url("redis://localhost")) is None


def test_a_child_does_not_wait_for_a_context_that_a_thread_of_its_parent_makes():
    target = parse_redis_url("rediss://localhost")
    of_parent = tls_of(target)

    child = os.fork()
    if child == 0:
        os._exit(tls_of(target) is of_parent)

    assert os.waitpid(child, 0)[1] == 0
    assert tls_of(target) is of_parent
