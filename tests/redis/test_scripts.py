"""The Lua scripts of the package, on a real server."""

from typing import Any

import pytest

from agent_service.core.errors import RedisCommandError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import INCREMENT, TOKENS_TAKE

HEAD = b"head:"


async def add(client: RedisClient, key: bytes, amount: int, milliseconds: int, **more: Any) -> Any:
    """INCREMENT of a counter whose valid head is HEAD."""
    keys = [key, *more.get("keys", ())]
    return await client.run_script(
        INCREMENT, keys, [amount, milliseconds, HEAD, more.get("invalid", b""), HEAD, *more.get("change", ())]
    )


async def test_a_new_counter_lives_as_long_as_it_was_told(client: RedisClient):
    assert await add(client, b"n", 5, 60_000) == b"5"

    assert await client.get(b"n") == HEAD + b"5"
    assert 59_000 < await client.execute("PTTL", b"n") <= 60_000


async def test_a_counter_that_exists_keeps_its_time_to_live(client: RedisClient):
    await client.pipeline([("SET", b"short", HEAD + b"1", "PX", 5_000), ("SET", b"forever", HEAD + b"1")])

    assert await add(client, b"short", -3, 60_000) == b"-2"
    assert await add(client, b"forever", 1, -1) == b"2"

    assert await client.execute("PTTL", b"short") <= 5_000
    assert await client.execute("PTTL", b"forever") == -1


async def test_a_new_counter_may_live_forever_or_not_at_all(client: RedisClient):
    assert await add(client, b"forever", 1, 0) == b"1"
    assert await add(client, b"never", 7, -1) == b"7"

    assert await client.execute("PTTL", b"forever") == -1
    assert await client.execute("EXISTS", b"never") == 0


async def test_sums_are_exact_to_the_last_of_64_bits(client: RedisClient):
    await client.execute("SET", b"n", HEAD + b"%d" % 2**53)

    assert await add(client, b"n", 1, 0) == b"%d" % (2**53 + 1)


@pytest.mark.parametrize("value", [b"text", b"1.5", b"%d" % (2**63 - 1)])
async def test_what_is_no_64_bit_integer_stays_as_it_is(client: RedisClient, value: bytes):
    await client.execute("SET", b"n", HEAD + value, "PX", 60_000)

    with pytest.raises(RedisCommandError, match=r"not an integer|overflow"):
        await add(client, b"n", 1, 0)

    assert await client.get(b"n") == HEAD + value
    assert await client.execute("PTTL", b"n") > 0


async def test_a_counter_that_begins_otherwise_is_shown_and_left_as_it_is(client: RedisClient):
    await client.execute("SET", b"n", b"old:7")

    assert await add(client, b"n", 1, 0) == [b"old:7"]
    assert await client.get(b"n") == b"old:7"


async def test_a_counter_that_is_known_to_be_invalid_starts_anew(client: RedisClient):
    await client.execute("SET", b"n", b"old:7")

    assert await add(client, b"n", 1, 60_000, invalid=b"old:") == b"1"
    assert await client.get(b"n") == HEAD + b"1"
    assert await client.execute("PTTL", b"n") > 0


async def test_a_change_that_was_made_is_not_made_again(client: RedisClient):
    beside = {"keys": [b"lease", b"changes"]}

    assert await add(client, b"n", 5, 0, change=[1, 1, 60_000], **beside) == b"5"
    assert await add(client, b"n", 5, 0, change=[1, 1, 60_000], **beside) == b"5"
    assert await add(client, b"n", 5, 0, change=[2, 1, 60_000], **beside) == b"10"


async def test_changes_that_will_not_be_sent_again_are_forgotten(client: RedisClient):
    for number in range(1, 20):
        await add(client, b"n", 1, 0, keys=[b"lease", b"changes"], change=[number, max(1, number - 2), 60_000])

    assert await client.execute("ZCARD", b"changes") == 3
    assert 0 < await client.execute("PTTL", b"changes") <= 60_000


async def test_a_token_is_made_once_and_outlives_the_entries_that_hold_it(client: RedisClient):
    first = await client.run_script(TOKENS_TAKE, [b"a", b"b"], [1_000, b"A" * 8, b"B" * 8])
    second = await client.run_script(TOKENS_TAKE, [b"a", b"b"], [10_000_000, b"X" * 8, b"Y" * 8])

    assert first == second == [b"A" * 8, b"B" * 8]
    assert await client.execute("PTTL", b"a") > 19_000_000


async def test_a_token_of_entries_that_never_expire_does_not_expire_either(client: RedisClient):
    await client.run_script(TOKENS_TAKE, [b"a"], [1_000, b"A" * 8])
    await client.run_script(TOKENS_TAKE, [b"a"], [0, b"X" * 8])
    await client.run_script(TOKENS_TAKE, [b"a"], [1_000, b"X" * 8])

    assert await client.execute("PTTL", b"a") == -1
