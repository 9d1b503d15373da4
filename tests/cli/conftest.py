"""Input files for the command, and the command itself."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from agent_service.cli import main

Command = Callable[..., dict[str, Any]]
GzipWriter = Callable[[str, str | bytes], Path]


@pytest.fixture
def write_gzip(tmp_path: Path) -> GzipWriter:
    """Write a gzip file and give its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(content.encode() if isinstance(content, str) else content))
        return path

    return write


@pytest.fixture
def as_json(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with --json and give its object."""

    def run(*arguments: object, code: int = 0) -> dict[str, Any]:
        assert main([*map(str, arguments), "--json"]) == code
        shown = capsys.readouterr()
        assert shown.err == ""
        found: dict[str, Any] = json.loads(shown.out)
        return found

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with exit code 2, one line on stderr and the same as JSON; give the line."""

    def run(*arguments: object) -> str:
        assert main([*map(str, arguments), "--json"]) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith("agent-service: ")
        assert shown.err.count("\n") == 1
        failure = json.loads(shown.out)
        assert shown.err == f"agent-service: {failure['error']}\n"
        assert failure.keys() == {"error", "type"}
        return shown.err

    return run


def conversation_lines(conversations: Iterable[dict[str, Any]]) -> str:
    """Write conversations as JSON lines."""
    return "".join(json.dumps(each) + "\n" for each in conversations)
