"""Of the savers of one version one wins, from several processes too."""

import asyncio
from pathlib import Path

import pytest

from agent_service.state.file import FileStateStore
from agent_service.state.models import CoachContext
from agent_service.state.redis import RedisStateStore
from agent_service.state.sql import SQLStateStore
from tests.state.processes import race


async def test_each_version_is_written_once_in_a_folder(tmp_path: Path):
    written = await race("file", str(tmp_path), processes=2, rounds=10)

    await _is_one_history(written, FileStateStore(tmp_path))


async def test_each_version_is_written_once_in_redis(redis_url: str):
    written = await race("redis", redis_url, processes=2, rounds=10)

    await _is_one_history(written, RedisStateStore(redis_url, timeout=10))


@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
async def test_each_version_is_written_once_in_a_database(database_url: str):
    written = await race("sql", database_url, processes=2, rounds=10)

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


async def _is_one_history(written, store) -> None:
    async with store:
        found = await store.load_context("shared")
    versions = sorted(version for each in written for version in each)
    assert found is not None
    assert versions == list(range(1, found.version + 1))
    assert found.version >= 10
