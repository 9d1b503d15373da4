"""A real pgbouncer in transaction mode in front of a real PostgreSQL."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer, _unprivileged_account

CONFIGURATION = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
auth_file =
pool_mode = transaction
default_pool_size = 2
server_round_robin = 1
max_client_conn = 100
ignore_startup_parameters = {ignoring}
"""


@contextlib.contextmanager
def running_pgbouncer(server: PostgresServer, *, ignoring: str = "") -> Iterator[int]:
    """
    Start one whose two server connections per database take turns, give its port, and stop it at the end.

    :param ignoring: settings at the start of a connection that it takes and drops, instead of refusing them.
    """
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if binary is None:
        # Also where CI is set: no wheel brings one, and everything else is proved without it.
        sys.stderr.write("\nSKIPPING every pgbouncer test: none is installed\n")
        pytest.skip("no pgbouncer is installed")
    home = Path(tempfile.mkdtemp(prefix="agent-service-pgbouncer-"))
    target, own_port = urlsplit(server.url), free_port()
    configuration = home / "pgbouncer.ini"
    configuration.write_text(
        CONFIGURATION.format(host=target.hostname, port=target.port, own_port=own_port, ignoring=ignoring),
        encoding="utf-8",
    )
    account = {}
    if os.geteuid() == 0:
        for path in (home, configuration):  # which only their owner may read where the umask says so
            shutil.chown(path, _unprivileged_account())
        account = {"user": _unprivileged_account()}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([binary, str(configuration)], stdout=log, stderr=log, cwd=home, **account)  # type: ignore[call-overload]
    try:
        _wait_until_it_listens(own_port, process, home / "log")
        yield own_port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(home, ignore_errors=True)


def by_way_of(port: int, url: str) -> str:
    """Return a database's URL by way of pgbouncer."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))


def _wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"pgbouncer did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.02)
