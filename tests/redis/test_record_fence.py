"""The fence of cached records by itself: who is under way leaves nothing for ever, and what is late is refused."""

import asyncio
import math

import pytest

from agent_service.context.fences.redis import RedisFence
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.records.sets import read_records

KEY = "a"
RECORD = b"ctx_a"
FENCES = b"*fence*"


@pytest.fixture
def fence(client: RedisClient) -> RedisFence:
    return RedisFence(lambda: client, b"ctx_")


async def test_who_never_comes_back_leaves_nothing_that_stays(fence: RedisFence, client: RedisClient):
    await fence.begin([KEY])
    await fence.begin([KEY])
    await fence.lease(["b"])
    left = {name: await client.execute("PTTL", name) for name in await client.execute("KEYS", FENCES)}

    assert left.keys() >= {b"ctx_~%fence:{ctx_a}", b"ctx_~%fence:{ctx_b}"}
    assert all(0 < milliseconds <= 60_000 for milliseconds in left.values()), left


async def test_what_is_over_leaves_no_fence(fence: RedisFence, client: RedisClient):
    first, second = await fence.begin([KEY]), await fence.begin([KEY])
    await fence.finish(first, [KEY], {KEY: {"by": 1}}, 60)
    await fence.finish(second, [KEY], {KEY: {"by": 2}}, 60)
    lease = await fence.lease([KEY])
    await fence.fill(lease, [KEY], {KEY: {"filled": 1}}, 60)

    assert await client.execute("KEYS", FENCES) == []


async def test_a_lease_fills_once(fence: RedisFence, client: RedisClient):
    lease = await fence.lease([KEY])

    assert await fence.fill(lease, [KEY], {KEY: {"v": 1}}, 60) == 1
    assert await fence.fill(lease, [KEY], {KEY: {"v": 2}}, 60) == 0
    assert await read_records(client, [RECORD]) == [{"v": 1}]


async def test_several_leases_stand_side_by_side_until_a_writer_begins(fence: RedisFence, client: RedisClient):
    first, second, third = [await fence.lease([KEY]) for _ in range(3)]
    assert await fence.fill(first, [KEY], {KEY: {"v": 1}}, 60) == 1
    writer = await fence.begin([KEY])

    assert await fence.fill(second, [KEY], {KEY: {"v": 1}}, 60) == 0
    assert await read_records(client, [RECORD]) == [None]
    await fence.finish(writer, [KEY], {KEY: {"v": 2}}, 60)
    assert await fence.fill(third, [KEY], {KEY: {"v": 1}}, 60) == 0
    assert await read_records(client, [RECORD]) == [{"v": 2}]


async def test_a_writer_that_overlapped_a_finished_one_is_not_cached_and_the_next_alone_is(
    fence: RedisFence, client: RedisClient
):
    first, second = await fence.begin([KEY]), await fence.begin([KEY])
    await fence.finish(first, [KEY], {KEY: {"v": 1}}, 60)
    third = await fence.begin([KEY])  # before the second one has ended
    await fence.finish(second, [KEY], {KEY: {"v": 2}}, 60)
    await fence.finish(third, [KEY], {KEY: {"v": 3}}, 60)
    assert await read_records(client, [RECORD]) == [None]

    alone = await fence.begin([KEY])
    await fence.finish(alone, [KEY], {KEY: {"v": 4}}, 60)
    assert await read_records(client, [RECORD]) == [{"v": 4}]


async def test_a_lease_that_was_taken_while_someone_wrote_is_worth_nothing_afterwards(
    fence: RedisFence, client: RedisClient
):
    writer = await fence.begin([KEY])
    lease = await fence.lease([KEY])
    await fence.finish(writer, [KEY], {KEY: {"v": 2}}, 60)

    assert await fence.fill(lease, [KEY], {KEY: {"v": 1}}, 60) == 0
    assert await read_records(client, [RECORD]) == [{"v": 2}]


async def test_a_writer_whose_time_was_over_stores_nothing(fence: RedisFence, client: RedisClient):
    late = await fence.begin([KEY])
    for name in await client.execute("KEYS", FENCES):
        await client.execute("DEL", name)  # as their time to live does

    await fence.finish(late, [KEY], {KEY: {"v": 1}}, 60)
    assert await read_records(client, [RECORD]) == [None]


@pytest.mark.parametrize(("ttl", "longest"), [(60, 60_000), (math.inf, -1)])
async def test_a_stored_record_lives_as_long_as_was_said(
    fence: RedisFence, client: RedisClient, ttl: float, longest: int
):
    await fence.finish(await fence.begin([KEY]), [KEY], {KEY: {"v": 1}}, ttl)
    written = await client.execute("PTTL", RECORD)
    await fence.begin([KEY])
    await client.execute("DEL", *await client.execute("KEYS", FENCES))
    await fence.fill(await fence.lease([KEY]), [KEY], {KEY: {"v": 1}}, ttl)
    filled = await client.execute("PTTL", RECORD)

    for milliseconds in (written, filled):
        assert milliseconds == -1 if ttl == math.inf else longest - 20_000 < milliseconds <= longest


async def test_the_shortest_time_to_live_ends_too(fence: RedisFence, client: RedisClient):
    await fence.finish(await fence.begin([KEY]), [KEY], {KEY: {"v": 1}}, 0.0001)

    async with asyncio.timeout(60):
        while await client.execute("EXISTS", RECORD):
            await asyncio.sleep(0.001)


async def test_more_records_than_fit_in_one_step_are_all_fenced(fence: RedisFence, client: RedisClient):
    keys = [f"{number}" for number in range(1_203)]
    records = [b"ctx_" + key.encode() for key in keys]
    await fence.finish(await fence.begin(keys), keys, {key: {"k": key} for key in keys}, 60)
    stored = await read_records(client, records)
    writer = await fence.begin(keys[-1:])
    emptied = await read_records(client, records[-2:])

    assert stored == [{"k": key} for key in keys]
    assert emptied == [{"k": keys[-2]}, None]
    await fence.finish(writer, keys[-1:], {}, 60)
    assert await client.execute("KEYS", FENCES) == []


async def test_a_record_with_more_fields_than_lua_unpacks_is_stored_whole(fence: RedisFence, client: RedisClient):
    record = {f"field{number}": number for number in range(9_001)}

    await fence.finish(await fence.begin([KEY]), [KEY], {KEY: record}, 60)
    assert await read_records(client, [RECORD]) == [record]


async def test_a_writer_that_counts_for_a_short_time_takes_none_from_another_one(client: RedisClient):
    await RedisFence(lambda: client, b"ctx_", 60).begin([KEY])
    await RedisFence(lambda: client, b"ctx_", 1).begin([KEY])
    left = [await client.execute("PTTL", name) for name in await client.execute("KEYS", FENCES)]

    assert left
    assert all(each > 30_000 for each in left), left
