"""
A pytest plugin: of several processes, each begins with files whose tests take long, so that all end together.

Each process is given an equal share of the tests, and takes half of what another has left when its own are done. So no
process may come to a long test last, while the others have nothing left to take.
"""

from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import TypeVar

import pytest

T = TypeVar("T")

LONG = (
    "integrations/fastapi/test_stopping.py",
    "tenants/test_trigger_waking.py",
    "database/named/test_forks.py",
    "integrations/fastapi/test_chat_service.py",
    "database/test_beside_alembic.py",
    "house/test_packaging.py",
    "integrations/fastapi/rest/test_events.py",
    "database/test_forks.py",
    "tenants/test_outages_in_the_log.py",
    "testing/test_plugin.py",
    "database/test_group_commit_faults.py",
    "database/test_writer.py",
    "cache/faults/test_faults.py",
    "database/test_engine.py",
    "integrations/fastapi/rest/test_same_as_repository.py",
    "outbox/test_replica.py",
    "cache/test_conformance.py",
    "database/named/test_search.py",
    "database/test_adopting.py",
    "testing/test_page.py",
    "mutants/test_worker.py",
    "cache/test_distributed_lock.py",
    "tenants/test_trigger_processes.py",
    "redis/test_stalls.py",
    "database/test_interrupted_upgrades.py",
    "context/test_long_writes.py",
)
"""Files below ``tests/`` with tests of several seconds, the longest first."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    processes = int(getattr(config, "workerinput", {}).get("workercount", 1))
    if processes > 1:
        items[:] = dealt(items, processes, lambda item: item.path.relative_to(config.rootpath / "tests").as_posix())


def dealt(items: Sequence[T], shares: int, file_of: Callable[[T], str]) -> list[T]:
    """Return the items in another order: each share of it begins with some of the long files, whole where they fit."""
    long: dict[str, list[T]] = {file: [] for file in LONG}
    short: list[T] = []
    for each in items:
        long.get(file_of(each), short).append(each)
    hands = [list(chain.from_iterable(list(long.values())[number::shares])) for number in range(shares)]
    ordered: list[T] = []
    rest = iter(short)
    for number, hand in enumerate(hands):
        size = (len(items) - len(ordered)) // (shares - number)
        ordered += hand
        ordered += islice(rest, max(0, size - len(hand)))
    return ordered + list(rest)
