"""Fixtures for tests of services. Ask for them in the ``conftest.py`` beside your tests::

    pytest_plugins = ["agent_service.testing.plugin"]

It is no entry point: that would load the package into every run of pytest in an environment where it is installed, also
for projects that never heard of it. Nothing is in force unless a test, or a fixture of yours, asks for it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_service.core.errors import ConfigurationError
from agent_service.testing.kit.clock import ServiceClock
from agent_service.testing.kit.databases import PostgresTemplate, ServiceDatabase, SqliteTemplate
from agent_service.testing.kit.invalidations import Invalidations
from agent_service.testing.kit.isolation import ServiceKit
from agent_service.testing.kit.redis import ServiceRedis

__all__ = [
    "service_clock",
    "service_database",
    "service_database_template",
    "service_invalidations",
    "service_kit",
    "service_postgres_url",
    "service_redis",
    "service_redis_server",
]


@pytest.fixture
def service_kit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceKit]:
    """Isolate a test: default settings, empty caches, no runtime; at its end all is closed and nothing left."""
    _require_asyncio(request)
    kit = ServiceKit(monkeypatch.setenv)
    kit.isolate()
    kit.invalidated.watch(monkeypatch.setattr)
    test = request.node
    original = test.obj
    test.obj = kit.around(original)
    yield kit
    test.obj = original  # it may be run again
    kit.restore()


@pytest.fixture
def service_clock(service_kit: ServiceKit) -> ServiceClock:
    """Move time on for caches, repositories, cleanup and Redis: ``await service_clock.advance(3600)``."""
    return service_kit.clock


@pytest.fixture
def service_invalidations(service_kit: ServiceKit) -> Invalidations:
    """What the test invalidates, in order."""
    return service_kit.invalidated


@pytest.fixture(scope="session")
def service_redis_server() -> Iterator[ServiceRedis]:
    """The private Redis of the run; take ``service_redis``. Without one the test is skipped; under CI it fails."""
    try:
        server = ServiceRedis()
    except ConfigurationError as exc:
        if os.environ.get("CI"):
            pytest.fail(str(exc))
        pytest.skip(str(exc))
    yield server
    server.close()


@pytest.fixture
def service_redis(service_kit: ServiceKit, service_redis_server: ServiceRedis) -> ServiceRedis:
    """A real, empty Redis as REDIS_URL, which can be ``down()``, ``slow()`` and ``refusing()``."""
    service_redis_server.empty()
    service_kit.configure(redis_url=service_redis_server.url)
    service_kit.clock.also_moves(service_redis_server.let_pass)
    service_kit.count_connections(lambda: service_redis_server.connections)
    return service_redis_server


@pytest.fixture(scope="session")
def service_postgres_url() -> str | None:
    """A server for ``service_database``: TEST_DATABASE_URL if that names PostgreSQL; None: SQLite. Override it."""
    url = os.environ.get("TEST_DATABASE_URL", "")
    return url if url.startswith("postgresql+asyncpg://") else None


@pytest.fixture(scope="session")
def service_database_template(
    service_postgres_url: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PostgresTemplate | SqliteTemplate]:
    """A migrated database, which ``service_database`` copies."""
    if service_postgres_url is None:
        yield SqliteTemplate(tmp_path_factory.mktemp("agent-service"))
        return
    template = PostgresTemplate(service_postgres_url)
    yield template
    template.drop()


@pytest.fixture(scope="session")
def _service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent-service")


@pytest.fixture
def service_database(
    service_kit: ServiceKit, service_database_template: PostgresTemplate | SqliteTemplate, _service_folder: Path
) -> Iterator[ServiceDatabase]:
    """A fresh, migrated database as DATABASE_URL, which can be ``lost()``."""
    database = service_database_template.copy(_service_folder)
    service_kit.configure(database_url=database.url)
    yield database
    database.drop()


def _require_asyncio(request: pytest.FixtureRequest) -> None:
    backend = "trio" if request.node.get_closest_marker("trio") else "asyncio"
    if "anyio_backend_name" in request.fixturenames or "anyio_backend" in request.fixturenames:
        chosen = request.getfixturevalue("anyio_backend")
        backend = chosen if isinstance(chosen, str) else chosen[0]
    if backend != "asyncio":
        raise ConfigurationError(
            f"agent_service runs on asyncio, and {request.node.name} asks for {backend}; "
            'define the fixture anyio_backend in your conftest.py so that it returns "asyncio"'
        )
