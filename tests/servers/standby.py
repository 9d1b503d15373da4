"""A real standby that follows a real primary, both of our own, for reads that may lag."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers.postgres import (
    PostgresServer,
    _binaries,
    _free_port,
    _stop,
    _wait_until_ready,
    running_postgres,
)


@contextlib.contextmanager
def running_primary_and_standby(lag: str = "0") -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """
    Start a primary, copy it, and start the copy as its standby; stop both at the end.

    :param lag: how long after the primary the standby shows each commit, in PostgreSQL's own words ("1s").
    :raises LookupError: where no PostgreSQL is installed.
    """
    home = Path(tempfile.mkdtemp(prefix="agent-service-standby-"))
    try:
        binaries, account = _binaries(home)
        with running_postgres() as primary:
            data, port = home / "data", _free_port()
            copying = [str(binaries / "pg_basebackup"), "-D", str(data), "-d", primary.url, "-R", "--checkpoint=fast"]
            subprocess.run(copying, check=True, stdout=subprocess.DEVNULL, cwd=home, **account)
            options = {"port": str(port), "unix_socket_directories": str(home), "listen_addresses": "127.0.0.1"}
            options["recovery_min_apply_delay"] = lag
            arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
            arguments += ["-c", "max_connections=200"]
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(
                    [str(binaries / "postgres"), "-D", str(data), *arguments],
                    stdout=log,
                    stderr=log,
                    cwd=home,
                    **account,
                )
            try:
                _wait_until_ready(binaries, port, process, home / "log")
                yield primary, PostgresServer(f"postgresql://postgres@127.0.0.1:{port}/postgres", process.pid)
            finally:
                _stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)
