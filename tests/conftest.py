"""Fixtures for every test: real servers, and the settings of the developer's own shell kept out."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import surroundings

surroundings.clean()

from agent_service.core.settings import Settings, reset_settings  # noqa: E402 - nothing of ours sees the surroundings before

SETTINGS = {spelt for name in Settings.model_fields for spelt in (name, name.upper())}

# No test races the speed of the machine.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

pytest_plugins = [
    "tests.loops",
    "tests.servers.redis",
    "tests.servers.cluster",
    "tests.servers.postgres",
    "tests.servers.prepared",
    "tests.servers.vectors",
    "tests.support.garbage",
    "tests.support.needs",
    "tests.support.order",
    "tests.support.registered",
    "tests.support.reports",
    "tests.support.workers",
]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home and working directory of every test, empty at its beginning."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[None]:
    """No setting of the machine reaches a test, and no embedded database lands in the checkout."""
    for name in SETTINGS.intersection(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    reset_settings()
    yield
    reset_settings()
    for left in home.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
