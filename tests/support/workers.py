"""A pytest plugin: how many processes share a run (``-n auto``)."""

import os

import pytest

MEMORY_BYTES = 1_000_000_000
"""What one process takes with its servers and their data."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """
    Return three for each processor, because many tests wait for a server or a clock more than they compute.

    Fewer where the memory is small. None where the caller has said it (``PYTEST_XDIST_AUTO_NUM_WORKERS``). Servers that
    were given can serve one process only: each test empties them.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    if _given():
        return 0
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(3 * processors, _memory() // MEMORY_BYTES))


def pytest_configure(config: pytest.Config) -> None:
    if _given() and (config.getoption("numprocesses", None) or 0) > 1:
        raise pytest.UsageError(f"{' and '.join(_given())} can serve one process only: leave -n out, or say -n 0")


def _memory() -> int:
    """Return the bytes of memory of this machine; many where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def _given() -> list[str]:
    return [name for name in ("TEST_REDIS_URL", "TEST_DATABASE_URL") if name in os.environ]
