"""Of the savers of one version one wins, from several processes too."""

import asyncio
from pathlib import Path

import pytest

from agent_service.state.file import FileStateStore
from agent_service.state.interface import StateStore
from agent_service.state.models import CoachContext
from agent_service.state.redis import RedisStateStore
from agent_service.state.sql import SQLStateStore
from tests.support.forked import together

ROUNDS = 5


async def test_each_version_is_written_once_in_a_folder(tmp_path: Path):
    written = await _race("file", str(tmp_path))

    await _is_one_history(written, FileStateStore(tmp_path))


async def test_each_version_is_written_once_in_redis(redis_url: str):
    written = await _race("redis", redis_url)

    await _is_one_history(written, RedisStateStore(redis_url, timeout=10))


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
async def test_each_version_is_written_once_in_a_database(database_url: str):
    written = await _race("sql", database_url)

    await _is_one_history(written, SQLStateStore(database_url))


async def test_many_stores_make_one_table_at_once(database_url: str):
    stores = [SQLStateStore(database_url, table="made_once") for _ in range(6)]
    async with SQLStateStore(database_url, table="other") as other:
        await other.list_user_ids()  # so that the database is migrated and none of them waits for another

    await asyncio.gather(*(store.save_context(CoachContext(user_id="a")) for store in stores))

    found = await stores[0].load_context("a")
    assert found is not None
    assert found.version == 6
    for store in stores:
        await store.aclose()


async def _race(kind: str, place: str) -> list[int]:
    """Let two processes save a user, expecting each version in turn; return the versions that they wrote."""
    async with together(2, "tests.state.writer", "race", kind, place, str(ROUNDS)) as writers:
        said = [await asyncio.to_thread(each.stdout.read) for each in writers]
        assert [await each.wait() for each in writers] == [0, 0]
    return [int(version) for each in said for version in each.split()]


async def _is_one_history(written: list[int], store: StateStore) -> None:
    async with store:
        found = await store.load_context("shared")
    assert found is not None
    assert sorted(written) == list(range(1, found.version + 1))
    assert found.version >= ROUNDS
