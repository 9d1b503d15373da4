"""HashRecord on real servers: what goes in comes out, and every write is one atomic step."""

import asyncio
import math
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import RecordValueError, RedisCommandError, UndecodableError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.records.listing import RecordListing, find_indexed
from agent_service.infrastructure.redis.records.record import HashRecord
from tests.support.depth import examples

KEY = b"agent_service%tenant:{test}:record:one"
LISTING = b"agent_service%tenant:{test}:records"
INDEX = b"agent_service%tenant:{test}:record_by:"


@pytest.fixture
def record(client: RedisClient) -> HashRecord:
    return HashRecord(client, KEY, ttl=60)


def listed(client: RedisClient, name: str, ttl: float | None = 60) -> HashRecord:
    return HashRecord(client, record_key(name.encode()), ttl=ttl, name=name.encode(), listing=LISTING)


def record_key(name: bytes) -> bytes:
    return b"agent_service%tenant:{test}:record:" + name


async def test_values_come_back_with_their_type(record: HashRecord):
    data = {"1": 1, "true": True, "text": "1", "float": 1.0, "null": None, "": {"a": []}, "big": 2**100, "[]": [[]]}

    await record.set(data)

    assert repr(await record.get()) == repr(data)
    for field, value in data.items():
        assert repr(await record.get_field(field)) == repr(value)


async def test_an_empty_record_is_not_a_missing_one(record: HashRecord):
    assert await record.get() is None
    assert not await record.exists()

    await record.set({})

    assert await record.get() == {}
    assert await record.exists()


async def test_upsert_with_nothing_makes_an_empty_record_and_changes_no_other(record: HashRecord):
    await record.upsert({})
    assert await record.get() == {}
    await record.upsert({"a": 1})

    await record.upsert({})

    assert await record.get() == {"a": 1}


async def test_set_replaces_and_upsert_merges(record: HashRecord):
    await record.set({"a": 1, "b": 2})
    await record.upsert({"b": 3, "c": 4})
    assert await record.get() == {"a": 1, "b": 3, "c": 4}

    await record.set({"d": 5})

    assert await record.get() == {"d": 5}


async def test_merge_gives_the_whole_record(record: HashRecord):
    await record.set({"a": 1})

    assert await record.merge({"b": [2]}) == {"a": 1, "b": [2]}
    assert await HashRecord(record.client, KEY + b"2", ttl=60).merge({}) == {}


async def test_more_fields_than_lua_can_unpack_are_deleted_at_once(record: HashRecord):
    await record.set({f"field {number}": number for number in range(9_001)})

    assert await record.delete_fields(*[f"field {number}" for number in range(9_000)], "nobody") == 9_000
    assert await record.get() == {"field 9000": 9_000}


async def test_a_record_that_loses_its_last_field_stays_empty(record: HashRecord):
    await record.append("list", 1)

    assert await record.delete_fields("list", "none") == 1

    assert await record.get() == {}
    assert await record.delete_fields("list") == 0


async def test_deleting_fields_of_a_missing_record_makes_none(record: HashRecord):
    assert await record.delete_fields("a") == 0

    assert await record.get() is None


async def test_more_fields_than_lua_can_unpack_are_written_at_once(record: HashRecord):
    data = {f"field {number}": number for number in range(12_000)}

    await record.set(data)
    assert await record.get() == data
    assert await record.delete_fields(*data) == len(data)

    assert await record.get() == {}


@pytest.mark.parametrize("item", [1, None, "]", "[", {}, [], [[]], {"a": "]"}, 2**70])
async def test_append_adds_any_item_to_any_list(record: HashRecord, item: Any):
    await record.append("new", item)
    await record.set({"empty": [], "full": [{"x": "]"}]})

    for field in ("new", "empty", "full"):
        await record.append(field, item)
        await record.append(field, item)

    assert await record.get() == {"new": [item] * 2, "empty": [item] * 2, "full": [{"x": "]"}, item, item]}


