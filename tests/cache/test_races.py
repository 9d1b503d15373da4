"""No read that begins after an invalidation returned gives an older value, whatever happens at the same time.

Two caches over one Redis stand for two processes. Every command is held up before it is sent and before its reply is
seen, and every load at its beginning and end, and all go on in an order that Hypothesis chooses; so the races are in
the choice, and one that goes wrong is found again and made small. Beside it, the same under load for a while, as fast
as it goes.
"""

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent_service.core.singleflight import Breakable, SingleFlight
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from tests.cache.gates import GatedClient, Gates, free
from tests.cache.truth import INVALIDATIONS, OF_ALL_KEYS, READS, Truth
from tests.servers.redis import GivenServer, RedisServer
from tests.support.caches import make_fallback

KEY = "a"
MOST_AT_ONCE = 8
HELD = st.sampled_from(["everywhere", "while it loads", "while it loads"])
"""Where a call is held up; an invalidation that is held up only while it loads is not held up at all."""


def redis_cache(client: RedisClient) -> BaseCache[Any]:
    return RedisCache(client)


def fallback_cache(client: RedisClient) -> BaseCache[Any]:
    return make_fallback(client)[0]


MAKERS: dict[str, Callable[[RedisClient], BaseCache[Any]]] = {"redis": redis_cache, "fallback": fallback_cache}


class LoadFailedError(Exception):
    pass


class FreeFlights(SingleFlight):
    """Loads that pass the gates where their callers do, which is nothing that tells loads apart."""

    def _start(
        self,
        here: tuple[asyncio.AbstractEventLoop, str],
        load: Callable[[Breakable], Coroutine[Any, Any, Any]],
        open_lease: Callable[[], Breakable],
        context: Iterable[Any],
    ) -> Any:
        return super()._start(here, load, open_lease, (*context, free))


class Race:
    """Reads and invalidations of two caches, step by step."""

    def __init__(self, server: RedisServer | GivenServer, make: Callable[[RedisClient], BaseCache[Any]]) -> None:
        server.cli("FLUSHDB")
        self.gates = Gates()
        self.truth = Truth([KEY])
        self.tasks: list[asyncio.Task[None]] = []
        self.wrong: list[str] = []
        self.clients = [GatedClient(server.url, timeout=10) for _ in range(2)]
        for each in self.clients:
            each.gates = self.gates
        self.caches = [make(each) for each in self.clients]
        for cache in self.caches:
            cache.flights = cache.loading.flights = FreeFlights()

    async def run(self, steps: Sequence["Step"]) -> None:
        try:
            for each in steps:
                await each.take(self)
                await self.gates.settle()
            self.gates.let_all_through()
            await asyncio.gather(*self.tasks)
            for cache in self.caches:
                await self.read(cache, "get", fails=False)
        finally:
            self.gates.let_all_through()
            for cache in self.caches:
                await cache.aclose()
            for client in self.clients:
                await client.aclose()
        assert self.wrong == []

    def begin(self, call: Callable[[], Coroutine[Any, Any, None]], *, held: str) -> None:
        if sum(not each.done() for each in self.tasks) < MOST_AT_ONCE:
            context = contextvars.copy_context()
            context.run(free.set, held != "everywhere")
            self.tasks.append(asyncio.create_task(call(), context=context))

    async def read(self, cache: BaseCache[Any], how: str, *, fails: bool) -> None:
        oldest = self.truth.oldest(KEY)

        async def load() -> int:
            await self.gates.stop()
            version = self.truth.versions[KEY]
            await self.gates.stop(everybody=True)
            if fails:
                raise LoadFailedError
            return version

        try:
            found = await READS[how](cache, KEY, load, [])
        except LoadFailedError:
            return
        if found is not None and found < oldest:
            self.wrong.append(f"{how} gave {found}, but what came before {oldest} was invalidated")

    async def invalidate(self, cache: BaseCache[Any], how: str) -> None:
        changed = self.truth.change([KEY])
        await INVALIDATIONS[how](cache, KEY)
        self.truth.invalidated(changed)


class Read(NamedTuple):
    cache: int
    how: str
    fails: bool
    held: str

    async def take(self, race: Race) -> None:
        fails = self.fails and self.how.startswith("stale")
        race.begin(lambda: race.read(race.caches[self.cache], self.how, fails=fails), held=self.held)


class Invalidate(NamedTuple):
    cache: int
    how: str
    held: str

    async def take(self, race: Race) -> None:
        race.begin(lambda: race.invalidate(race.caches[self.cache], self.how), held=self.held)


class GoOn(NamedTuple):
    """Lets some go on: those that wait longest, or, counted from behind, those that came last."""

    places: list[int]

    async def take(self, race: Race) -> None:
        for place in self.places:
            if race.gates.waiting:
                race.gates.let_through(place)
                await race.gates.settle()


Step = Read | Invalidate | GoOn

HELD = st.sampled_from(["everywhere", "while it loads", "while it loads"])
"""Where a call is held up; an invalidation that is held up only while it loads is not held up at all."""


