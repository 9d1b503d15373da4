"""What SessionWriter tries again: transactions that the database ended because of others."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from agent_service.core.errors import DatabaseUnavailableError
from agent_service.infrastructure.database.append.writer import SessionWriter
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.errors.retrying import pause_before
from tests.database.histories import Acknowledged, check, new_sessions


async def test_a_file_that_another_process_has_locked_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_service.infrastructure.database.engine.creating.BUSY_TIMEOUT", 0.05)
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'busy.db'}")
    (session_id,) = await new_sessions(database, 1)
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async with SessionWriter(database) as writer:
        waiting = asyncio.create_task(writer.append(session_id, {"role": "user"}))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        other.execute("ROLLBACK")
        added = await waiting
    other.close()
    await database.close()

    assert added.seq == 1


async def test_a_file_that_stays_locked_ends_in_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_service.infrastructure.database.engine.creating.BUSY_TIMEOUT", 0.05)
    database = DatabaseManager(f"sqlite+aiosqlite:///{tmp_path / 'busy.db'}")
    (session_id,) = await new_sessions(database, 1)
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async with SessionWriter(database, timeout=0.5) as writer:
        with pytest.raises(DatabaseUnavailableError, match=r"within 0\.5 s"):
            await writer.append(session_id, {"role": "user"}, client_id="once")
        other.execute("ROLLBACK")  # perhaps just in time for the append that was given up: its outcome is unknown
        added = await writer.append(session_id, {"role": "user"}, client_id="once")
        following = await writer.append(session_id, {"role": "user"})
    other.close()
    await database.close()

    assert (added.seq, following.seq) == (1, 2)


async def test_serialization_failures_are_tried_again(postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    database = DatabaseManager(postgres_url)
    async with database.session() as db:
        await db.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable'))
    await database.close()
    ids = await new_sessions(database, 2)

    async def write(number: int) -> Acknowledged:
        stored: Acknowledged = {}
        async with SessionWriter(database) as writer:
            for turn in range(10):
                client_id = f"{number}-{turn}"
                message = {"role": "user", "content": client_id}
                added = await writer.append(ids[turn % 2], message, client_id=client_id)
                stored[client_id] = (added.session_id, added.seq)
        return stored

    acknowledged = await asyncio.gather(*map(write, range(4)))
    total = await check(database, ids, {k: v for each in acknowledged for k, v in each.items()})
    await database.close()

    assert total == 40


def test_pauses_differ_and_have_a_bound() -> None:
    pauses = [[pause_before(attempt) for _ in range(200)] for attempt in (1, 5, 100, 5000)]

    assert all(
        0 <= pause <= bound for each, bound in zip(pauses, (0.02, 0.32, 1.0, 1.0), strict=True) for pause in each
    )
    assert all(len(set(each)) > 100 for each in pauses)