@pytest.mark.parametrize("value", [None, 1, "[]", {}, (1,), {1}])
async def test_append_to_what_is_no_list_is_refused(record: HashRecord, value: Any):
    await record.set({"field": value})

    with pytest.raises(RecordValueError, match="holds no list"):
        await record.append("field", 1)

    assert await record.get() == {"field": value}


@pytest.mark.parametrize(
    ("held", "by", "result"),
    [
        (1, 2, 3),
        (1, 2.0, 3.0),
        (1.0, 2, 3.0),
        (0.1, 0.2, 0.1 + 0.2),
        (1e300, 1e299, 1e300 + 1e299),
        (1e-20, 1e-20, 2e-20),
        (-5, 5, 0),
        (2**63 - 2, 1, 2**63 - 1),
        (-(2**63) + 1, -1, -(2**63)),
        (0.5, -0.5, 0.0),
        (1e16, 0, 1e16),
        (3, -0.25, 2.75),
    ],
)
async def test_sums_are_those_of_python_in_value_and_type(record: HashRecord, held: float, by: float, result: float):
    await record.set({"n": held})

    added = await record.increment("n", by)

    assert (repr(added), repr(await record.get_field("n"))) == (repr(result), repr(result))


INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=examples(30, 100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(held=INTEGERS | FLOATS, by=INTEGERS | FLOATS)
async def test_any_sum_is_that_of_python_or_an_error(record: HashRecord, held: float, by: float):
    await record.set({"n": held})
    total = held + by

    if (isinstance(total, int) and not -(2**63) <= total < 2**63) or (isinstance(total, float) and math.isinf(total)):
        with pytest.raises(RecordValueError, match="would not fit"):
            await record.increment("n", by)
        total = held
    else:
        assert repr(await record.increment("n", by)) == repr(total)

    assert repr(await record.get()) == repr({"n": total})


async def test_a_missing_number_counts_from_zero(record: HashRecord):
    assert repr(await record.increment("int")) == "1"
    assert repr(await record.increment("float", 1.5)) == "1.5"
    assert repr(await record.increment("whole", 2.0)) == "2.0"


@pytest.mark.parametrize("value", [None, True, "1", [1], {}, 2**64, math.inf])
async def test_what_is_no_number_of_64_bits_is_not_incremented(record: HashRecord, value: Any):
    await record.set({"n": value})

    with pytest.raises(RecordValueError, match="holds no number"):
        await record.increment("n")

    assert await record.get() == {"n": value}


@pytest.mark.parametrize(("held", "by"), [(2**63 - 1, 1), (-(2**63), -1), (2**63, 1), (1.7e308, 1.7e308)])
async def test_a_sum_past_64_bits_is_an_error_and_changes_nothing(record: HashRecord, held: float, by: float):
    await record.set({"n": held})

    with pytest.raises(RecordValueError, match="would not fit"):
        await record.increment("n", by)

    assert await record.get() == {"n": held}


@pytest.mark.parametrize("by", [True, "1", None, math.nan, math.inf, 2**63])
async def test_an_amount_that_cannot_be_added_is_refused(record: HashRecord, by: Any):
    with pytest.raises(RecordValueError, match="by must"):
        await record.increment("n", by)

    assert await record.get() is None


async def test_compare_and_set_sets_only_what_is_expected(record: HashRecord):
    assert await record.compare_and_set("owner", None, "a")
    assert not await record.compare_and_set("owner", None, "b")
    assert not await record.compare_and_set("owner", "c", "b")
    assert await record.compare_and_set("owner", "a", "b")

    assert await record.get() == {"owner": "b"}


@pytest.mark.parametrize(("held", "expected"), [(1, True), (1, 1.0), (1, "1"), (True, 1), (0, False), (0, None)])
async def test_compare_and_set_tells_types_apart(record: HashRecord, held: Any, expected: Any):
    await record.set({"x": held})

    assert not await record.compare_and_set("x", expected, "changed")
    assert await record.compare_and_set("x", held, "changed")


async def test_compare_and_set_knows_values_that_are_written_differently(record: HashRecord):
    await record.set({"object": {"a": 1, "b": [1e20]}, "sum": 0.0})
    await record.increment("sum", 1e20)

    assert await record.compare_and_set("object", {"b": [1e20], "a": 1}, "changed")
    assert await record.compare_and_set("sum", 1e20, "changed")


async def test_one_of_many_wins_a_compare_and_set(record: HashRecord):
    won = await asyncio.gather(*(record.compare_and_set("owner", None, number) for number in range(50)))

    assert sum(won) == 1
    assert await record.get_field("owner") == won.index(True)


async def test_every_write_renews_the_time_to_live_and_no_read_does(client: RedisClient):
    record = HashRecord(client, KEY, ttl=60)
    writes = [
        record.set({"n": 1}),
        record.upsert({}),
        record.merge({"a": 1}),
        record.append("l", 1),
        record.increment("n"),
        record.increment("f", 0.5),
        record.delete_fields("a"),
        record.compare_and_set("n", 2, 3),
        record.renew(),
    ]
    for write in writes:
        await client.execute("PEXPIRE", KEY, 20_000)
        await write
        assert await client.execute("PTTL", KEY) > 59_000

    await client.execute("PEXPIRE", KEY, 20_000)
    await asyncio.gather(record.get(), record.get_field("n"), record.exists(), record.ttl_left())
    assert not await record.compare_and_set("n", 2, 4)

    assert await client.execute("PTTL", KEY) <= 20_000


async def test_a_record_without_ttl_keeps_its_time_to_live(client: RedisClient):
    record = HashRecord(client, KEY)
    await record.upsert({"a": 1})
    assert await record.ttl_left() == math.inf
    await client.execute("PEXPIRE", KEY, 5_000)

    await record.upsert({"a": 2})

    assert 4 < (await record.ttl_left() or 0) <= 5


async def test_the_shortest_time_to_live_ends_too(client: RedisClient):
    await HashRecord(client, KEY, ttl=0.0001).set({"a": 1})

    async with asyncio.timeout(60):
        while await client.execute("EXISTS", KEY):
            await asyncio.sleep(0.001)


async def test_what_is_missing_is_not_renewed(record: HashRecord):
    assert not await record.renew()
    assert await record.ttl_left() is None
    assert not await record.delete()


async def test_deleting_gives_whether_there_was_a_record(record: HashRecord):
    await record.set({})

    assert await record.delete()
    assert not await record.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data must be a mapping"),
        ({1: 2}, "field names must be str"),
        ({"\ud800": 1}, "lone surrogate"),
        ({"x": {"y": object()}}, r"field 'x' cannot be written: value\['y'\]"),
    ],
)
async def test_what_cannot_be_written_is_refused_before_anything_is(record: HashRecord, data: Any, message: str):
    for write in (record.set, record.upsert, record.merge):
        with pytest.raises(RecordValueError, match=message):
            await write(data)

    assert await record.get() is None


