"""State stores of others: the third document's interface demands two methods, and a subclass writes no more."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from agent_service.core.errors import ConfigurationError, StateStoreError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.state.interface import StateStore
from agent_service.state.models import CoachContext
from agent_service.state.redis import RedisStateStore


class DictStateStore(StateStore):
    """As the third document plans it."""

    def __init__(self) -> None:
        self._contexts: dict[str, CoachContext] = {}

    async def load_context(self, user_id: str) -> CoachContext | None:
        return self._contexts.get(user_id)

    async def save_context(self, context: CoachContext) -> None:  # type: ignore[override] # as the document writes it
        self._contexts[context.user_id] = context


async def test_a_subclass_of_two_methods_is_a_state_store():
    async with DictStateStore() as store:
        await store.save_context(CoachContext(user_id="ada"))

        assert await store.load_context("ada") == CoachContext(user_id="ada")
        assert await store.load_context("bob") is None


async def test_what_a_subclass_of_two_methods_cannot_do_is_said_by_name():
    store = DictStateStore()

    with pytest.raises(StateStoreError, match=r"DictStateStore.*'ada'.*delete_context"):
        await store.delete_context("ada")
    with pytest.raises(StateStoreError, match=r"DictStateStore.*list_user_ids"):
        await store.list_user_ids()


# -- Redis


async def test_contexts_in_redis_expire_after_their_last_save(redis_url: str):
    client = RedisClient(redis_url, timeout=10)
    store = RedisStateStore(client=client, ttl=timedelta(seconds=60))
    context = CoachContext(user_id="ada")
    await store.save_context(context)
    await client.execute("PEXPIRE", "agent_state_ada", 5_000)
    await store.save_context(context, expected_version=1)

    assert 50_000 < await client.execute("PTTL", "agent_state_ada") <= 60_000
    await RedisStateStore(client=client).save_context(CoachContext(user_id="bob"))
    assert await client.execute("PTTL", "agent_state_bob") == -1
    await client.aclose()


async def test_a_context_that_has_expired_begins_again(redis_url: str):
    client = RedisClient(redis_url, timeout=10)
    store = RedisStateStore(client=client, ttl=60)
    context = CoachContext(user_id="ada")
    await store.save_context(context)
    await client.execute("PEXPIRE", "agent_state_ada", 0)

    assert await store.load_context("ada") is None
    await store.save_context(context, expected_version=0)
    assert context.version == 1
    await client.aclose()


@pytest.mark.parametrize("ttl", [0, -1, "60", True, float("nan"), float("inf")])
def test_an_unusable_time_to_live_is_refused_when_the_store_is_made(ttl: object):
    with pytest.raises(ConfigurationError, match="ttl"):
        RedisStateStore("redis://localhost", ttl=ttl)  # type: ignore[arg-type] # that is the point


async def test_a_client_of_redis_py_and_a_manager_serve_states(redis_url: str):
    given, manager = Redis.from_url(redis_url, protocol=2), RedisManager(redis_url, timeout=10)
    stores = [RedisStateStore(client=given, timeout=10), RedisStateStore(manager=manager)]
    await stores[0].save_context(CoachContext(user_id="ada"))

    found = await asyncio.gather(*(store.load_context("ada") for store in stores))

    assert [each is not None and each.version for each in found] == [1, 1]
    await given.aclose()
    await manager.aclose()
