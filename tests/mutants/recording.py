"""
Run tests once, unchanged, and write down which lines each of them runs and how long it takes.

``python recording.py OUT FILE...`` in the checkout: a process of its own, so that coverage is measured from the first
import. It imports nothing of ours.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

PACKAGE = "agent_service"
ONCE = "not uvloop"
"""Tests that run on two event loops are asked on one."""


class Recorder:
    """The plugin: gives the lines that run during a test to that test."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._measured.switch_context(item.nodeid)
        started = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - started
            self._measured.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)


def record(arguments: list[str]) -> dict[str, Any]:
    """Run the tests; give for each of their files the seconds of those that passed, and which lines they ran."""
    measured = coverage.Coverage(
        data_file=None, source=[PACKAGE], concurrency=["thread", "greenlet"], config_file=False
    )
    recorder = Recorder(measured)
    measured.start()
    pytest.main(["-q", "-p", "no:cacheprovider", "-k", ONCE, *arguments], plugins=[recorder])
    measured.stop()
    tests: dict[str, dict[str, float]] = {}
    for name, seconds in recorder.seconds.items():
        passed = tests.setdefault(name.partition("::")[0], {})
        if name not in recorder.failed:
            passed[name] = round(seconds, 3)
    return _by_file(measured, tests)


def _by_file(measured: coverage.Coverage, tests: dict[str, dict[str, float]]) -> dict[str, Any]:
    data = measured.get_data()
    numbers = {name: place for passed in tests.values() for place, name in enumerate(passed)}
    found: dict[str, dict[str, dict[int, list[int]]]] = {file: {} for file in tests}
    for file in sorted(data.measured_files()):
        source = Path(file).relative_to(Path.cwd()).as_posix()
        for line, contexts in sorted(data.contexts_by_lineno(file).items()):
            for name in sorted(contexts):
                if name in numbers:
                    of_source = found[name.partition("::")[0]].setdefault(source, {})
                    of_source.setdefault(line, []).append(numbers[name])
    return {file: {"seconds": passed, "lines": found[file]} for file, passed in tests.items()}


if __name__ == "__main__":
    out, *files = sys.argv[1:]
    Path(out).write_text(json.dumps(record(files)))
