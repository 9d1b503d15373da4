"""The outbox at the command line, on both engines."""

import asyncio
from collections.abc import Callable

import pytest

from agent_service import close_database, get_session, invalidate_in
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.outbox import list_rows, set_rows_aside
from tests.cli.conftest import Command


@pytest.fixture(autouse=True)
def rows(database_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of three rows, of which the first two were set aside."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    reset_settings()

    async def store() -> list[str]:
        try:
            async with get_session() as db:
                for number in range(3):
                    invalidate_in(db, keys=[f"user:{number}"])
                    await db.flush()
            async with get_session() as db:
                ids = [each.id for each in await list_rows(db, 10)]
                await set_rows_aside(db, ids[:2])
            return [str(each) for each in ids]
        finally:
            await close_database()

    return asyncio.run(store())


def test_what_waits_and_what_was_set_aside_is_listed(rows: list[str], as_json: Command):
    found = as_json("outbox", "list")["rows"]

    assert [(each["id"], each["state"]) for each in found] == [*zip(rows, ("failed", "failed", "waiting"), strict=True)]
    assert "user:0" in found[0]["body"]
    assert [each["id"] for each in as_json("outbox", "list", "--failed")["rows"]] == rows[:2]
    assert [each["id"] for each in as_json("outbox", "list", "--limit", 1)["rows"]] == rows[:1]


def test_what_was_set_aside_is_retried(rows: list[str], as_json: Command, refused: Callable[..., str]):
    assert as_json("outbox", "retry", rows[1], rows[2]) == {"retried_rows": 1}
    assert [each["state"] for each in as_json("outbox", "list")["rows"]] == ["failed", "waiting", "waiting"]
    assert as_json("outbox", "retry") == {"retried_rows": 1}
    assert as_json("outbox", "list", "--failed")["rows"] == []
    assert "'nonsense' are not ids of the outbox" in refused("outbox", "retry", "nonsense")
