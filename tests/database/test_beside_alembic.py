"""An application with an Alembic of its own in the same database: neither stands in the other's way."""

from pathlib import Path

import pytest

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from tests.database.application import Application

SAME_NUMBERS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'shared.db'}"
    empty: str = request.getfixturevalue("empty_postgres_url")
    return empty


async def converse(url: str) -> int:
    database = DatabaseManager(url)
    async with database.session() as db:
        repo = SessionRepository(db)
        session = await repo.create(Session(user_id="ada", title="Needle"))
        await repo.add_message_to_session(session.id, {"role": "user", "content": "needle"})
        found = await repo.search_messages("ada", "needle")
    await database.close()
    return len(found)


async def upgrade_ours(url: str) -> bool:
    database = DatabaseManager(url)
    await database.upgrade()
    state = await database.check()
    await database.close()
    return state.ok


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
@pytest.mark.parametrize("revisions", [("a1b2", "c3d4"), SAME_NUMBERS, (*SAME_NUMBERS, "0008", "0009")])
async def test_both_are_upgraded_whoever_comes_first(
    url: str, order: str, revisions: tuple[str, ...], tmp_path: Path
) -> None:
    application = Application(tmp_path / "app", url)
    application.add_revisions(*revisions)

    if order == "theirs first":
        await application.upgrade()
    ok = await upgrade_ours(url)
    if order == "ours first":
        await application.upgrade()
    found = await converse(url)
    tables = await application.tables()
    version = await application.rows("SELECT version_num FROM alembic_version")

    assert (ok, found) == (True, 1)
    assert {f"app_{each}" for each in revisions} <= tables
    assert version == [(revisions[-1],)]
