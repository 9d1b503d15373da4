"""Old processes, whose fences have other names, and new ones before one cache: nothing outdated is cached."""

from collections.abc import AsyncIterator

import pytest

from agent_service.context.fences.protocol import Fence
from agent_service.context.keys import encode_key
from agent_service.context.redis import RedisContextStore
from agent_service.infrastructure.redis.client import RedisClient
from tests.context.former_release import FormerCache
from tests.servers.redis import RedisServer


@pytest.fixture
def old(redis_url: str) -> FormerCache:
    return FormerCache(redis_url)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisContextStore]:
    client = RedisClient(redis_url, timeout=5)
    yield RedisContextStore(client=client)
    await client.aclose()


@pytest.fixture
def new(store: RedisContextStore) -> Fence:
    return store.fence()


async def test_a_read_of_a_new_process_is_not_cached_over_a_write_of_an_old_one(
    old: FormerCache, new: Fence, store: RedisContextStore
):
    lease = await new.lease(["k"])

    writing = old.begin("k")
    filled = await new.fill(lease, ["k"], {"k": {"v": 1}}, 60)
    old.finish("k", writing, 2)

    assert filled == 0
    assert (old.get("k"), await store.get("k")) == (2, {"v": 2})


async def test_a_read_of_an_old_process_is_not_cached_over_a_write_of_a_new_one(old: FormerCache, new: Fence):
    lease = old.lease("k")

    writing = await new.begin(["k"])
    filled = old.fill("k", lease, 1)
    await new.finish(writing, ["k"], {"k": {"v": 2}}, 60)

    assert not filled
    assert old.get("k") == 2


@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("last", ["old", "new"])
async def test_of_writes_that_overlap_none_is_cached(first: str, last: str, old: FormerCache, new: Fence):
    if first == "old":
        of_old, of_new = old.begin("k"), await new.begin(["k"])
    else:
        of_new, of_old = await new.begin(["k"]), old.begin("k")

    if last == "old":
        await new.finish(of_new, ["k"], {"k": {"v": 1}}, 60)
        old.finish("k", of_old, 2)
    else:
        old.finish("k", of_old, 2)
        await new.finish(of_new, ["k"], {"k": {"v": 1}}, 60)

    assert old.get("k") is None


@pytest.mark.parametrize("writer", ["old", "new"])
async def test_nobody_reads_into_the_cache_while_a_write_is_under_way(writer: str, old: FormerCache, new: Fence):
    if writer == "old":
        old.begin("k")
    else:
        await new.begin(["k"])

    filled = (
        old.fill("k", old.lease("k"), 1),
        await new.fill(await new.lease(["k"]), ["k"], {"k": {"v": 1}}, 60),
    )

    assert filled == (False, 0)
    assert old.get("k") is None


async def test_after_a_write_of_either_side_the_other_caches_again(old: FormerCache, new: Fence):
    await new.finish(await new.begin(["k"]), ["k"], {}, 60)
    assert old.fill("k", old.lease("k"), 1)
    old.finish("k", old.begin("k"), 2)

    assert await new.fill(await new.lease(["k"]), ["k"], {"k": {"v": 3}}, 60) == 1
    assert old.get("k") == 3


async def test_fences_are_no_keys_of_the_store_and_lie_under_its_pattern(
    new: Fence, store: RedisContextStore, redis_server: RedisServer
):
    await store.set("k", {"v": 1})

    await new.begin([encode_key(key) for key in ("l", ("a", 1), "{x}")])

    fences = [key for key in redis_server.cli("KEYS", "*") if b"fence" in key and not key.startswith(b"%fence:")]
    assert len(fences) == 3
    assert all(key.startswith(b"dynagent_ctx_~%fence:") for key in fences)
    assert await store.list_keys() == ["k"]


async def test_without_the_old_names_the_new_ones_are_used(redis_url: str, redis_server: RedisServer):
    redis_server.cli("ACL", "SETUSER", "app", "on", ">pw", "resetkeys", "~dynagent_ctx_*", "+@all")
    client = RedisClient(redis_url.replace("redis://", "redis://app:pw@"), timeout=5)
    try:
        fence = RedisContextStore(client=client).fence()
        lease = await fence.lease(["k", "l"])
        await fence.finish(await fence.begin(["k"]), ["k"], {"k": {"v": 2}}, 60)

        assert await fence.fill(lease, ["k", "l"], {"k": {"v": 1}, "l": {"v": 1}}, 60) == 1
        assert redis_server.cli("KEYS", "%fence*") == []
    finally:
        redis_server.cli("ACL", "DELUSER", "app")
        await client.aclose()
