"""A pytest plugin: the marker ``server`` on each test that takes a server from a fixture, for ``-m "not server"``."""

import pytest

SERVERS = frozenset(
    {"redis_server", "own_redis", "cluster", "postgres_server", "dynamodb_server", "database_url", "surroundings"}
)
"""The fixtures that start one; the last two do so for some of their parameters."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
