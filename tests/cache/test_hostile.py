"""Whatever stands in Redis under the keys of a cache: it is a miss and is counted, and the cache works on."""

import asyncio
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.envelope import pack_payload, read_head
from agent_service.core.errors import CacheValueError
from agent_service.core.keys import former_internal_key, internal_key
from agent_service.infrastructure.cache.base import BaseCache
from agent_service.infrastructure.cache.calls.decorators import cached
from agent_service.infrastructure.cache.fallback.outage import Outage
from agent_service.infrastructure.cache.near.cache import TieredCache
from agent_service.infrastructure.cache.near.feed import NearFeed
from agent_service.infrastructure.cache.redis.cache import RedisBackend, RedisCache
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.tracking.stream import TrackingState
from tests.support.caches import make_fallback
from tests.support.depth import examples
from tests.support.waiting import until

KEY, TAG = "k", "t"


class Chosen(Exception):
    def __init__(self, code: int, text: str = "") -> None:
        if type(code) is not int:
            raise TypeError("a code is expected")
        super().__init__(code, text)


class Made(Exception):
    def __new__(cls, *args: Any) -> Any:
        return super().__new__(Chosen, 1) if args == (13,) else super().__new__(cls, *args)


@dataclass
class Row:
    name: str
    items: list[tuple[int, str]]


class Room:
    """One cache over hostile keys."""

    def __init__(self, client: RedisClient, cache: BaseCache[Any], redis: RedisBackend, outage: Outage) -> None:
        self.client = client
        self.cache = cache
        self.redis = redis
        self.outage = outage
        self.entry = redis.names.physical(KEY)

        @cached(cache=cache, key_prefix="hostile", cache_exceptions={Chosen: 60}, tags=[TAG])
        async def row(name: str) -> Row:
            return Row(name, [(1, "a")])

        self.row = row

    async def head(self) -> bytes:
        """How a valid entry of today begins, up to its flags of the body."""
        await self.cache.set(KEY, "value", tags=[TAG])
        stored = await self.client.get(self.entry)
        assert stored is not None
        return stored[: read_head(stored).end]

    def books(self) -> dict[str, list[bytes]]:
        """Every kind of key beside the entry."""
        tokens = self.redis.tokens
        changes = self.outage.journal.changes.change(self.outage.journal.changes.begin())
        return {
            "namespace": tokens.keys(("",)),
            "tag": tokens.keys((TAG,)),
            "epoch": tokens.keys((), epoch=True),
            "lease": list(self.redis.names.leases(self.entry)),
            "changes": [self.redis.names.changes(self.entry, changes.process, shared=True)],
            "entry": [self.entry],
            "odd": [
                self.entry + b"\xff",
                self.redis.names.prefix + b"\xff\xfe",
                internal_key("agent_service", "token", "{default}") + b":\xff",
                former_internal_key("agent_service", "token", "{default}") + b":\xff",
                internal_key("agent_service", "lease", "") + b"\xff",
                internal_key("agent_service", "token", "\x00"),
            ],
        }

    async def use(self) -> None:
        """Call everything that a cache can do; nothing raises, and what was set can be read."""
        cache = self.cache
        await cache.get(KEY)
        await cache.lookup(KEY)
        await cache.get_many([KEY, "other"])
        await cache.exists(KEY)
        await cache.ttl(KEY)
        assert isinstance([key async for key in cache.scan("*")], list)
        async with asyncio.timeout(60):
            for options in ({}, {"lock": "distributed"}, {"stale_for": 60}, {"refresh_at": 0.9}):
                try:
                    await cache.get_or_load(KEY, lambda: asyncio.sleep(0, "new"), ttl=60, **options)
                    await cache.get_or_load(
                        KEY, lambda: asyncio.sleep(0, "new"), cache_exceptions={Chosen: 60, Made: 60}, **options
                    )
                except Chosen as exc:
                    assert type(exc.args[0]) is int  # noqa: PT017 - a chosen exception that was well described
            await cache.get_or_load_many([KEY, "other"], lambda keys: asyncio.sleep(0, dict.fromkeys(keys, "new")))
            with suppress(Chosen):
                assert type(await self.row(KEY)) is Row
        for change in (cache.increment(KEY), cache.increment("number"), cache.increment(KEY, ttl=60)):
            with suppress(CacheValueError):  # a valid entry that is no number
                await change
        await cache.expire(KEY, 30)

    async def check(self) -> None:
        assert await self.cache.set(KEY, "set", ttl=60, tags=[TAG])
        assert await self.cache.get(KEY) == "set"
        await self.cache.invalidate_tags([TAG])
        assert await self.cache.get(KEY) is None
        assert await self.cache.get_or_load(KEY, lambda: asyncio.sleep(0, "loaded"), tags=[TAG], ttl=60) == "loaded"
        assert await self.cache.get(KEY) == "loaded"
        await self.cache.delete_pattern("*")
        assert await self.cache.get(KEY) is None
        await self.cache.delete("number")
        assert [await self.cache.increment("number"), await self.cache.increment("number")] == [1, 2]
        await self.cache.clear()
        assert await self.cache.get("number") is None
        assert self.outage.breaker.closed


