"""Four processes write to the same records at once, and nothing is lost."""

import asyncio

from agent_service.tenants import RedisSharedState, RedisStateHandler, RedisTable, RedisUser
from tests.support.forked import together
from tests.tenants.rooms import ROOMS, Room

PROCESSES = 4
EACH = 20


async def test_concurrent_writes_of_four_processes_lose_nothing():
    async with together(PROCESSES, "tests.tenants.record_writer", str(EACH)) as writers:
        assert [await each.wait() for each in writers] == [0] * PROCESSES

    names = {f"{number}-{each}" for number in range(PROCESSES) for each in range(EACH)}
    for kind, make in ROOMS.items():
        room: Room = make("acme", "ann", "main")
        data = await room.get()
        times = 2 if "user" in kind else 1  # the plain and the indexed room are the same user

        assert sorted(data.pop("list")) == sorted(list(names) * times), kind
        assert (data.pop("int"), data.pop("float")) == (PROCESSES * EACH * times, PROCESSES * EACH * times * 0.5)
        assert data.keys() == names


async def test_a_state_that_is_cleared_while_it_is_written_is_whole_or_gone():
    states = RedisSharedState("acme", "ann")

    async def write(number: int) -> None:
        await states.set(f"state {number % 10}", {"number": number, "same": number})

    async def clear() -> None:
        await states.clear_all_states()

    await asyncio.gather(*(write(number) if number % 5 else clear() for number in range(300)))

    for name in await states.list_states():
        data = await states.get(name)
        assert data is not None
        assert data["number"] == data["same"]
    left = await states.clear_all_states()
    assert left <= 10
    assert await states.list_states() == []


async def test_every_upsert_of_a_handler_gives_a_state_that_was():
    handler = RedisStateHandler("acme", "ann")

    states = await asyncio.gather(*(handler.upsert("main", {str(number): number}) for number in range(100)))

    assert sorted(len(state) for state in states) == list(range(1, 101))


async def test_a_row_that_is_written_while_its_key_is_deleted_is_found_again():
    tables = RedisTable("acme")

    await asyncio.gather(
        *(tables.set(f"table {number % 7}", "pk", {"n": number}) for number in range(200)),
        *(tables.delete_all_by_pkid("pk") for _ in range(20)),
    )

    left = [number for number in range(7) if await tables.exists(f"table {number}", "pk")]
    assert await tables.delete_all_by_pkid("pk") == len(left)


async def test_an_index_finds_every_user_that_changes_hands_all_the_time():
    users = [RedisUser("acme", str(number), indexes=("group",)) for number in range(5)]
    search = RedisUser.search("acme", indexes=("group",))
    done = asyncio.Event()

    async def look() -> None:
        while not done.is_set():
            await search.find_by_field("group", "a")
            await search.find_by_field("group", "b")

    async def move() -> None:
        for number in range(60):
            await asyncio.gather(*(user.update_field("group", "ab"[number % 2]) for user in users))
        await users[0].update_field("group", "only me")
        done.set()

    await asyncio.gather(move(), look(), look())

    assert await search.find_by_field("group", "only me") == {"group": "only me"}
    assert await search.find_by_field("group", "b") == {"group": "b"}
    assert await search.find_by_field("group", "a") is None
