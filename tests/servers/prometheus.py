"""A real Prometheus, and the tool that checks what it reads."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.ports import free_port
from tests.servers.programs import program

CONFIGURATION = """
global:
  scrape_interval: 3s
  scrape_timeout: 3s
  evaluation_interval: 1s
rule_files:
  - {rules}
scrape_configs:
  - job_name: tested
    metrics_path: {path}
    static_configs:
      - targets: ["{target}"]
"""


def promtool(*arguments: str, stdin: bytes | None = None) -> str:
    """Run promtool and return what it says; what it objects to fails the test."""
    run = [program("promtool"), *arguments]
    done = subprocess.run(run, input=stdin, check=False, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


@contextmanager
def running_prometheus(folder: Path, *, target: str, rules: Path, path: str = "/metrics") -> Iterator[str]:
    """Run a Prometheus that scrapes a target; give its URL.

    :param folder: where it keeps what it reads.
    """
    binary = program("prometheus")
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(rules=rules, target=target, path=path), encoding="utf-8")
    port = free_port()
    command = [
        binary,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = subprocess.Popen(command, cwd=folder)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