async def test_a_field_that_somebody_else_wrote_is_named(record: HashRecord):
    await record.client.pipeline([("HSET", KEY, "mine", "1", "theirs", "no json"), ("EXPIRE", KEY, 60)])

    with pytest.raises(UndecodableError, match="theirs"):
        await record.get()


async def test_a_key_of_another_type_is_an_error(record: HashRecord):
    await record.client.execute("SET", KEY, "text", "EX", 60)

    for call in (record.get(), record.upsert({"a": 1}), record.append("a", 1), record.increment("a")):
        with pytest.raises(RedisCommandError, match="WRONGTYPE"):
            await call


async def test_a_listing_names_what_exists_and_forgets_what_expired(client: RedisClient):
    listing = RecordListing(client, LISTING, record_key)
    for name in ("b", "a", "gone"):
        await listed(client, name).set({})
    await client.unlink([record_key(b"gone")])

    assert await listing.names() == [b"a", b"b"]
    assert await client.execute("ZCARD", LISTING) == 2

    await listed(client, "a").delete()
    assert await client.execute("ZRANGE", LISTING, 0, -1) == [b"b"]


async def test_a_listing_lives_as_long_as_the_longest_lived_record(client: RedisClient):
    await listed(client, "long", ttl=100).set({})
    await listed(client, "short", ttl=1).set({})
    assert 100_000 < await client.execute("PTTL", LISTING) <= 101_000

    await listed(client, "longer", ttl=200).increment("n")
    assert 200_000 < await client.execute("PTTL", LISTING) <= 201_000

    await listed(client, "longer", ttl=10).renew()
    assert 99_000 < await client.execute("PTTL", LISTING) <= 101_000