def a_few(names: Iterable[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(names)), min_size=1, max_size=2, unique=True)


@st.composite
def histories(draw: st.DrawFn, size: int) -> list[Step]:
    """A few kinds of calls, often: they meet each other more than many kinds would."""
    reads, invalidations = st.sampled_from(draw(a_few(READS))), st.sampled_from(draw(a_few(INVALIDATIONS)))
    caches = st.integers(0, 1)
    steps = (
        st.builds(Read, caches, reads, st.booleans(), HELD)
        | st.builds(Invalidate, caches, invalidations, HELD)
        | st.builds(GoOn, st.lists(st.integers(-4, 3), min_size=1, max_size=4))
    )
    return draw(st.lists(steps, min_size=5, max_size=size))


def play(
    server: RedisServer | GivenServer, kind: str, examples: int, size: int, *, phases: Sequence[Phase] = tuple(Phase)
) -> None:
    @settings(
        max_examples=examples, phases=phases, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    @given(histories(size))
    def race(steps: list[Step]) -> None:
        async def run() -> None:
            async with asyncio.timeout(60):  # nobody waits for ever
                await Race(server, MAKERS[kind]).run(steps)

        asyncio.run(run())

    race()


@pytest.mark.parametrize("kind", MAKERS)
def test_in_any_order_of_steps_nothing_is_read_that_was_invalidated_before(
    kind: str, redis_server: RedisServer | GivenServer
):
    quickly = (Phase.reuse, Phase.generate)  # to make a failure small takes a while; the long run does it
    play(redis_server, kind, 20, 30, phases=quickly)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", MAKERS)
def test_in_thousands_of_orders_of_steps_nothing_is_read_that_was_invalidated_before(
    kind: str, redis_server: RedisServer | GivenServer
):
    play(redis_server, kind, 2000, 60)


# -- as fast as it goes


@pytest.fixture
async def clients(redis_url: str) -> AsyncIterator[list[RedisClient]]:
    clients = [RedisClient(redis_url, timeout=5) for _ in range(2)]
    yield clients
    for each in clients:
        await each.aclose()


class Stress:
    """Readers and writers over two caches; reads that give what was invalidated before they began are wrong.

    :param tolerance: seconds for which a reader may go on seeing what was invalidated.
    :param enough: whether there was enough of everything; a run that is slow goes on for that, up to a minute.
    """

    keys = ("a", "b", "c")

    def __init__(
        self, caches: Sequence[BaseCache[Any]], tolerance: float = 0.0, *, enough: Callable[["Stress"], bool] = bool
    ) -> None:
        self.caches = caches
        self.enough = enough
        self.truth = Truth(self.keys, tolerance)
        self.chance = random.Random(7)
        self.reads = 0
        self.wrong: list[str] = []

    async def run(self, seconds: float) -> None:
        end = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(end + 90), asyncio.TaskGroup() as group:
                for cache in self.caches:
                    group.create_task(self.write(cache, end))
                    for _ in range(10):
                        group.create_task(self.read(cache, end))
        finally:
            for cache in self.caches:
                await cache.aclose()

    def goes_on(self, end: float) -> bool:
        now = asyncio.get_running_loop().time()
        return now < end or (now < end + 60 and not self.enough(self))

    async def write(self, cache: BaseCache[Any], end: float) -> None:
        while self.goes_on(end):
            key, how = self.chance.choice(self.keys), self.chance.choice(list(INVALIDATIONS))
            changed = self.truth.change(self.keys if how in OF_ALL_KEYS else [key])
            await INVALIDATIONS[how](cache, key)
            self.truth.invalidated(changed)
            await asyncio.sleep(self.chance.random() * 0.01)

    async def read(self, cache: BaseCache[Any], end: float) -> None:
        while self.goes_on(end):
            key, how = self.chance.choice(self.keys), self.chance.choice(list(READS))
            oldest = self.truth.oldest(key)

            async def load(key: str = key, fails: bool = how == "stale on error") -> int:
                version = self.truth.versions[key]
                await asyncio.sleep(self.chance.random() * 0.005)
                if fails and self.chance.random() < 0.5:
                    raise LoadFailedError
                return version

            try:
                found = await READS[how](cache, key, load, [])
            except LoadFailedError:
                continue
            if found is not None and found < oldest:
                self.wrong.append(f"{how} of {key} gave {found}, but what came before {oldest} was invalidated")
            self.reads += 1


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.faults)])
async def test_under_load_no_read_that_begins_after_an_invalidation_gives_an_older_value(
    kind: str, seconds: float, clients: list[RedisClient]
):
    caches = [MAKERS[kind](each) for each in clients]
    happened = ("fill_rejected", "stale", "refreshes")

    def counts(name: str) -> int:
        return sum(getattr(each.counters, name) for each in caches)

    stress = Stress(caches, enough=lambda run: run.reads > 100 * seconds and all(map(counts, happened)))

    await stress.run(seconds)

    assert stress.wrong == []
    assert stress.reads > 100 * seconds
    assert [name for name in happened if not counts(name)] == []
