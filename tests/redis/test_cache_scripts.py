"""The scripts for loads and entries of the cache: which lease is valid, what is stored under it, what is prolonged."""

import pytest

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.scripts import ENTRY_PUT, EXPIRE, LEASE_FILL, LEASE_RENEW, LEASE_TAKE

NEW, OLD, ENTRY = b"lease", b"former lease", b"entry"
NAMES = [NEW, OLD]
MINE, YOURS = b"mine", b"yours"


async def take(client: RedisClient, token: bytes, standing: str, milliseconds: int = 60_000) -> bytes:
    stands: bytes = await client.run_script(LEASE_TAKE, NAMES, [token, milliseconds, standing])
    return stands


async def held(client: RedisClient) -> list[bytes | None]:
    return [await client.get(name) for name in NAMES]


async def left(client: RedisClient) -> list[int]:
    return [await client.execute("PTTL", name) for name in NAMES]


@pytest.mark.parametrize("standing", ["share", "leave", "break"])
async def test_a_lease_that_nobody_holds_is_taken_under_all_names_for_its_time(client: RedisClient, standing: str):
    assert await take(client, MINE, standing) == MINE

    assert await held(client) == [MINE, MINE]
    assert all(50_000 < each <= 60_000 for each in await left(client))


@pytest.mark.parametrize(("standing", "longer"), [("share", True), ("leave", False)])
async def test_a_lease_that_stands_is_given_and_prolonged_only_by_who_shares_it(
    client: RedisClient, standing: str, longer: bool
):
    await take(client, YOURS, "share", 20_000)

    assert await take(client, MINE, standing) == YOURS
    assert await held(client) == [YOURS, YOURS]
    assert all((each > 20_000) is longer for each in await left(client))


async def test_a_lease_can_be_broken_and_taken(client: RedisClient):
    await take(client, YOURS, "share", 20_000)

    assert await take(client, MINE, "break") == MINE
    assert await held(client) == [MINE, MINE]
    assert all(each > 50_000 for each in await left(client))


@pytest.mark.parametrize("standing", ["share", "leave"])
async def test_a_name_that_was_broken_is_not_set_again_under_the_token_that_stood(client: RedisClient, standing: str):
    await take(client, YOURS, "share")
    await client.execute("DEL", OLD)
    await take(client, MINE, standing)

    assert await held(client) == [YOURS, None]
    await client.execute("SET", OLD, b"another's", "PX", 20_000)
    await take(client, MINE, standing)
    assert await held(client) == [YOURS, b"another's"]
    assert (await left(client))[1] <= 20_000


async def test_a_lease_is_prolonged_by_its_holder(client: RedisClient):
    await take(client, MINE, "share", 20_000)

    assert await client.run_script(LEASE_RENEW, NAMES, [MINE, 60_000]) == 1
    assert all(each > 50_000 for each in await left(client))


@pytest.mark.parametrize("broken", NAMES)
async def test_a_lease_that_was_broken_under_one_name_stands_no_more_and_is_not_prolonged(
    client: RedisClient, broken: bytes
):
    await take(client, MINE, "share", 20_000)
    await client.execute("SET", broken, YOURS, "PX", 20_000)

    assert await client.run_script(LEASE_RENEW, NAMES, [MINE, 60_000]) == 0
    assert all(each <= 20_000 for each in await left(client))


async def test_ending_a_lease_leaves_what_others_hold(client: RedisClient):
    await take(client, MINE, "share")
    await client.execute("SET", NEW, YOURS, "PX", 20_000)
    await client.run_script(LEASE_RENEW, NAMES, [MINE, 0])

    assert await held(client) == [YOURS, None]


@pytest.mark.parametrize(("milliseconds", "lives"), [(60_000, range(50_000, 60_001)), (0, range(-1, 0))])
async def test_what_was_loaded_is_stored_while_its_lease_stands_and_ends_it(
    client: RedisClient, milliseconds: int, lives: range
):
    await take(client, MINE, "share")

    assert await client.run_script(LEASE_FILL, [ENTRY, *NAMES], [MINE, b"value", milliseconds]) == 1
    assert await client.get(ENTRY) == b"value"
    assert await client.execute("PTTL", ENTRY) in lives
    assert await held(client) == [None, None]


@pytest.mark.parametrize("broken", NAMES)
@pytest.mark.parametrize("by", [None, YOURS])
async def test_what_was_loaded_under_a_broken_lease_is_not_stored(client: RedisClient, broken: bytes, by: bytes | None):
    await take(client, MINE, "share")
    await client.execute("SET", ENTRY, b"newer")
    await (client.execute("DEL", broken) if by is None else client.execute("SET", broken, by))

    assert await client.run_script(LEASE_FILL, [ENTRY, *NAMES], [MINE, b"older", 60_000]) == 0
    assert await client.get(ENTRY) == b"newer"
    assert await client.get(broken) == by


@pytest.mark.parametrize(("milliseconds", "lives"), [(60_000, range(50_000, 60_001)), (0, range(-1, 0))])
async def test_a_write_stores_and_breaks_the_lease_under_all_names(
    client: RedisClient, milliseconds: int, lives: range
):
    await take(client, YOURS, "share")
    await client.run_script(ENTRY_PUT, [ENTRY, *NAMES], [b"value", milliseconds])

    assert await client.get(ENTRY) == b"value"
    assert await client.execute("PTTL", ENTRY) in lives
    assert await held(client) == [None, None]


@pytest.mark.parametrize(("milliseconds", "lives"), [(60_000, range(50_000, 60_001)), (0, range(-1, 0))])
@pytest.mark.parametrize(("position", "stored"), [(4, b"headNEWvalue"), (-1, b"headoldvalue")])
async def test_an_entry_with_the_expected_head_gets_its_new_time(
    client: RedisClient, milliseconds: int, lives: range, position: int, stored: bytes
):
    await client.execute("SET", ENTRY, b"headoldvalue", "PX", 20_000)

    assert await client.run_script(EXPIRE, [ENTRY], [b"head", position, b"NEW", milliseconds]) == 1
    assert await client.get(ENTRY) == stored
    assert await client.execute("PTTL", ENTRY) in lives


async def test_an_entry_that_was_written_anew_keeps_its_bytes_and_its_time(client: RedisClient):
    await client.execute("SET", ENTRY, b"others value", "PX", 20_000)

    assert await client.run_script(EXPIRE, [ENTRY], [b"head", 4, b"NEW", 60_000]) == 0
    assert await client.get(ENTRY) == b"others value"
    assert await client.execute("PTTL", ENTRY) <= 20_000


async def test_an_entry_that_is_gone_stays_gone(client: RedisClient):
    assert await client.run_script(EXPIRE, [ENTRY], [b"head", 4, b"NEW", 60_000]) == 0
    assert await client.execute("EXISTS", ENTRY) == 0
