"""Replaying what Redis missed: in which order, what is made only once, and what becomes of what cannot be made."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_service.core.errors import RedisUnavailableError
from agent_service.core.globs import compile_globs
from agent_service.infrastructure.cache.fallback.journal import Journal
from agent_service.infrastructure.cache.fallback.pending import Increment, PendingOperations
from agent_service.infrastructure.cache.fallback.replay import replay
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.cache.redis.counters import REMEMBERED
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from tests.servers.proxy import TcpProxy


@pytest.fixture
async def cache(client: RedisClient) -> AsyncIterator[RedisCache[Any]]:
    cache: RedisCache[Any] = RedisCache(client, namespace="n")
    yield cache
    await cache.aclose()


@pytest.fixture
def journal() -> Journal:
    return Journal()


def match(journal: Journal, pattern: str) -> None:
    globs = compile_globs([pattern])
    assert globs is not None
    journal.invalidate_matching("n", globs)


async def replayed(cache: RedisCache[Any], journal: Journal) -> PendingOperations:
    (pending,) = journal.take().values()
    await replay(cache.backend, pending, journal)
    return pending


async def test_invalidations_come_before_increments(cache: RedisCache[Any], journal: Journal):
    await cache.set_many({"n": 7, "stale": 1, "matched": 1, "kept": 1})
    await cache.set("tagged", 1, tags=["t"])
    for owed in (
        lambda: journal.invalidate("n", ["n", "stale"]),
        lambda: match(journal, "mat*"),
        lambda: journal.invalidate_tags("n", ["t"]),
        lambda: journal.add("n", "n", Increment(5, 60)),
        lambda: journal.add("n", "matched", Increment(2, 60)),
    ):
        owed()
    pending = await replayed(cache, journal)

    assert await cache.get_many(["n", "stale", "matched", "tagged", "kept"]) == {"n": 5, "matched": 2, "kept": 1}
    assert len(pending) == 0


async def test_a_cleared_namespace_is_cleared_before_anything_is_added(cache: RedisCache[Any], journal: Journal):
    await cache.set_many({"n": 7, "other": 1})
    journal.clear("n")
    journal.add("n", "n", Increment(5, 60))
    pending = await replayed(cache, journal)

    assert await cache.get_many(["n", "other"]) == {"n": 5}
    assert len(pending) == 0


async def test_more_than_one_command_takes_is_all_invalidated_and_added(cache: RedisCache[Any], journal: Journal):
    names = [f"{number}" for number in range(1_203)]
    await cache.set_many(dict.fromkeys(names, 1))
    journal.invalidate("n", names)
    for name in names[:103]:
        journal.add("n", name, Increment(2, 60))
    pending = await replayed(cache, journal)

    assert await cache.get_many(names) == dict.fromkeys(names[:103], 2)
    assert len(pending) == 0
    assert len(journal.changes) == 0


async def test_an_increment_of_unknown_outcome_is_sent_under_its_number_while_redis_remembers_it(
    cache: RedisCache[Any],
):
    clock = FakeClock()
    journal = Journal(monotonic=clock.monotonic)
    for key in ("made", "not made"):
        number = journal.changes.begin()
        if key == "made":
            await cache.backend.add_once(key, 5, 60, journal.changes.change(number))
        journal.add("n", key, Increment(5, 60, number, clock.monotonic()))
    clock.advance(REMEMBERED)
    await replayed(cache, journal)

    assert await cache.get_many(["made", "not made"]) == {"made": 5, "not made": 5}
    assert len(journal.changes) == 0


async def test_an_increment_that_redis_may_have_forgotten_is_not_sent_again_and_said(
    cache: RedisCache[Any], caplog: pytest.LogCaptureFixture
):
    clock = FakeClock()
    journal = Journal(monotonic=clock.monotonic)
    journal.add("n", "uncertain", Increment(5, 60, journal.changes.begin(), clock.monotonic()))
    journal.add("n", "uncertain", Increment(2, 60))
    clock.advance(REMEMBERED + 1)
    with caplog.at_level(logging.WARNING):
        await replayed(cache, journal)

    assert await cache.get("uncertain") == 2
    assert "outcome will stay unknown" in caplog.text
    assert len(journal.changes) == 0


async def test_what_is_no_counter_stays_as_it_is_and_the_others_are_paid(
    cache: RedisCache[Any], journal: Journal, caplog: pytest.LogCaptureFixture
):
    await cache.set("text", "no number")
    for key in ("text", "n"):
        journal.add("n", key, Increment(5, 60))
    with caplog.at_level(logging.WARNING):
        pending = await replayed(cache, journal)

    assert await cache.get_many(["text", "n"]) == {"text": "no number", "n": 5}
    assert "no integer" in caplog.text
    assert (len(pending), len(journal.changes)) == (0, 0)


async def test_what_was_paid_before_a_replay_broke_off_is_not_owed_any_more(redis_proxy: TcpProxy, redis_url: str):
    client = RedisClient(redis_proxy.url, timeout=0.3)
    cache: RedisCache[Any] = RedisCache(client, namespace="n")
    journal = Journal()
    journal.invalidate("n", ["stale"])
    journal.add("n", "n", Increment(5, 60))
    (pending,) = journal.take().values()
    remove = cache.backend.remove

    async def remove_and_lose_the_connection(keys: Any) -> int:
        removed = await remove(keys)
        redis_proxy.stall()
        return removed

    cache.backend.remove = remove_and_lose_the_connection  # type: ignore[method-assign] # a fault at that moment
    with pytest.raises(RedisUnavailableError):
        await replay(cache.backend, pending, journal)

    assert (dict(pending.keys), len(pending)) == ({}, 1)
    redis_proxy.resume()
    cache.backend.remove = remove  # type: ignore[method-assign]
    await replay(cache.backend, pending, journal)
    assert await cache.get("n") == 5
    assert (len(pending), len(journal.changes)) == (0, 0)
    await cache.aclose()
    await client.aclose()


@pytest.mark.parametrize("done", [True, False], ids=["executed, the reply lost", "never sent"])
async def test_an_increment_whose_replay_fails_is_made_once_in_the_end(
    cache: RedisCache[Any], journal: Journal, done: bool
):
    journal.add("n", "n", Increment(5, 60))
    journal.add("n", "other", Increment(1, 60))
    (pending,) = journal.take().values()
    add_once = cache.backend.add_once
    failing = ["n"]

    async def add_and_fail(key: str, *args: Any) -> int:
        if key not in failing:
            return await add_once(key, *args)
        failing.remove(key)
        if done:
            await add_once(key, *args)
        raise RedisUnavailableError("cut", maybe_executed=done)

    cache.backend.add_once = add_and_fail  # type: ignore[method-assign, assignment] # a fault at that moment
    with pytest.raises(RedisUnavailableError):
        await replay(cache.backend, pending, journal)

    assert len(pending) == 1
    assert len(journal.changes) == done, "a number is kept while its outcome is unknown, and no longer"
    await replay(cache.backend, pending, journal)
    assert await cache.get_many(["n", "other"]) == {"n": 5, "other": 1}
    assert (len(pending), len(journal.changes)) == (0, 0)
