"""A store raises: whatever fails beneath it arrives as one error, with the user in it and the cause behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from agent_service.core.errors import AgentServiceError, ConfigurationError, StateConflictError, StateStoreError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.state.dynamodb import DynamoDBStateStore
from agent_service.state.file import FileStateStore
from agent_service.state.interface import StateStore
from agent_service.state.models import CoachContext
from agent_service.state.redis import RedisStateStore
from agent_service.state.sql import SQLStateStore
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer


def calls(store: StateStore) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "load": lambda: store.load_context("ada"),
        "save": lambda: store.save_context(CoachContext(user_id="ada", consolidated_summary="private")),
        "save expected": lambda: store.save_context(CoachContext(user_id="ada"), expected_version=0),
        "delete": lambda: store.delete_context("ada"),
        "list": store.list_user_ids,
    }


async def assert_all_fail(store: StateStore, cause: type[Exception]) -> None:
    for name, call in calls(store).items():
        with pytest.raises(StateStoreError) as caught:
            await call()
        assert not isinstance(caught.value, StateConflictError)
        assert isinstance(caught.value.__cause__, cause)
        assert name == "list" or "'ada'" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "private" not in str(caught.value)


async def test_a_database_that_is_not_there():
    async with SQLStateStore("postgresql+asyncpg://user:secret@127.0.0.1:1/none") as store:
        await assert_all_fail(store, AgentServiceError)


async def test_a_redis_that_is_killed_and_comes_back(own_redis: RedisServer):
    async with RedisStateStore(own_redis.url) as store:
        await store.save_context(CoachContext(user_id="ada"))
        own_redis.kill()
        await assert_all_fail(store, AgentServiceError)
        own_redis.restart()

        await store.save_context(CoachContext(user_id="ada"), expected_version=0)


async def test_a_folder_that_is_none(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    store = FileStateStore(tmp_path / "file")

    for name in ("load", "save", "save expected"):
        with pytest.raises(StateStoreError, match=r"'ada'.*file/ada\.json") as caught:
            await calls(store)[name]()
        assert caught.value.__cause__ is not None


async def test_a_dynamodb_that_is_not_there(dynamodb_url: str):
    # Each call is tried three times, with pauses between.
    async with DynamoDBStateStore("none", endpoint_url="http://127.0.0.1:1") as store:
        with pytest.raises(StateStoreError, match="'ada'") as caught:
            await store.load_context("ada")
        assert isinstance(caught.value.__cause__, BotoCoreError)
        with pytest.raises(StateStoreError, match="create the DynamoDB table 'none'"):
            await store.create_table()


async def test_a_dynamodb_table_that_is_not_there(dynamodb_url: str, table: str):
    async with DynamoDBStateStore(table, endpoint_url=dynamodb_url) as store:
        await assert_all_fail(store, ClientError)


async def test_a_cancelled_save_is_whole_or_not_at_all(redis_proxy: TcpProxy, redis_url: str):
    async with RedisStateStore(redis_proxy.url, timeout=10) as store, RedisStateStore(redis_url) as other:
        context = CoachContext(user_id="a", metadata={"n": 1})
        await store.save_context(context)
        redis_proxy.stall()
        save = asyncio.create_task(store.save_context(context))
        await asyncio.sleep(0)
        save.cancel()
        with pytest.raises(asyncio.CancelledError):
            await save
        redis_proxy.resume()

        assert context.version == 1
        assert (await other.load_context("a")) in (context, context.model_copy(update={"version": 2}))


async def test_stores_of_other_prefixes_do_not_see_one_another(redis_url: str):
    async with RedisStateStore(redis_url) as store, RedisStateStore(redis_url, prefix="other*") as other:
        await store.save_context(CoachContext(user_id="a"))
        await other.save_context(CoachContext(user_id="b"))

        assert await store.list_user_ids() == ["a"]
        assert await other.list_user_ids() == ["b"]
        assert await other.load_context("a") is None


async def test_what_was_given_stays_open(redis_url: str):
    client = RedisClient(redis_url)
    async with RedisStateStore(client=client) as store:
        await store.save_context(CoachContext(user_id="a"))

    assert await client.execute(b"EXISTS", b"agent_state_a") == 1
    await client.aclose()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SQLStateStore(),
        lambda: SQLStateStore("mysql://user:secret@host/db"),
        lambda: SQLStateStore("sqlite+aiosqlite:///a.db", table=""),
        lambda: RedisStateStore("http://user:secret@host"),
        lambda: RedisStateStore("redis://localhost", client=object()),
        lambda: DynamoDBStateStore(""),
        lambda: DynamoDBStateStore("t", client=object(), region="eu-central-1"),
    ],
)
def test_unusable_arguments_are_refused_at_once(make: Callable[[], StateStore]):
    with pytest.raises(ConfigurationError) as caught:
        make()

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("version", [b" 1", b"1 ", b'{"$int":"1"}', b"1.0", b'"1"', b"-1", b"\xff", b"[", b""])
async def test_a_save_ends_whatever_version_another_program_wrote(redis_url: str, version: bytes):
    client = RedisClient(redis_url, timeout=10)
    store: StateStore = RedisStateStore(client=client)
    await store.save_context(CoachContext(user_id="ada"))
    ((key,),) = [page async for page in client.scan(b"*ada*") if page]
    await client.execute("HSET", key, b"version", version)
    async with asyncio.timeout(30):
        try:
            await store.save_context(CoachContext(user_id="ada"))
        except StateStoreError as exc:
            assert "'ada'" in str(exc)  # noqa: PT017 - it may also be a number that is written with blanks
            await store.delete_context("ada")
            await store.save_context(CoachContext(user_id="ada"))
    assert await store.load_context("ada") is not None
    await client.aclose()
