"""Embedded servers of one test, which are gone after it."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_service.infrastructure.redis.embedded import place, server
from agent_service.infrastructure.redis.embedded.binary import find_server

__all__ = ["own_servers", "wait_for"]


@contextmanager
def own_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use no server of another test in the block, and leave none after it."""
    if find_server() is None:
        pytest.fail(place.HOW_TO_GET_ONE) if os.environ.get("CI") else pytest.skip(place.HOW_TO_GET_ONE)
    monkeypatch.setenv(place.EMBEDDED_FOLDER, "")
    monkeypatch.setattr(place, "_known", {})
    try:
        yield
    finally:
        left = [Path(each.folder) for each in server._servers.values() if each.joined]
        for each in server._servers.values():
            each.leave()
        server._servers.clear()
        wait_for(lambda: all(map(_is_free, left)))


def _is_free(folder: Path) -> bool:
    """Tell whether nobody looks after the server of a folder."""
    try:
        lock = os.open(folder / "supervisor.lock", os.O_RDWR)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def wait_for(happened: Callable[[], bool], seconds: float = 30) -> float:
    """Return how many seconds it took."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() < began + seconds
        time.sleep(0.005)
    return time.monotonic() - began