ALL_KINDS = pytest.mark.parametrize("kind", ["redis", "fallback", "tiered"])


@pytest.fixture
async def kind() -> str:
    """Of the cache; the tiered one reads by the ways of the others."""
    return "tiered"


@pytest.fixture
async def room(kind: str, client: RedisClient) -> AsyncIterator[Room]:
    fallback, outage = make_fallback(client, lease_seconds=1)
    feed = NearFeed(client)
    caches: dict[str, Callable[[], BaseCache[Any]]] = {
        "redis": lambda: RedisCache(client, lease_seconds=1),
        "fallback": lambda: fallback,
        "tiered": lambda: TieredCache(fallback, feed),
    }
    cache = caches[kind]()
    redis = cache.backend if isinstance(cache.backend, RedisBackend) else fallback.backend.redis
    yield Room(client, cache, redis, outage)
    await cache.aclose()
    await feed.aclose()
    await outage.aclose()
    async for page in client.scan(b"*"):
        await client.unlink(page)


PLANTS: dict[str, Callable[[bytes], tuple[Any, ...]]] = {
    "list": lambda key: ("RPUSH", key, b"1", b"2"),
    "hash": lambda key: ("HSET", key, b"a", b"b"),
    "empty": lambda key: ("SET", key, b""),
    "number": lambda key: ("SET", key, b"12345678"),
    "bytes": lambda key: ("SET", key, b"\xff\xfe\x00\x01"),
    "long": lambda key: ("SET", key, b"x" * 300),
    "huge": lambda key: ("SET", key, b"9" * 100_000),
}


@ALL_KINDS
@pytest.mark.parametrize("plant", PLANTS)
async def test_whatever_stands_under_any_key_of_a_cache_it_works_on(room: Room, plant: str):
    for name, keys in room.books().items():
        for place in [keys, *([key] for key in keys if len(keys) > 1)]:
            await room.head()
            for key in place:
                await room.client.unlink([key])
                await room.client.execute(*PLANTS[plant](key))
            try:
                await room.use()
                await room.check()
            except BaseException as exc:
                exc.add_note(f"{plant} under {name}: {place}")
                raise


CALLS: dict[str, Callable[[BaseCache[Any]], Awaitable[Any]]] = {
    "get": lambda cache: cache.get(KEY),
    "get many": lambda cache: cache.get_many([KEY, "other"]),
    "exists": lambda cache: cache.exists(KEY),
    "ttl": lambda cache: cache.ttl(KEY),
    "expire": lambda cache: cache.expire(KEY, 30),
    "increment": lambda cache: cache.increment(KEY, ttl=60),
    "increment by nothing": lambda cache: cache.increment(KEY, 0, ttl=60),
    "set": lambda cache: cache.set(KEY, 1, ttl=60, tags=[TAG]),
    "delete": lambda cache: cache.delete(KEY),
    "delete many": lambda cache: cache.delete_many([KEY, "other"]),
    "delete pattern": lambda cache: cache.delete_pattern("k*"),
    "invalidate": lambda cache: cache.invalidate_tags([TAG]),
    "load": lambda cache: cache.get_or_load(KEY, lambda: asyncio.sleep(0, 1), ttl=60),
    "load alone": lambda cache: cache.get_or_load(KEY, lambda: asyncio.sleep(0, 1), ttl=60, lock="distributed"),
    "load many": lambda cache: cache.get_or_load_many([KEY], lambda keys: asyncio.sleep(0, dict.fromkeys(keys, 1))),
}


@ALL_KINDS
@pytest.mark.parametrize("plant", [*PLANTS, "negative"])
async def test_every_call_ends_that_is_the_first_to_meet_what_nobody_wrote(room: Room, plant: str):
    make = {**PLANTS, "negative": lambda key: ("SET", key, b"-1")}[plant]
    for name, keys in room.books().items():
        for called, call in CALLS.items():
            for key in keys:
                await room.client.unlink([key])
                await room.client.execute(*make(key))
            try:
                async with asyncio.timeout(60):
                    await call(room.cache)
            except BaseException as exc:
                exc.add_note(f"{called} with {plant} under {name}")
                raise
    await room.check()


