"""Whatever command changes data in Redis, a stream of invalidations reports it, or flushes."""

import asyncio

import pytest

from agent_service.infrastructure.redis.tracking.stream import TrackingState
from tests.redis.conftest import Connect, Listen
from tests.redis.listener import LATE, Listener
from tests.servers.redis import RedisServer
from tests.support.waiting import ticking, until

Command = tuple[object, ...]

CHANGES: dict[str, tuple[list[Command], list[Command]]] = {
    "GETSET": ([("SET", "app:a", 1)], [("GETSET", "app:a", 2)]),
    "APPEND": ([("SET", "app:a", 1)], [("APPEND", "app:a", 2)]),
    "SETRANGE": ([("SET", "app:a", 1)], [("SETRANGE", "app:a", 0, 2)]),
    "RENAME": ([("SET", "other", 1)], [("RENAME", "other", "app:a")]),
    "RENAME away": ([("SET", "app:a", 1)], [("RENAME", "app:a", "other")]),
    "COPY": ([("SET", "other", 1)], [("COPY", "other", "app:a")]),
    "COPY from another database": ([("SET", "app:a", 1)], [("COPY", "app:a", "app:a", "DB", 1)]),
    "MOVE": ([("SET", "app:a", 1)], [("MOVE", "app:a", 1)]),
    "RESTORE": ([("SET", "app:a", 1)], [("RESTORE", "app:a", 0, b"\x00\xc0\x01\x0b\x00" + bytes(8), "REPLACE")]),
    "BITOP": ([("SET", "other", 1)], [("BITOP", "NOT", "app:a", "other")]),
    "SORT STORE": ([("RPUSH", "other", 1)], [("SORT", "other", "STORE", "app:a")]),
    "EVAL": ([], [("EVAL", "redis.call('SET', 'app:a', 1)", 0)]),
    "GETEX": ([("SET", "app:a", 1)], [("GETEX", "app:a", "PX", 60_000)]),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_key_changed_by_any_command_is_told(name: str, own_redis: RedisServer, listen: Listen):
    before, change = CHANGES[name]
    for command in before:
        own_redis.cli(*command)
    if name == "RESTORE":
        change = [("RESTORE", "app:a", 0, own_redis.cli("DUMP", "app:a"), "REPLACE")]
    listener = listen(own_redis.url)
    await listener.is_trusted()

    for command in change:
        own_redis.cli(*command)

    await listener.hears(b"app:a")


async def flushes(listener: Listener, within: float) -> None:
    async with ticking() as ticks:
        await until(lambda: "flush" in listener.heard)
    assert ticks.seconds < within + LATE
    assert listener.stream.state is TrackingState.LIVE


async def test_databases_that_are_swapped_are_flushed_within_the_bound(own_redis: RedisServer, listen: Listen):
    own_redis.cli("SET", "app:a", "zero")
    listener = listen(own_redis.url, max_staleness=0.6)
    for _ in range(3):
        await listener.is_trusted()

        own_redis.cli("SWAPDB", 0, 1)

        await flushes(listener, within=0.6)
    assert listener.stream.reconnects == 0


async def test_databases_that_are_swapped_there_and_back_between_two_heartbeats_are_flushed(
    own_redis: RedisServer, listen: Listen
):
    """What was read in between is of the other database."""
    listener = listen(own_redis.url, max_staleness=0.6)
    await listener.is_trusted()

    own_redis.cli("EVAL", "redis.call('SWAPDB', 0, 1) redis.call('SWAPDB', 0, 1)", 0)

    await flushes(listener, within=0.6)


async def test_other_databases_that_are_swapped_disturb_nobody(own_redis: RedisServer, listen: Listen):
    listener = listen(f"{own_redis.url[:-1]}3", max_staleness=0.3)
    await listener.is_trusted()

    own_redis.cli("SWAPDB", 0, 1)
    trusted = listener.stream.trusted_until
    await until(lambda: listener.stream.trusted_until > trusted + 0.3)

    assert listener.heard == []
    own_redis.cli("SWAPDB", 2, 3)
    await flushes(listener, within=0.3)


async def test_a_server_reloaded_from_its_own_dump_is_flushed(own_redis: RedisServer, listen: Listen):
    asks_first = b"redis_version:6" not in own_redis.cli("INFO", "server")
    with RedisServer(*([("enable-debug-command", "yes")] if asks_first else [])) as server:
        server.cli("SET", "app:a", 1)
        listener = listen(server.url)
        await listener.is_trusted()

        server.cli("DEBUG", "RELOAD")

        await until(lambda: "flush" in listener.heard)


async def test_a_stream_goes_on_when_its_mark_is_taken_away(own_redis: RedisServer, listen: Listen):
    listener = listen(own_redis.url, max_staleness=0.3)
    await listener.is_trusted()
    for key in own_redis.cli("KEYS", "*"):
        own_redis.cli("DEL", key)

    await flushes(listener, within=0.3)

    assert listener.stream.reconnects == 0
    assert all(own_redis.cli("PTTL", key) > 0 for key in own_redis.cli("KEYS", "*"))


async def test_a_mark_is_renewed_and_nobody_is_flushed_for_it(
    own_redis: RedisServer, listen: Listen, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent_service.infrastructure.redis.tracking.watch._MARK_TTL", 0.9)
    listener = listen(own_redis.url, max_staleness=0.15)
    await listener.is_trusted()
    trusted = listener.stream.trusted_until

    await until(lambda: listener.stream.trusted_until > trusted + 2)

    assert listener.heard == []


async def test_a_user_who_may_not_watch_keys_is_told_and_nothing_is_trusted(own_redis: RedisServer, listen: Listen):
    own_redis.cli("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-watch")
    listener = listen(f"redis://app:secret@127.0.0.1:{own_redis.port}/0")

    await listener.comes_to(TrackingState.UNSUPPORTED)

    assert not listener.trusted


async def test_a_stream_on_every_database_follows_its_own(own_redis: RedisServer, connect: Connect):
    listeners = [Listener(connect(f"{own_redis.url[:-1]}{number}"), max_staleness=0.3) for number in range(3)]
    for listener in listeners:
        listener.stream.start()
    await asyncio.gather(*(listener.is_trusted() for listener in listeners))
    for listener in listeners:
        listener.heard.clear()

    own_redis.cli("SWAPDB", 0, 2)

    await until(lambda: "flush" in listeners[0].heard and "flush" in listeners[2].heard)
    assert listeners[1].heard == []
    for listener in listeners:
        await listener.stream.aclose()
