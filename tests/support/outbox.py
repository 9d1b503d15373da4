"""The outbox of the configured database."""

import pytest
from sqlalchemy import func, select

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.database.models.outbox import OutboxRow
from tests.support.waiting import until

NAMESPACE = "users"


def configure(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Set settings for this process from now on."""
    for name, value in settings.items():
        monkeypatch.setenv(name.upper(), value)
    reset_settings()


async def rows() -> int:
    """Return how many rows are in the outbox."""
    async with get_session() as db:
        return (await db.scalars(select(func.count()).select_from(OutboxRow))).one()


async def until_drained() -> None:
    """Wait until the outbox is empty."""

    async def empty() -> bool:
        return await rows() == 0

    await until(empty)
