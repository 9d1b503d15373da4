"""The Lua scripts of the package, on a real server."""

import pytest

from agent_service.core.errors import RedisCommandError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import INCREMENT


async def test_a_new_counter_lives_as_long_as_it_was_told(client: RedisClient):
    assert await client.run_script(INCREMENT, [b"n"], [5, 60_000]) == b"5"

    assert 59_000 < await client.execute("PTTL", b"n") <= 60_000


async def test_a_counter_that_exists_keeps_its_time_to_live(client: RedisClient):
    await client.pipeline([("SET", b"short", 1, "PX", 5_000), ("SET", b"forever", 1)])

    assert await client.run_script(INCREMENT, [b"short"], [-3, 60_000]) == b"-2"
    assert await client.run_script(INCREMENT, [b"forever"], [1, -1]) == b"2"

    assert await client.execute("PTTL", b"short") <= 5_000
    assert await client.execute("PTTL", b"forever") == -1


async def test_a_new_counter_may_live_forever_or_not_at_all(client: RedisClient):
    assert await client.run_script(INCREMENT, [b"forever"], [1, 0]) == b"1"
    assert await client.run_script(INCREMENT, [b"never"], [7, -1]) == b"7"

    assert await client.execute("PTTL", b"forever") == -1
    assert await client.execute("EXISTS", b"never") == 0


async def test_sums_are_exact_to_the_last_of_64_bits(client: RedisClient):
    await client.execute("SET", b"n", 2**53)

    assert await client.run_script(INCREMENT, [b"n"], [1, 0]) == b"%d" % (2**53 + 1)


@pytest.mark.parametrize("value", [b"text", b"1.5", b"%d" % (2**63 - 1)])
async def test_what_is_no_64_bit_integer_stays_as_it_is(client: RedisClient, value: bytes):
    await client.execute("SET", b"n", value)

    with pytest.raises(RedisCommandError, match=r"not an integer|overflow"):
        await client.run_script(INCREMENT, [b"n"], [1, 0])

    assert await client.get(b"n") == value
