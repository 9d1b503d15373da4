"""The live view of the fleet: one table in a pipe, drawn anew on a terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_service.cli import main
from agent_service.core.settings import reset_settings
from tests.cli.conftest import Command

SERVICE = """
import asyncio
from agent_service import cached
from agent_service.integrations.fleet import publish_fleet

@cached(ttl=60)
async def answer(n: int) -> int:
    return n

async def main():
    asyncio.get_running_loop().create_task(publish_fleet(0.2))
    for n in range(10**9):
        await answer(n // 4)
        await asyncio.sleep(0.002)
        if n == 200:
            print("ready", flush=True)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def configured(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL, of each engine in turn: without Redis the fleet meets there."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()


@contextmanager
def service(tmp_path: Path) -> Iterator[int]:
    """A process that publishes; give its pid."""
    command = [sys.executable, "-c", SERVICE]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def test_a_fleet_of_nobody_says_how_to_join_it(capsys):
    assert main(["top", "--once", "--interval", "1"]) == 0

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "AgentService(background=[publish_fleet])" in shown.err


def test_each_process_is_a_row_with_what_it_does_now(tmp_path: Path, as_json: Command):
    with service(tmp_path) as pid:
        (row,) = as_json("top", "--interval", 1)["processes"]

    assert row["process"].endswith(f":{pid}")
    assert row["requests/s"] > 0
    assert row["hit ratio"] == pytest.approx(0.75, abs=0.1)
    assert row["redis"] == "none"


def test_a_terminal_sees_a_table_that_renews_itself_until_ctrl_c(tmp_path: Path):
    with service(tmp_path) as pid:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "250", "LINES": "40"}
        command = [sys.executable, "-m", "agent_service", "top", "--interval", "1"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        ) as process:
            os.close(theirs)
            seen = b""
            try:
                while seen.count(b"Ctrl-C ends") < 2:
                    seen += os.read(ours, 65536)
            finally:
                process.send_signal(2)
            while True:
                try:
                    if not os.read(ours, 65536):
                        break
                except OSError:  # the other side has closed the terminal
                    break
            assert process.wait(30) == 130
        os.close(ours)

    assert f":{pid}".encode() in seen