HOSTILE: dict[str, bytes] = {
    "no list": b"1",
    "no name": b"[1,[]]",
    "no arguments": b'["m.E",1]',
    "one": b'["m.E"]',
    "many": b"[1,2,3,4]",
    "text": b'"ab"',
    "null": b"null",
    "object": b'{"a":1,"b":2}',
    "set": b'{"$set":[1,2]}',
    "instances": b'{"$whole":[[["m.E","x"]],[{"$of":[0,1]},[]]]}',
    "damaged": b'{"$whole":[1]}',
    "chosen, wrong arguments": json.dumps([f"{__name__}.Chosen", ["x"]]).encode(),
    "chosen, too many": json.dumps([f"{__name__}.Chosen", [1, "a", 3]]).encode(),
    "chosen, text for arguments": json.dumps([f"{__name__}.Chosen", "ab"]).encode(),
    "made of another class": json.dumps([f"{__name__}.Made", [13]]).encode(),
}


@ALL_KINDS
@pytest.mark.parametrize("described", HOSTILE)
async def test_a_malformed_cached_exception_is_a_miss(room: Room, described: str):
    payload = HOSTILE[described]
    for tagged in (0, 1):
        head = bytearray(await room.head())
        head[1] |= 64 | tagged
        await room.client.execute("SET", room.entry, bytes(head) + payload)
        await room.cache.get(KEY)

        before = room.redis.counters.undecodable
        options: dict[str, Any] = {"cache_exceptions": {Chosen: 60, Made: 60}, "ttl": 60}
        assert await room.cache.get_or_load(KEY, lambda: asyncio.sleep(0, "loaded"), **options) == "loaded"
        assert room.redis.counters.undecodable > before
        assert await room.cache.get_or_load(KEY, lambda: asyncio.sleep(0, "again"), **options) == "loaded"


P = 2**61 - 1
BODIES: dict[str, bytes] = {
    "deep": b"[" * 600 + b"]" * 600,
    "deeper": b"[" * 100_000,
    "deep tags": b'{"$tuple":[' * 300 + b"]}" * 300,
    "colliding set": json.dumps({"$set": [{"$int": f"{n * P:x}"} for n in range(20_000)]}).encode(),
    "colliding frozenset": json.dumps({"$frozenset": [{"$uuid": f"{n * P:032x}"} for n in range(5000)]}).encode(),
    "colliding keys": json.dumps({"$dict": [x for n in range(5000) for x in ({"$int": f"{n * P:x}"}, 1)]}).encode(),
    "colliding counter": json.dumps(
        {"$counter": [x for n in range(5000) for x in ({"$int": f"{n * P:x}"}, 1)]}
    ).encode(),
    "fraction with an exponent": b'{"$fraction":"1e999999999"}',
    "pattern of wide ranges": '{"$pattern":["str","[\\u0000-\U0010ffff][\\u0001-\U0010fffe]",2]}'.encode(),
    "decimal": b'{"$decimal":"1e999999999999999999999"}',
    "date": b'{"$date":"9999-99-99"}',
    "datetime": b'{"$datetime":["0001-01-01T00:00:00",9,"Europe/../x"]}',
    "timedelta": b'{"$timedelta":[1e300,0,0]}',
    "huge integer": b"9" * 5000,
    "infinite": b"1e999",
    "unknown tag": b'{"$nope":1}',
    "unhashable": b'{"$set":[[1],{}]}',
    "odd pairs": b'{"$dict":[1]}',
    "no text": b'{"$int":5}',
    "no UTF-8": b'"\xff"',
    "lone surrogate": b'"\\ud800"',
    "no such class": json.dumps({"$whole": [[[f"c{n}", "s"] for n in range(5000)], {"$of": [0, {}]}]}).encode(),
    "no such index": b'{"$whole":[[],{"$of":[7,{}]}]}',
    "wrong fields": json.dumps({"$whole": [[[f"{__name__}.Row", ""]], {"$of": [0, {"name": 1}]}]}).encode(),
    "defaultdict": b'{"$defaultdict":["eval",[]]}',
    "deque": b'{"$deque":[-5,[]]}',
    "zone": b'{"$zone":"../../etc/passwd"}',
}


@pytest.mark.parametrize("body", BODIES)
async def test_a_value_that_nobody_wrote_neither_raises_nor_holds_up_the_loop(room: Room, body: str):
    payload = BODIES[body]
    for key in (KEY, None):
        for flags in (0, 1):
            head = bytearray(await room.head())
            head[1] |= flags
            entry = room.entry if key else room.redis.names.physical(room.row.cache_key(KEY))
            await room.client.execute("SET", entry, bytes(head) + payload)

            longest = await longest_stall(room.use())
            await room.check()

            assert longest < 1 + len(payload) * 2e-6 * 20


