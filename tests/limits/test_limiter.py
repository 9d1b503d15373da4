"""Rate limits: exact for all processes on Redis, and for each by itself without."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.errors import ConfigurationError, RateLimitExceededError, RateLimitValueError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.cache import InMemoryCache, close_cache, get_cache
from agent_service.infrastructure.cache.factory import open_cache
from agent_service.infrastructure.cache.fallback.cache import FallbackBackend, FallbackCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.limits import Rate, RateLimiter
from agent_service.infrastructure.limits.windows import TakenWeights
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.testing.clock import FakeClock
from tests.servers.redis import RedisServer
from tests.support.caches import make_fallback
from tests.support.forked import together
from tests.support.waiting import until


@pytest.fixture
async def shared(redis_url: str) -> AsyncIterator[FallbackCache[Any]]:
    """A cache on the shared, emptied Redis."""
    client = RedisClient(redis_url, timeout=5)
    cache, _ = make_fallback(client, namespace="limits")
    yield cache
    await cache.aclose()
    await client.aclose()


@pytest.fixture(params=["memory", "redis"])
def anywhere(request: pytest.FixtureRequest) -> FallbackCache[Any] | InMemoryCache[Any]:
    if request.param == "memory":
        return InMemoryCache(clock=FakeClock())
    cache: FallbackCache[Any] = request.getfixturevalue("shared")
    return cache


async def test_so_much_is_let_through_and_no_more(anywhere: InMemoryCache[Any]):
    limiter = RateLimiter("chat", "3/hour", cache=anywhere)

    decisions = [await limiter.take("ann") for _ in range(5)]

    assert [each.taken for each in decisions] == [True, True, True, False, False]
    assert [each.remaining[0].quota for each in decisions] == [2, 1, 0, 0, 0]
    assert decisions[2].retry_after == 0.0
    assert 3600 < decisions[3].retry_after <= 3660
    assert (await limiter.take("bob")).taken
    assert (await RateLimiter("other", "3/hour", cache=anywhere).take("ann")).taken


async def test_calls_weigh_what_they_say(anywhere: InMemoryCache[Any]):
    limiter = RateLimiter("tokens", Rate(100_000, 3600), cache=anywhere)

    assert (await limiter.take("ann", 60_000)).taken
    assert not (await limiter.take("ann", 60_000)).taken
    assert (await limiter.take("ann", 40_000)).taken
    assert not (await limiter.take("ann", 1)).taken


async def test_a_weight_of_nothing_only_looks(anywhere: InMemoryCache[Any]):
    limiter = RateLimiter("chat", "2/hour", cache=anywhere)

    before = await limiter.take("ann", 0)
    await limiter.take("ann", 2)
    after = await limiter.take("ann", 0)

    assert (before.taken, before.remaining[0].quota, before.remaining[0].reset_after) == (True, 2, 0.0)
    assert (after.taken, after.remaining[0].quota) == (True, 0)
    assert 3600 < after.remaining[0].reset_after <= 3660


async def test_no_window_is_charged_when_another_refuses(anywhere: InMemoryCache[Any]):
    limiter = RateLimiter("chat", "100/day", "3/hour", "50 per 30 minutes", cache=anywhere)

    decisions = [await limiter.take("ann", weight) for weight in (2, 2, 2, 1)]

    assert [each.taken for each in decisions] == [True, False, False, True]
    assert [(each.rate.seconds, each.quota) for each in decisions[-1].remaining] == [
        (1800, 47), (3600, 0), (86_400, 97),
    ]  # fmt: skip


@pytest.mark.parametrize("weight", [4, 10**9])
async def test_a_weight_that_no_waiting_helps_is_refused(anywhere: InMemoryCache[Any], weight: int):
    limiter = RateLimiter("chat", "100/day", "3/hour", cache=anywhere)

    with pytest.raises(RateLimitValueError, match=f"weight must be at most 3.*chat.*got {weight}"):
        await limiter.take("ann", weight)

    assert (await limiter.take("ann", 3)).taken


async def test_require_raises_what_is_too_much(anywhere: InMemoryCache[Any]):
    limiter = RateLimiter("chat", "1/hour", cache=anywhere)

    assert (await limiter.require("ann")).taken
    with pytest.raises(RateLimitExceededError, match=r"limiter chat .* try again in 36\d\d\.\d{3} seconds") as caught:
        await limiter.require("ann")
    assert 3600 < caught.value.retry_after <= 3660


@pytest.mark.parametrize("weight", [-1, 1.0, True, "1", None])
async def test_a_weight_that_is_none_is_refused(weight: Any):
    with pytest.raises(RateLimitValueError, match="weight must be an int of at least 0"):
        await RateLimiter("chat", "1/hour", cache=InMemoryCache()).take("ann", weight)


@pytest.mark.parametrize("key", ["", "x" * 9000, 7, "\ud800"])
async def test_a_key_that_cannot_be_used_is_refused(key: Any):
    with pytest.raises(RateLimitValueError, match="key"):
        await RateLimiter("chat", "1/hour", cache=InMemoryCache()).take(key)


@pytest.mark.parametrize(
    ("text", "quota", "seconds"),
    [
        ("20/minute", 20, 60), ("1000 per day", 1000, 86_400), ("5/10 seconds", 5, 10), ("1/1week", 1, 604_800),
        (" 7 / 2 Hours ", 7, 7200),
    ],
)  # fmt: skip
def test_a_rate_is_read(text: str, quota: int, seconds: int):
    assert Rate.parse(text) == Rate(quota, seconds)


@pytest.mark.parametrize(
    "rate",
    ["", "20", "20/", "/minute", "20/fortnight", "-1/minute", "0/minute", "1.5/minute", "20/0 seconds", 20, None],
)
def test_a_text_that_is_no_rate_is_refused(rate: Any):
    with pytest.raises(ConfigurationError):
        RateLimiter("chat", rate)


@pytest.mark.parametrize(
    ("quota", "seconds"),
    [(0, 1), (1.0, 1), (True, 1), (10**16, 1), (1, 0), (1, 1e-4), (1, True), (1, "1"), (1, float("nan")), (1, 1e9)],
)
def test_a_quota_or_length_that_cannot_be_used_is_refused(quota: Any, seconds: Any):
    with pytest.raises(ConfigurationError, match="must be"):
        Rate(quota, seconds)


@pytest.mark.parametrize("name", ["", "a b", 'a"b', "-a", "a" * 65, None, "ä"])
def test_a_name_that_cannot_be_used_is_refused(name: Any):
    with pytest.raises(ConfigurationError, match="name must be"):
        RateLimiter(name, "1/hour")


@pytest.mark.parametrize("rates", [(), ("1/hour", "2/60 minutes")])
def test_rates_that_contradict_each_other_are_refused(rates: tuple[str, ...]):
    with pytest.raises(ConfigurationError, match="a limiter"):
        RateLimiter("chat", *rates)


# -- windows that slide


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.integers(1, 10)), max_size=60),
    st.integers(10, 30),
    st.sampled_from([1, 7, 60, 1000]),
)
def test_no_stretch_of_the_length_of_a_window_lets_more_than_the_quota_through(
    calls: list[tuple[int, int]], quota: int, seconds: int
):
    rates, taken, passed, now = (Rate(quota, seconds), Rate(2 * quota, 3 * seconds)), TakenWeights(), [], 0
    for pause, weight in calls:
        now += pause
        outcome = taken.take(rates, weight, now)
        if outcome.taken:
            passed.append((now, weight))
        else:
            assert not taken.take(rates, weight, now + outcome.wait - 1).taken
            now += outcome.wait
            assert taken.take(rates, weight, now).taken  # when it was told to come back
            passed.append((now, weight))

    for rate in rates:
        for start, _ in passed:
            inside = [weight for when, weight in passed if start <= when < start + rate.milliseconds]
            assert sum(inside) <= rate.quota
        assert outcome_is_small(taken)


def outcome_is_small(taken: TakenWeights) -> bool:
    return all(len(each) <= 62 for each in taken.by_slot)


async def test_what_was_taken_is_back_a_sixtieth_late_at_most():
    clock = FakeClock()
    limiter = RateLimiter("chat", "10/minute", cache=InMemoryCache(clock=clock))
    await limiter.take("ann", 4)
    clock.advance(30)
    await limiter.take("ann", 6)

    clock.advance(29.999)
    assert not (await limiter.take("ann")).taken
    clock.advance(1.001)
    assert (await limiter.take("ann", 4)).taken
    assert not (await limiter.take("ann")).taken
    clock.advance(30)
    assert (await limiter.take("ann", 6)).taken


async def test_redis_decides_as_the_memory_of_a_process_would_at_the_same_moment(shared: FallbackCache[Any]):
    redis = RedisCache(shared.backend.redis.client, namespace="limits").backend
    for seed in range(20):
        dice, model = random.Random(seed), TakenWeights()
        limiter = RateLimiter(f"twin-{seed}", Rate(9, 0.05), Rate(20, 0.2), Rate(50, 60))
        for _ in range(60):
            weight = dice.choice([0, 1, 1, 2, 5])
            now, taken, wait, *left = await limiter._ask(redis, f"{limiter.name}:ann", weight)
            outcome = model.take(limiter.rates, weight, now)

            assert (bool(taken), wait) == (outcome.taken, outcome.wait)
            assert tuple(left) == tuple(number for pair in outcome.left for number in pair)


async def test_what_was_taken_first_comes_back_first_in_whatever_order_it_is_kept(
    shared: FallbackCache[Any], redis_server: RedisServer
):
    limiter, dice = RateLimiter("order", Rate(1500, 60)), random.Random(7)
    (rate,) = limiter.rates
    seconds, _ = redis_server.cli("TIME")
    slots = [int(seconds) * 1000 // rate.slot - age for age in range(50)]
    dice.shuffle(slots)
    weights = {slot: dice.randint(1, 50) for slot in slots}
    redis_server.cli("CONFIG", "SET", "hash-max-ziplist-entries", "8")
    fields = [part for slot, weight in weights.items() for part in (f"60000:{slot}", weight)]
    redis_server.cli("HSET", "agent_service:%limit:order:ann", *fields)

    now, taken, wait, *_ = await limiter._ask(shared.backend.redis, "order:ann", 700)
    redis_server.cli("CONFIG", "SET", "hash-max-ziplist-entries", "128")

    outcome = TakenWeights([weights]).take(limiter.rates, 700, now)
    assert (bool(taken), wait) == (outcome.taken, outcome.wait) == (False, outcome.wait)
    freed = sorted(weights)
    needed = sum(weights.values()) + 700 - rate.quota
    count = next(number for number in range(1, 51) if sum(weights[each] for each in freed[:number]) >= needed)
    assert wait == (freed[count - 1] + 1) * rate.slot + 60_000 - now


async def test_time_is_that_of_redis(shared: FallbackCache[Any], redis_server: RedisServer):
    def time_of_redis() -> int:
        seconds, microseconds = redis_server.cli("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    limiter = RateLimiter("chat", "1/hour")
    before = time_of_redis()
    now, *_ = await limiter._ask(shared.backend.redis, "chat:ann", 1)

    assert before <= now <= time_of_redis()


# -- in Redis


async def test_what_is_kept_in_redis_is_small_and_expires(shared: FallbackCache[Any], redis_server: RedisServer):
    limiter = RateLimiter("chat", Rate(10**6, 0.5), Rate(10**9, 30), cache=shared)
    for _ in range(50):
        await limiter.take("ann", 1000)

    (key,) = redis_server.cli("KEYS", "*limit*")
    assert key == b"agent_service:%limit:chat:ann"
    assert 30_000 < redis_server.cli("PTTL", key) <= 30_500
    assert redis_server.cli("HLEN", key) <= 122


async def test_what_another_program_put_there_is_replaced(shared: FallbackCache[Any], redis_server: RedisServer):
    limiter = RateLimiter("chat", "2/hour", cache=shared)
    redis_server.cli("SET", "agent_service:%limit:chat:ann", "text")

    assert [(await limiter.take("ann")).taken for _ in range(3)] == [True, True, False]

    redis_server.cli("DEL", "agent_service:%limit:chat:ann")
    redis_server.cli(
        "HSET", "agent_service:%limit:chat:ann", "x", "1", "3600000:y", "1", "3600000:9", "many", "1:1", "7"
    )
    assert [(await limiter.take("ann")).taken for _ in range(3)] == [True, True, False]


async def test_a_rate_that_was_changed_keeps_what_was_taken(shared: FallbackCache[Any]):
    await RateLimiter("chat", "5/hour", "100/day", cache=shared).take("ann", 5)

    assert not (await RateLimiter("chat", "5/hour", cache=shared).take("ann")).taken
    assert (await RateLimiter("chat", "6/hour", "10/minute", cache=shared).take("ann")).taken


async def test_four_processes_with_a_hundred_tasks_each_take_exactly_the_quota(own_redis: RedisServer):
    async with together(4, "tests.limits.process", own_redis.url, "100") as processes:
        lines = [await each.line() for each in processes]
        assert [await each.wait() for each in processes] == [0] * 4

    taken = [list(map(int, each.split())) for each in lines]
    assert sum(calls for calls, _ in taken) == 150
    assert sum(weight for _, weight in taken) == 1000


async def test_while_redis_is_down_every_process_keeps_the_limit_by_itself(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("CACHE_BREAKER_OPEN_SECONDS", "0.05")
    reset_settings()
    limiter = RateLimiter("chat", "10/hour")

    async def ten_tasks() -> list[Any]:
        return [each for many in await asyncio.gather(*(some() for _ in range(10))) for each in many]

    async def some() -> list[Any]:
        return [await limiter.take("ann") for _ in range(5)]

    before = await ten_tasks()
    own_redis.kill()
    meanwhile = await ten_tasks()
    own_redis.restart()

    async def serves() -> bool:
        return (await limiter.take("other", 0)).level == "redis"

    await until(serves)
    afterwards = await ten_tasks()  # Redis came back without its data
    await close_cache()

    for decisions, level in ((before, "redis"), (meanwhile, "memory"), (afterwards, "redis")):
        assert sum(each.taken for each in decisions) == 10
        assert {each.level for each in decisions} == {level}


async def test_no_call_fails_while_redis_is_killed_and_started_under_load(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("CACHE_BREAKER_OPEN_SECONDS", "0.05")
    reset_settings()
    limiter, levels, stop = RateLimiter("chat", Rate(10**9, 3600)), list[str](), asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            levels.append((await limiter.take("ann")).level)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(load()) for _ in range(20)]
    await until(lambda: "redis" in levels)
    await asyncio.to_thread(own_redis.kill)
    await until(lambda: levels[-1] == "memory")
    await asyncio.to_thread(own_redis.restart)
    await until(lambda: levels[-1] == "redis")
    stop.set()
    await asyncio.gather(*tasks)
    await close_cache()


async def test_what_redis_denies_is_no_outage_of_the_caches(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    own_redis.cli("ACL", "SETUSER", "some", "on", ">pw", "~*", "&*", "+@all", "-hgetall")
    monkeypatch.setenv("REDIS_URL", own_redis.url.replace("redis://", "redis://some:pw@"))
    reset_settings()
    limiter = RateLimiter("chat", "2/hour")

    with caplog.at_level(logging.WARNING, "agent_service"):
        decisions = [await limiter.take("ann") for _ in range(3)]

    assert [(each.taken, each.level) for each in decisions] == [(True, "memory"), (True, "memory"), (False, "memory")]
    assert len(caplog.records) == 1
    assert "HGETALL" in caplog.text.upper()
    backend = (await open_cache("limits", l1=False)).backend
    assert isinstance(backend, FallbackBackend)
    assert backend.redis_serves
    cache = await get_cache()
    assert await cache.set("k", 1)
    assert own_redis.cli("KEYS", "*:k") == [b"agent_service:default:k"]
    await close_cache()