async def test_names_of_expired_records_leave_a_listing_that_nobody_reads(client: RedisClient):
    await client.pipeline([("ZADD", LISTING, 1_000, "expired long ago"), ("EXPIRE", LISTING, 60)])

    await listed(client, "new").set({})

    assert await client.execute("ZRANGE", LISTING, 0, -1) == [b"new"]


async def test_a_listing_with_a_permanent_record_is_permanent(client: RedisClient):
    await listed(client, "short", ttl=1).set({})
    await listed(client, "forever", ttl=None).set({})
    await listed(client, "short", ttl=1).set({})

    assert await client.execute("PTTL", LISTING) == -1

    assert await RecordListing(client, LISTING, record_key).delete_all() == 2
    assert await client.execute("EXISTS", LISTING) == 0


async def test_all_listed_records_are_deleted_page_by_page(client: RedisClient):
    await asyncio.gather(*(listed(client, str(number)).set({"n": number}) for number in range(1_201)))
    await HashRecord(client, KEY + b"-other", ttl=60).set({})

    assert await RecordListing(client, LISTING, record_key).delete_all() == 1_201

    assert await client.execute("KEYS", "*") == [KEY + b"-other"]


async def test_an_index_finds_by_value_and_type_whatever_wrote_it(client: RedisClient):
    def indexed(name: bytes) -> HashRecord:
        return HashRecord(client, record_key(name), ttl=60, name=name, indexes={"x": INDEX + b"x:", "y": INDEX + b"y:"})

    async def find(field: str, value: Any) -> Any:
        return await find_indexed(client, INDEX + field.encode() + b":", field, value, record_key)

    await indexed(b"set").set({"x": "1", "y": None})
    await indexed(b"add").increment("x")
    await indexed(b"cas").compare_and_set("y", None, True)

    assert await find("x", "1") == {"x": "1", "y": None}
    assert await find("x", 1) == {"x": 1}
    assert await find("y", True) == {"y": True}
    assert await find("y", None) == {"x": "1", "y": None}
    assert await find("x", True) is None

    await indexed(b"add").increment("x")
    await indexed(b"set").delete()
    assert await find("x", 1) is None
    assert await find("x", 2) == {"x": 2}
    assert await find("x", "1") is None


async def test_an_index_entry_that_is_out_of_date_is_taken_out(client: RedisClient):
    def indexed(number: int) -> HashRecord:
        name = str(number).encode()
        return HashRecord(client, record_key(name), ttl=60, name=name, indexes={"x": INDEX})

    await asyncio.gather(*(indexed(number).set({"x": "old"}) for number in range(30)))
    await asyncio.gather(*(indexed(number).set({"x": "new"}) for number in range(30)))
    old, new = (INDEX + sha1(json).hexdigest().encode() for json in (b'"old"', b'"new"'))

    assert await find_indexed(client, INDEX, "x", "old", record_key) is None

    assert await client.execute("EXISTS", old) == 0
    assert await client.execute("ZCARD", new) == 30