async def longest_stall(work: Any) -> float:
    """Await and return the longest time of the processor in which the loop did nothing else."""
    longest, latest = 0.0, time.thread_time()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, latest = max(longest, now - latest), now
    await task
    return longest


@pytest.mark.parametrize("size", [1 << 20, 60 << 20])
async def test_a_bomb_is_a_miss_that_takes_no_memory(room: Room, size: int):
    packed = zlib.compress(b"[]," * (size // 3))
    bomb = (size // 3 * 3).to_bytes(4, "big") + packed
    head = bytearray(await room.head())
    head[1] |= 2
    await room.client.execute("SET", room.entry, bytes(head) + bomb)
    before = room.redis.counters.undecodable

    assert await room.cache.get(KEY) is None
    assert room.redis.counters.undecodable == before + 1


def test_no_payload_is_compressed_so_far_that_it_could_not_be_read():
    for payload in (
        b'"' + b"a" * 10_000_000 + b'"',
        b"[" + b"0," * 100_000 + b"0]",
        json.dumps(list(range(9999))).encode(),
    ):
        packed = pack_payload(payload, compress_above=100)
        assert len(payload) <= 64 * len(packed)


async def test_a_name_that_is_no_text_among_the_tokens_does_not_end_the_copies(client: RedisClient):
    fallback, outage = make_fallback(client)
    feed = NearFeed(client)
    cache = TieredCache(fallback, feed)
    await until(lambda: feed.state() is TrackingState.LIVE)
    tokens = fallback.backend.redis.tokens
    await cache.set(KEY, "value", tags=[TAG])
    for prefix in tokens.prefixes:
        for end in (b":\xff", b"\xff", b":", b"*\xff", b":" + TAG.encode() + b"\xfe"):
            await client.execute("SET", prefix + end, b"12345678", "PX", 5000)
            await client.execute("UNLINK", prefix + end)
    for key in (b"\xff", b"", b"k\xff"):
        await client.execute("SET", fallback.backend.redis.names.prefix + key, b"x", "PX", 5000)
    assert await cache.get(KEY) == "value"
    await until(lambda: cache.backend.near.read(KEY) is not None)
    await cache.invalidate_tags([TAG])
    assert await cache.get(KEY) is None

    assert feed.state() is TrackingState.LIVE
    assert feed._stream.reconnects == 0
    await cache.aclose()
    await feed.aclose()
    await outage.aclose()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
TAGS = [
    *(
        "$",
        "$tuple",
        "$set",
        "$frozenset",
        "$dict",
        "$ordered",
        "$counter",
        "$defaultdict",
        "$deque",
        "$slice",
        "$type",
    ),
    *(
        "$whole",
        "$of",
        "$datetime",
        "$date",
        "$time",
        "$timedelta",
        "$decimal",
        "$uuid",
        "$bytes",
        "$bytearray",
        "$int",
    ),
    *("$complex", "$float", "$range", "$fraction", "$url", "$pattern", "$zone", "$ipv4", "$ipv6", "$path", "$nope"),
]
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(TAGS) | st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=20,
)


@st.composite
def mutated(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """What becomes of the bytes of an entry."""
    body = draw(
        st.none()
        | st.binary(max_size=200)
        | TREES.map(lambda each: json.dumps(each, ensure_ascii=False).encode("utf-8", "replace"))
    )
    flags = draw(st.integers(0, 255))
    cuts = draw(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.binary(max_size=4)), max_size=3))

    def mutate(data: bytes) -> bytes:
        changed = bytearray(data)
        if body is not None:
            end = read_head(data).end
            changed[1] = changed[1] & 0b11100 | flags & 0b1100011
            changed[end:] = body
        for place, length, put in cuts:
            changed[place : place + length] = put
        return bytes(changed)

    return mutate


@given(mutate=mutated())
@settings(max_examples=examples(15, 200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_mutated_entries_are_misses_or_values(room: Room, mutate: Callable[[bytes], bytes]):
    head = await room.head()
    for data in (
        head + b'"value"',
        head + b'{"$whole":[[["tests.cache.test_hostile.Row",""]],{"$of":[0,{"name":"x"}]}]}',
    ):
        for entry in (room.entry, room.redis.names.physical(room.row.cache_key(KEY))):
            await room.client.execute("SET", entry, mutate(data))
        await room.use()
    await room.check()
