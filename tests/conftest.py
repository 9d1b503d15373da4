"""Fixtures for every test: real servers, and the settings of the developer's own shell kept out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import surroundings

surroundings.clean()

from agent_service.core.settings import Settings, reset_settings  # noqa: E402 - nothing of ours sees the surroundings before

# No test races the speed of the machine.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

pytest_plugins = [
    "tests.loops",
    "tests.servers.redis",
    "tests.servers.postgres",
    "tests.servers.prepared",
    "tests.support.garbage",
    "tests.support.needs",
    "tests.support.reports",
    "tests.support.workers",
]


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of the machine reaches a test, and no embedded database lands in the checkout."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    reset_settings()
    yield
    reset_settings()
