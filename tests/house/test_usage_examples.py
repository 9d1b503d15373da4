"""USAGE_EXAMPLES.py is a program that runs, twice, wherever the settings point."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "USAGE_EXAMPLES.py"


def test_the_examples_run_twice_and_tell_the_same(surroundings: str, capsys: pytest.CaptureFixture[str]):
    shown = []
    for _ in range(2):
        runpy.run_path(str(PROGRAM))["main"]()
        shown.append(capsys.readouterr().out)
    first, second = shown

    assert "100 callers at once: User(id='7', name='Ada') - queries: 1" in first
    assert ("mget: ['value1', 'value2', None]" in first) == (surroundings == "Redis and PostgreSQL")
    assert without_counters(first) == without_counters(second)


def without_counters(shown: str) -> list[str]:
    """Drop the lines that go on counting in one process."""
    return [line for line in shown.splitlines() if "hit rate" not in line and "refresh:" not in line]


def test_the_examples_leave_nothing_in_redis(redis_server, redis_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REDIS_URL", redis_url)

    subprocess.run([sys.executable, PROGRAM], check=True, capture_output=True)

    keys: list[bytes] = redis_server.cli("KEYS", "agent_service:*")
    assert [key for key in keys if not key.startswith(b"agent_service:%")] == []  # tokens and leases end by themselves
