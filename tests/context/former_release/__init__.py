"""A process of the release whose fences are called ``%fence:{...}``, reduced to the commands it sends.

The scripts beside this file are those of that release, unchanged.
"""

import secrets
from pathlib import Path
from typing import Any

from tests.servers.redis import run_command

_SCRIPTS = {path.stem: path.read_text() for path in Path(__file__).parent.glob("*.lua")}


class FormerCache:
    """What such a process does with the cached contexts of one prefix, synchronously; they have one field, ``v``."""

    def __init__(self, url: str, prefix: str = "dynagent_ctx") -> None:
        self._url = url
        self._start = prefix.encode() + b"_"

    def _run(self, name: str, key: str, *arguments: Any) -> int:
        record = self._start + key.encode()
        fence = b"%fence:{" + record + b"}"
        return int(run_command(self._url, "EVAL", _SCRIPTS["fence"] + _SCRIPTS[name], 2, record, fence, *arguments))

    def get(self, key: str) -> int | None:
        value = run_command(self._url, "HGET", self._start + key.encode(), "v")
        return None if value is None else int(value)

    def begin(self, key: str) -> str:
        """Begin to write."""
        token = secrets.token_hex(8)
        self._run("fence_begin", key, token, 10_000)
        return token

    def finish(self, key: str, token: str, value: int) -> bool:
        """Cache what was written, unless another writer was under way."""
        return self._run("fence_finish", key, token, 60_000, "v", value) == 1

    def lease(self, key: str) -> str:
        """Begin to read the database."""
        token = secrets.token_hex(8)
        self._run("fence_lease", key, token, 10_000)
        return token

    def fill(self, key: str, token: str, value: int) -> bool:
        """Cache what was read, unless it may be out of date."""
        return self._run("fence_fill", key, token, 60_000, "v", value) == 1
