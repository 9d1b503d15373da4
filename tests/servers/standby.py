"""A real standby that follows a real primary, both of our own, for reads that may lag."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.servers.postgres import PostgresServer, _binaries, running_postgres, serving


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
            copying = [str(binaries / "pg_basebackup"), "-D", str(home / "data"), "-d", primary.url, "-R"]
            subprocess.run([*copying, "--checkpoint=fast"], check=True, stdout=subprocess.DEVNULL, cwd=home, **account)
            with serving(binaries, home, account, recovery_min_apply_delay=lag) as standby:
                yield primary, standby
    finally:
        shutil.rmtree(home, ignore_errors=True)
