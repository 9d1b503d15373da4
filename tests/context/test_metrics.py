"""What stores report: calls, errors and latency, by class, in the metrics of the process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_service.context import sync
from agent_service.context.caching.cache_adapter import CacheContextStore
from agent_service.context.database import DatabaseContextStore
from agent_service.context.files.store import FileContextStore
from agent_service.context.interface import ContextStore
from agent_service.context.memory import InMemoryContextStore
from agent_service.context.outside_store import as_store
from agent_service.context.redis import RedisContextStore
from agent_service.core.errors import ContextStoreError, StateStoreError
from agent_service.core.store_metrics import STORES, Measured
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis, get_redis_manager
from agent_service.state.file import FileStateStore
from agent_service.state.models import CoachContext
from tests.context import document_c


@pytest.fixture(autouse=True)
def from_nothing() -> Iterator[None]:
    STORES.reset()
    yield
    STORES.reset()


@pytest.fixture(params=["memory", "redis", "sqlite", "file", "cache", "outside"])
def store(request: pytest.FixtureRequest, tmp_path: Path, client: RedisClient) -> ContextStore:
    kinds: dict[str, Any] = {
        "memory": InMemoryContextStore,
        "redis": lambda: RedisContextStore(client=client),
        "sqlite": lambda: DatabaseContextStore(db_path=request.getfixturevalue("context_file")),
        "file": lambda: FileContextStore(tmp_path),
        "cache": lambda: CacheContextStore(InMemoryCache()),
        "outside": lambda: as_store(document_c.InMemoryContextStore()),
    }
    return kinds[request.param]()  # type: ignore[no-any-return]


async def test_every_operation_of_a_store_is_counted_and_timed(store: ContextStore):
    await store.set("a", {"n": 1})
    await store.get("a")
    await store.list_keys()
    await store.aclose()

    name = "InMemoryContextStore" if type(store).__name__ == "OutsideStore" else type(store).__name__
    counted = (await get_redis_manager()).get_metrics()["stores"][name]
    assert counted["count"] == 3
    assert counted["errors"] == 0
    assert 0 < counted["p50_ms"] <= counted["p99_ms"]
    await close_redis()


async def test_an_operation_that_fails_counts_as_an_error():
    down = RedisContextStore(host="127.0.0.1", port=1)
    for call in (down.get("a"), down.set("a", {})):
        with pytest.raises(ContextStoreError):
            await call
    await down.aclose()

    assert STORES.snapshot()["RedisContextStore"]["errors"] == 2
    assert STORES.snapshot()["RedisContextStore"]["count"] == 2


async def test_a_state_store_reports_as_itself(tmp_path: Path):
    store = FileStateStore(tmp_path)
    await store.save_context(CoachContext(user_id="ada"), expected_version=0)
    (tmp_path / "ada.json").write_text("damaged")
    with pytest.raises(StateStoreError):
        await store.load_context("ada")

    counted = STORES.snapshot()["FileStateStore"]
    assert (counted["count"], counted["errors"]) == (2, 1)


def test_synchronous_calls_are_counted_too(tmp_path: Path):
    with sync.FileContextStore(tmp_path) as store:
        store.set("a", {})

    assert STORES.snapshot()["FileContextStore"]["count"] == 1


def test_a_call_that_is_cancelled_is_no_error():
    with pytest.raises(KeyboardInterrupt), Measured("Store"):
        raise KeyboardInterrupt

    assert STORES.snapshot()["Store"]["errors"] == 0
    assert STORES.snapshot()["Store"]["count"] == 1
