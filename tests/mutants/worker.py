"""
A process that answers about mutants, one line of JSON each: it forks a child that runs the tests on the changed file.

The parent has imported what takes long to import, and nothing of ours, so that a child starts at once and meets the
change. Started by ``pool`` in a copy of the checkout, with ``TEST_REDIS_URL`` and ``TEST_DATABASE_URL`` of its own.
"""

import importlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

WARM = (
    "aiosqlite",
    "alembic.command",
    "asyncpg",
    "cachetools",
    "hypothesis",
    "orjson",
    "psutil",
    "pydantic",
    "pydantic_settings",
    "redis.asyncio",
    "redis.asyncio.cluster",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
    "uvloop",
)
PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
OURS = ("agent_service", "tests", "benchmarks")
TIMES_LONGER = 5.0
"""A test hangs that is not over after so many times what it took unchanged, and the worker's patience more."""
STARTING = 600.0
"""Seconds that a child may take to import and collect: what hangs there is the machine, hardly the mutant."""
FIRST = 25
"""Tests that are asked before the others are even imported: they kill nearly all that dies."""
TEMPLATE_VARIABLE = "MUTANTS_TEMPLATE"


class Asker:
    """The plugin of a child: runs the wanted tests in their order and tells the parent about each."""

    def __init__(self, tests: list[str], tell: int, template: str | None) -> None:
        self._places = {name: place for place, name in enumerate(tests)}
        self._tell = tell
        self._template = template

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings  # noqa: PLC0415 - after the conftest has loaded its profile

        # A failure is one: how small it can be made does not matter.
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutants", parent=settings.default, phases=phases, database=None)
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._places), key=lambda item: self._places[item.nodeid]
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> str | None:
        """Spare each child the migration of a database that all can copy."""
        if fixturedef.argname != "postgres_template" or self._template is None:
            return None
        fixturedef.cached_result = (self._template, fixturedef.cache_key(request), None)
        return self._template

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        os.write(self._tell, f"{item.nodeid}\n".encode())
        return (yield)


def ask(order: dict[str, Any], template: str | None) -> dict[str, Any]:
    """Run the tests on a changed file: ``killed`` by one, ``hung`` in one, ``survived`` or ``untested``."""
    path = Path(order["path"])
    original = path.read_bytes()
    path.write_text(order["text"], encoding="utf-8")
    for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        stale.unlink()  # of the same second and the same size it would be believed
    started = time.monotonic()
    try:
        outcome, by = _run(order["tests"][:FIRST], order["patience"], template)
        if outcome == "survived" and order["tests"][FIRST:]:
            outcome, by = _run(order["tests"][FIRST:], order["patience"], template)
    finally:
        path.write_bytes(original)
    return {"outcome": outcome, "by": by, "seconds": round(time.monotonic() - started, 1)}


def _run(tests: list[list[Any]], patience: float, template: str | None) -> tuple[str, str]:
    folder = tempfile.mkdtemp(prefix="mutant-")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_child([name for name, _ in tests], writing, folder, template)
    os.close(writing)
    try:
        return _watch(child, reading, dict(tests), patience)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _watch(child: int, reading: int, seconds: dict[str, float], patience: float) -> tuple[str, str]:
    heard, current, longest = b"", "", STARTING
    while True:
        ready, _, _ = select.select([reading], [], [], longest)
        if not ready:
            return "hung", current
        told = os.read(reading, 65536)
        if not told:
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            if code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                return ("survived" if code == 0 else "untested"), ""
            return "killed", current or "collection"
        *names, heard = (heard + told).split(b"\n")
        if names:
            current = names[-1].decode()
            longest = patience + TIMES_LONGER * seconds.get(current, 0)


def _be_the_child(tests: list[str], tell: int, folder: str, template: str | None) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
        plugins = [part for name in PLUGINS for part in ("-p", name)]
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--basetemp={folder}/t"]
        code = int(pytest.main([*plugins, *options, *files], plugins=[Asker(tests, tell, template)]))
    finally:
        os._exit(code)


def main() -> None:
    """Answer until the input ends."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in WARM:
        with suppress(ImportError):
            importlib.import_module(name)
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    os.environ["PYTHONPATH"] = os.getcwd()  # noqa: PTH109 - of the processes that tests start
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    template = os.environ.pop(TEMPLATE_VARIABLE, None)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(ask(json.loads(line), template)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
