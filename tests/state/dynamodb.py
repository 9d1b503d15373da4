"""A local DynamoDB: moto's server in a process of its own, which serves one request after the other.

DynamoDB's writes are atomic. Those of moto are as long as requests do not overlap, so it gets no threads.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

START_SECONDS = 60
_SERVE = """
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app))
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def running_dynamodb(folder: Path) -> Iterator[str]:
    """Return the URL of an empty server."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ
        )
        try:
            assert process.stdout is not None
            port = process.stdout.readline()
            assert port, (folder / "log").read_text()
            url = f"http://127.0.0.1:{int(port)}"
            deadline = time.monotonic() + START_SECONDS
            while not _answers(url):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "moto does not answer"
                time.sleep(0.02)
            yield url
        finally:
            process.kill()
            process.communicate()


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/moto-api/", timeout=10):
            return True
    except (URLError, OSError):
        return False
