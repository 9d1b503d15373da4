"""The tutorial works: its file is written, its server started, and its commands run, word for word."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.house.snippets import python_blocks
from tests.integrations.fastapi.processes import ServerProcess, running
from tests.support.forked import CHECKOUT

PAGE = (CHECKOUT / "docs" / "tutorial.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
MEMORY = {"PYTHONUNBUFFERED": "1"}


@pytest.fixture(autouse=True)
def service(home: Path) -> None:
    """Save the service where the page says, in the working directory."""
    if shutil.which("curl") is None:
        assert "CI" not in os.environ, "the commands of the tutorial need curl"
        pytest.skip("no curl is installed")
    (source,) = (source for _, source in python_blocks(PAGE))
    (home / "service.py").write_text(source, encoding="utf-8")


def commands(section: str) -> Iterator[tuple[str, str]]:
    """Yield the commands with curl of a section, and what the page shows below each."""
    text = re.split(rf"(?m)^## {section}.*$", PAGE)[1].split("\n## ")[0]
    for block in re.findall(r"(?ms)^```console\n(.*?)^```$", text):
        for command, answer in re.findall(r"(?m)^\$ (.*)\n((?:(?!\$ ).+\n)*)", block):
            if command.startswith("curl "):
                yield command, answer.strip()


def asked(server: ServerProcess, command: str) -> str:
    """Run a command of the page against the server, wherever it listens."""
    done = subprocess.run(
        ["bash", "-c", command.replace(ADDRESS, server.url)], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def conversation(server: ServerProcess) -> None:
    *said, (read, history) = commands("5. Talk to it")
    for command, answer in said:
        assert asked(server, command) == answer, command
    assert asked(server, read) == history


async def test_the_tutorial_runs_without_a_server_of_data():
    async with running("uvicorn", "service:app", MEMORY) as server:
        for command, answer in commands("4. Ask it"):
            assert asked(server, command) == answer, command
        assert server.output.count("looking up Bergen") == 2, "once before the change, once after it"

        conversation(server)
        server.terminate()
        await server.ended()

    *_, (read, history) = commands("5. Talk to it")
    async with running("uvicorn", "service:app", MEMORY) as server:
        assert asked(server, read) == history


@pytest.mark.faults
async def test_the_tutorial_runs_with_two_workers(redis_url: str, empty_postgres_url: str):
    servers: Mapping[str, str] = {"REDIS_URL": redis_url, "DATABASE_URL": empty_postgres_url}
    assert "$ uvicorn service:app --workers 2" in PAGE
    assert "$ agent-service db upgrade" in PAGE
    subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        [sys.executable, "-m", "agent_service", "db", "upgrade"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **servers},
        check=True,
        timeout=120,
    )

    async with running("uvicorn --workers 2", "service:app", servers) as server:
        conversation(server)
