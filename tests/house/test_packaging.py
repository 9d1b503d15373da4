"""What travels in the wheel, and that it works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built offline by the build backend itself."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which only the wheel's files, not the checkout, provide the package."""
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    return {**os.environ, "PYTHONPATH": str(site)}


def test_the_wheel_carries_types_migrations_lua_scripts_and_the_examples_and_nothing_of_the_workshop(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    lua = {str(path.relative_to(ROOT)) for path in (ROOT / "agent_service").rglob("*.lua")}

    migrations = {name for name in names if name.startswith("agent_service/infrastructure/database/migrations/")}
    shown = {f"agent_service/integrations/prometheus/{name}" for name in ("alerts.yml", "grafana.json")}
    assert {"agent_service/py.typed", "agent_service/cli/USAGE_EXAMPLES.py"} | lua | shown <= names
    assert any(name.endswith("/env.py") for name in migrations)
    assert any("/versions/" in name for name in migrations)
    assert not [name for name in names if name.split("/")[0] not in {"agent_service", _info(names)}]
    assert not [name for name in names if "__pycache__" in name]


def _info(names: set[str]) -> str:
    return next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))


@pytest.mark.timeout(300)  # an interpreter compiles the package anew, and the tour takes half a minute
def test_the_wheel_alone_migrates_a_database_and_gives_the_tour(installed: dict[str, str], tmp_path: Path):
    environment = {**installed, "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'wheel.db'}"}

    for program in (
        [
            "-c",
            "from agent_service.cli import main; raise SystemExit(main(['db', 'upgrade']) or main(['db', 'check']))",
        ],
        ["-m", "agent_service", "tour"],
    ):
        # -P keeps the working directory, and -S would lose the dependencies: PYTHONPATH comes first.
        run = [sys.executable, "-P", *program]
        done = subprocess.run(run, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)

        assert done.returncode == 0, done.stderr

    assert "requests                    200,000\n" in done.stdout
    assert "mismatches                  0\n" in done.stdout


def test_the_package_is_imported_from_the_wheel_in_these_tests(installed: dict[str, str], tmp_path: Path):
    run = [sys.executable, "-P", "-c", "import agent_service; print(agent_service.__file__)"]

    shown = subprocess.run(run, cwd=tmp_path, env=installed, check=True, capture_output=True, text=True)

    assert Path(shown.stdout.strip()).is_relative_to(installed["PYTHONPATH"])
