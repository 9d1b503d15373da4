"""A runner sleeps until something is due: an idle one asks next to nothing, and nothing that wakes it is missed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.source import set_redis_source
from agent_service.tenants import handlers as registry
from agent_service.tenants.base import current_redis
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger, TriggerSchedule
from agent_service.tenants.trigger import RedisTrigger
from tests.servers.proxy import TcpProxy
from tests.servers.redis import GivenServer, RedisServer, run_command
from tests.support.waiting import until

SOON = 60.0
"""Seconds in which a runner that is woken acts, on the slowest machine; one that is not woken sleeps for an hour."""

Run = Callable[..., Awaitable[TriggerRunner]]


@pytest.fixture(autouse=True)
def long_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what wakes a runner makes it look."""
    sleep_at_most(3600, monkeypatch)


def sleep_at_most(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runner", "schedule"):
        monkeypatch.setattr(f"agent_service.tenants.{module}.LONGEST_SLEEP", seconds)


@pytest.fixture
def handled() -> "asyncio.Queue[str]":
    """What the handler of the action "remind" got, by identifier."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    @on_trigger("remind")
    async def remind(trigger: Trigger) -> None:
        queue.put_nowait(trigger.identifier)

    return queue


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Starts runners and waits until they sleep; stops them at the end of the test."""
    runners: list[TriggerRunner] = []

    async def start(*, asleep: bool = True, **options: Any) -> TriggerRunner:
        runner = TriggerRunner(**options)
        await runner.start()
        runners.append(runner)
        if asleep:
            await until(lambda: runner._wake_ups is not None and runner._wake_ups.live)
            await until(lambda: not runner._wake.is_set())
        return runner

    yield start
    for each in runners:
        await each.stop(timeout=0.1)


async def soon(handled: "asyncio.Queue[str]") -> str:
    return await asyncio.wait_for(handled.get(), SOON)


def commands(server: Any) -> int:
    """How many commands a server has run, those in scripts included."""
    stats = server.cli("INFO", "stats").decode().splitlines()
    return int(next(each for each in stats if each.startswith("total_commands_processed")).split(":")[1])


# -- idle


async def test_two_idle_runners_send_less_than_two_commands_a_second(
    run: Run, handled: "asyncio.Queue[str]", server: RedisServer | GivenServer, monkeypatch: pytest.MonkeyPatch
):
    sleep_at_most(10, monkeypatch)
    for action in ("second", "third"):
        on_trigger(action)(registry.HANDLERS["remind"])
    await run()
    await run()
    began, before = time.monotonic(), commands(server)
    await asyncio.sleep(3)
    sent = commands(server) - before - 1  # the question itself

    assert sent <= 2 * (time.monotonic() - began)


async def test_a_due_trigger_of_a_tenant_that_nobody_serves_keeps_nobody_busy(
    run: Run, handled: "asyncio.Queue[str]", server: RedisServer | GivenServer
):
    await RedisTrigger("stranger").set("remind", "never", 0.001)
    runner = await run(tenants=["acme"])
    await until(lambda: runner.metrics()["pending"] == 1)  # the look at all actions, which follows every 10 seconds
    began, before = time.monotonic(), commands(server)
    await asyncio.sleep(1.5)
    sent = commands(server) - before - 1

    assert sent <= 2 * (time.monotonic() - began)


async def test_a_burst_of_wake_ups_costs_few_looks(
    run: Run, handled: "asyncio.Queue[str]", server: RedisServer | GivenServer
):
    def scripts() -> int:
        (line,) = [each for each in server.cli("INFO", "commandstats").splitlines() if b"cmdstat_evalsha:" in each]
        return int(line.split(b"calls=")[1].split(b",")[0])

    await RedisTrigger("acme").set("remind", "later", 9)
    await run()
    began, before = time.monotonic(), scripts()
    for number in range(300):
        await RedisTrigger(f"tenant {number}").set("remind", "later", 9)
    looks = scripts() - before - 300

    assert looks <= 5 + (time.monotonic() - began) / 0.01


# -- woken


@pytest.mark.parametrize("waits_for", [None, 60, 9], ids=["nothing", "one far away", "one near"])
async def test_a_trigger_that_is_due_before_what_a_runner_sleeps_for_is_not_late(
    waits_for: float | None, run: Run, handled: "asyncio.Queue[str]"
):
    if waits_for is not None:
        await RedisTrigger("acme").set("remind", "later", waits_for)
    await run()
    await RedisTrigger("acme").set("remind", "now", 0.001)

    assert await soon(handled) == "now"


async def test_a_trigger_set_by_another_process_wakes_the_runner(run: Run, handled: "asyncio.Queue[str]", url: str):
    await run()
    elsewhere = RedisManager(url, timeout=10)
    set_redis_source(lambda: elsewhere)
    try:
        await RedisTrigger("acme").set("remind", "from there", 0.001)
    finally:
        set_redis_source(None)

    assert await soon(handled) == "from there"
    await elsewhere.aclose()


async def test_a_due_trigger_of_somebody_else_hides_no_other(run: Run, handled: "asyncio.Queue[str]"):
    await RedisTrigger("stranger").set("remind", "never", 0.001)
    await run(tenants=["acme"])
    await RedisTrigger("acme").set("remind", "now", 0.001)

    assert await soon(handled) == "now"


async def test_a_trigger_moved_forward_is_not_late(run: Run, handled: "asyncio.Queue[str]"):
    await RedisTrigger("acme").set("remind", "moved", 60)
    await run()
    await RedisTrigger("acme").set("remind", "moved", 0.001)

    assert await soon(handled) == "moved"


async def test_the_same_trigger_set_deleted_and_set_again_wakes_each_time(run: Run, handled: "asyncio.Queue[str]"):
    triggers = RedisTrigger("acme")
    await run()
    for _ in range(20):
        await triggers.set("remind", "again", 0.001)
        await triggers.delete("remind", "again")
        await triggers.set("remind", "again", 0.001)
        await soon(handled)
        while await triggers.pending():
            await asyncio.sleep(0.001)


async def test_entries_have_ids_that_grow_though_the_stream_was_deleted_between(client: RedisClient):
    triggers, schedule = RedisTrigger("acme"), TriggerSchedule(*await current_redis())
    ids: list[tuple[int, ...]] = []
    for _ in range(200):
        await triggers.set("remind", "a", 9)
        ((entry, _),) = await client.execute("XRANGE", schedule.wakes, "-", "+")
        ids.append(tuple(map(int, entry.split(b"-"))))
        await triggers.delete("remind", "a")
        assert not await client.execute("EXISTS", schedule.wakes)

    assert ids == sorted(set(ids))


async def test_a_wake_up_expires_and_is_written_only_for_what_sleepers_do_not_see_in_time(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
):
    sleep_at_most(10, monkeypatch)
    triggers, schedule = RedisTrigger("acme"), TriggerSchedule(*await current_redis())
    await triggers.set("remind", "far away", 60)
    far = await client.execute("EXISTS", schedule.wakes)
    await triggers.set("remind", "near", 5)
    near = await client.execute("XLEN", schedule.wakes), await client.execute("PTTL", schedule.wakes)
    last = await client.execute("XRANGE", schedule.wakes, "-", "+")
    await triggers.set("remind", "behind it", 6)

    assert (far, near[0]) == (0, 1)
    assert 10_000 < near[1] <= 60_000
    assert await client.execute("XRANGE", schedule.wakes, "-", "+") == last


async def test_a_clock_that_went_back_keeps_no_wake_up_from_being_written(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
):
    sleep_at_most(10, monkeypatch)
    schedule = TriggerSchedule(*await current_redis())
    ahead = 2**62
    await client.execute("XADD", schedule.wakes, f"{ahead}-7", "at", "before the clock went back")
    await client.execute("PEXPIRE", schedule.wakes, 60_000)
    await RedisTrigger("acme").set("remind", "near", 5)
    ((entry, _),) = await client.execute("XRANGE", schedule.wakes, "-", "+")

    assert tuple(map(int, entry.split(b"-"))) > (ahead, 7)


async def test_the_stream_of_wake_ups_stays_short_however_many_there_were(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
):
    sleep_at_most(10, monkeypatch)
    triggers, schedule = RedisTrigger("acme"), TriggerSchedule(*await current_redis())
    for number in range(50):
        await triggers.set("remind", f"{number}", 9 - number / 10)  # each is due before all others

    assert await client.execute("XLEN", schedule.wakes) == 1


async def test_a_handler_that_is_registered_later_finds_what_is_due(run: Run):
    await RedisTrigger("acme").set("late action", "now", 0.001)
    await run()
    got: asyncio.Queue[str] = asyncio.Queue()

    @on_trigger("late action")
    async def handle(trigger: Trigger) -> None:
        got.put_nowait(trigger.identifier)

    assert await soon(got) == "now"


async def test_a_failed_attempt_is_repeated_after_its_pause_not_after_a_sleep(run: Run):
    attempts: asyncio.Queue[str] = asyncio.Queue()

    @on_trigger("fails twice")
    async def handle(trigger: Trigger) -> None:
        attempts.put_nowait(str(trigger.attempt))
        if trigger.attempt < 3:
            raise LookupError

    await run(backoff=(0.01, 0.01))
    await RedisTrigger("acme").set("fails twice", "a", 0.001)

    assert [await soon(attempts) for _ in range(3)] == ["1", "2", "3"]


async def test_what_a_dead_worker_held_is_taken_over_when_its_lease_ends(run: Run, handled: "asyncio.Queue[str]"):
    schedule = TriggerSchedule(*await current_redis())
    await RedisTrigger("acme").set("remind", "held", 0.001)
    claims: list[Any] = []
    while not claims:
        claims, _ = await schedule.claim("acme", "remind", limit=1, lease=0.4, max_attempts=5)
    await run()

    assert await soon(handled) == "held"


async def test_a_runner_that_lost_a_race_sleeps_until_the_winners_lease_ends(run: Run, handled: "asyncio.Queue[str]"):
    schedule = TriggerSchedule(*await current_redis())
    await RedisTrigger("acme").set("remind", "held", 0.3)
    await run()
    claims: list[Any] = []
    while not claims and handled.empty():
        claims, _ = await schedule.claim("acme", "remind", limit=1, lease=0.2, max_attempts=5)

    assert await soon(handled) == "held"


async def test_what_a_stopping_worker_gives_back_goes_to_one_that_sleeps(run: Run):
    begun: asyncio.Queue[int] = asyncio.Queue()

    @on_trigger("hangs once")
    async def handle(trigger: Trigger) -> None:
        begun.put_nowait(trigger.attempt)
        if trigger.attempt == 1:
            await asyncio.Event().wait()

    first = await run()
    await RedisTrigger("acme").set("hangs once", "a", 0.001)
    await asyncio.wait_for(begun.get(), SOON)
    await run()
    await first.stop(timeout=0)

    assert await asyncio.wait_for(begun.get(), SOON) == 2


# -- outages


def use(monkeypatch: pytest.MonkeyPatch, url: str, *, timeout: int = 10) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("REDIS_TIMEOUT", str(timeout))
    reset_settings()


async def test_what_is_set_while_a_runner_is_cut_off_is_not_late_when_it_is_back(
    run: Run, handled: "asyncio.Queue[str]", own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    await close_redis()
    direct = RedisManager(own_redis.url, timeout=10)
    async with TcpProxy(own_redis.url) as proxy:
        use(monkeypatch, proxy.url)
        runner = await run()
        for number in range(3):
            proxy.stall()
            proxy.drop()
            set_redis_source(lambda: direct)
            await RedisTrigger("acme").set("remind", str(number), 0.001)
            set_redis_source(None)
            proxy.resume()
            assert await soon(handled) == str(number)
            await until(lambda: runner._wake_ups is not None and runner._wake_ups.live)
        await runner.stop()
        await close_redis()
    await direct.aclose()


async def test_after_a_restart_of_redis_wake_ups_arrive_again(
    run: Run, handled: "asyncio.Queue[str]", own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    await close_redis()
    use(monkeypatch, own_redis.url)
    runner = await run()
    own_redis.restart()
    await until(lambda: own_redis.cli("CLIENT", "LIST").count(b"cmd=xread") == 1)
    fresh = RedisManager(own_redis.url, timeout=10)
    set_redis_source(lambda: fresh)
    await RedisTrigger("acme").set("remind", "after it", 0.001)
    set_redis_source(None)

    assert await soon(handled) == "after it"
    await runner.stop()
    await close_redis()
    await fresh.aclose()


@pytest.mark.parametrize("handler", [True, False], ids=["with a handler", "without one"])
async def test_an_outage_is_logged_once_and_its_end_once_and_only_when_redis_has_answered(
    handler: bool, run: Run, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    await close_redis()
    use(monkeypatch, own_redis.url, timeout=1)  # what is under way when it ends is tried for so long
    if handler:
        on_trigger("remind")(registry_handler)
    monkeypatch.setattr("agent_service.tenants.runner._REPORT_INTERVAL", 0.05)
    monkeypatch.setattr("agent_service.tenants.runner._OUTAGE_PAUSE", 0.05)
    caplog.set_level(logging.INFO, "agent_service")
    runner = await run(lease=0.03)

    def said(text: str) -> int:
        return sum(text in each.getMessage() for each in caplog.records)

    own_redis.kill()
    runner._wake.set()
    await until(lambda: said("does not serve") > 0)
    await asyncio.sleep(0.5)  # many renewals with nothing to renew, and many looks that fail
    during = said("does not serve"), said("serves again")
    own_redis.restart()
    await until(lambda: said("serves again") > 0)
    await runner.stop()
    await close_redis()

    assert during == (1, 0)
    assert (said("does not serve"), said("serves again")) == (1, 1)


async def registry_handler(trigger: Trigger) -> None:
    """Handles nothing in particular."""


# -- rights


def user(server: RedisServer, *rights: str) -> str:
    """Make a user with rights on the package's keys alone, and give the URL."""
    server.cli("ACL", "SETUSER", "app", "reset", "on", ">secret", "~agent_service*", "+@all", *rights)
    return server.url.replace("redis://", "redis://app:secret@")


async def test_the_right_to_the_packages_keys_is_enough_to_be_woken(
    run: Run, handled: "asyncio.Queue[str]", own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    await close_redis()
    use(monkeypatch, user(own_redis, "-@dangerous"))
    runner = await run()
    await RedisTrigger("acme").set("remind", "now", 0.001)

    assert await soon(handled) == "now"
    await runner.stop()
    await close_redis()


@pytest.mark.parametrize("refused", ["-xread", "-@blocking", "-@stream", "-xadd"])
async def test_without_the_right_to_streams_triggers_are_set_and_fired_all_the_same(
    refused: str,
    run: Run,
    handled: "asyncio.Queue[str]",
    own_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    await close_redis()
    sleep_at_most(0.5 if refused == "-xadd" else 3600, monkeypatch)
    use(monkeypatch, user(own_redis, refused))
    runner = await run(asleep=False)
    if refused != "-xadd":
        await until(lambda: "refuses to notify" in caplog.text)
    await RedisTrigger("acme").set("remind", "now", 0.001)

    assert await soon(handled) == "now"
    assert caplog.text.count("refuses to notify") == (0 if refused == "-xadd" else 1)
    assert "secret" not in caplog.text
    await runner.stop()
    await close_redis()


async def test_over_a_client_that_was_given_triggers_are_polled(
    run: Run, handled: "asyncio.Queue[str]", url: str, client: RedisClient
):
    given = RedisManager(None, client=RedisClient.over(client.raw, timeout=10))
    set_redis_source(lambda: given)
    try:
        runner = await run(asleep=False)
        await RedisTrigger("acme").set("remind", "now", 0.001)
        assert await soon(handled) == "now"
        await runner.stop()
    finally:
        set_redis_source(None)


async def test_a_runner_closes_its_connection_when_it_stops(
    run: Run, handled: "asyncio.Queue[str]", url: str, server: RedisServer | GivenServer
):
    runner = await run()
    blocked = run_command(url, "CLIENT", "LIST").count(b"cmd=xread")
    await runner.stop()
    await until(lambda: b"cmd=xread" not in run_command(url, "CLIENT", "LIST"))

    assert blocked == 1
