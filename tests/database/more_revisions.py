"""Revisions that are not the package's, behind those that are."""

from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import pytest

from agent_service.infrastructure.database.schema import newest, revisions

AddRevision = Callable[..., str]

SOURCE = """
import sqlalchemy as sa
from alembic import op

from agent_service.infrastructure.database.schema.steps import *
from agent_service.infrastructure.database.schema.steps import constraint, run

revision, down_revision, branch_labels, depends_on = {revision!r}, {before!r}, None, None
SESSIONS, MESSAGES = "agent_service_sessions", "agent_service_session_messages"


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
"""


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Add a revision after the newest one, by what it does, and return its id."""
    folder = copytree(Path(__file__).parents[2] / "migrations", tmp_path / "migrations")
    monkeypatch.setattr(newest, "folder", lambda: folder)
    numbers = iter(range(9001, 9100))

    def add(upgrade: str, downgrade: str = "run(revision, down=True)") -> str:
        revisions.known.cache_clear()
        revision = f"agent_service_{next(numbers)}"
        source = SOURCE.format(revision=revision, before=revisions.head(), upgrade=upgrade, downgrade=downgrade)
        (folder / "versions" / f"{revision}.py").write_text(source)
        revisions.known.cache_clear()
        return revision

    yield add
    revisions.known.cache_clear()
