"""Workers side by side, each in a copy of the checkout, with a Redis and a PostgreSQL of its own."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.mutants.worker import TEMPLATE_VARIABLE
from tests.servers.postgres import TEMPLATE, PostgresServer, running_postgres
from tests.servers.redis import RedisServer

__all__ = ["Worker", "running_worker"]

_NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".mutants", ".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", "*.pyc"
)


class Worker:
    """A running worker; one question at a time.

    :param patience: seconds; see ``worker.TIMES_LONGER``.
    """

    def __init__(self, process: "subprocess.Popen[str]", patience: float) -> None:
        self._process = process
        self._patience = patience

    def ask(self, path: str, text: str, tests: Mapping[str, float]) -> dict[str, Any]:
        """Return what becomes of a file that says this, by the word of these tests (with their seconds)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"path": path, "text": text, "tests": list(tests.items()), "patience": self._patience}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("a worker ended")
        outcome: dict[str, Any] = json.loads(answer)
        return outcome


@contextmanager
def running_worker(root: Path, *, with_servers: bool = True, patience: float = 15) -> Iterator[Worker]:
    """Start a worker over a copy of the checkout, and stop everything at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True))
        copy = Path(folder, "checkout")
        shutil.copytree(root, copy, ignore=_NOT_COPIED)
        environment = dict(os.environ)
        if with_servers:
            environment |= _servers(stack)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.mutants.worker"],
            cwd=copy,
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        yield Worker(process, patience)


def _servers(stack: ExitStack) -> dict[str, str]:
    redis = stack.enter_context(RedisServer())
    postgres = stack.enter_context(running_postgres())
    asyncio.run(_migrate(postgres))
    return {"TEST_REDIS_URL": redis.url, "TEST_DATABASE_URL": postgres.url, TEMPLATE_VARIABLE: TEMPLATE}


async def _migrate(postgres: PostgresServer) -> None:
    from agent_service.infrastructure.database.engine import DatabaseManager  # noqa: PLC0415

    database = DatabaseManager(postgres.create_database(TEMPLATE))
    await database.upgrade()
    await database.close()
