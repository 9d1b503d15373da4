"""The runner: due triggers reach their handlers, failures are tried again, and nothing is forgotten when it stops."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from agent_service.core.errors import RecordValueError, RedisUnavailableError, RuntimeStateError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.tenants.base import current_redis
from agent_service.tenants.handling import TriggerHandling
from agent_service.tenants.runner import TriggerRunner, on_trigger
from agent_service.tenants.schedule import Trigger, TriggerClaim, TriggerSchedule
from agent_service.tenants.trigger import RedisTrigger
from tests.servers.redis import RedisServer
from tests.support.waiting import until


@pytest.fixture
def triggers() -> RedisTrigger:
    return RedisTrigger("acme")


Run = Callable[..., Awaitable[TriggerRunner]]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Starts runners, and stops them at the end of the test."""
    runners: list[TriggerRunner] = []

    async def start(**options: Any) -> TriggerRunner:
        quick: dict[str, Any] = {"poll_interval": 0.005, "backoff": (0.005, 0.02)}
        runner = TriggerRunner(**quick | options)
        await runner.start()
        runners.append(runner)
        return runner

    yield start
    for each in runners:
        await each.stop(timeout=0.1)


class Recorder:
    """A handler that remembers what it got; ``fail`` says how often it raises first."""

    def __init__(self, action: str, fail: int = 0) -> None:
        self.got: list[Trigger] = []
        self.fail = fail
        self.go = asyncio.Event()
        self.go.set()

        @on_trigger(action)
        async def handle(trigger: Trigger) -> None:
            self.got.append(trigger)
            await self.go.wait()
            if len(self.got) <= self.fail:
                raise LookupError("no such user")

    async def seen(self, number: int) -> list[Trigger]:
        await until(lambda: len(self.got) >= number)
        return self.got


async def until_done(triggers: RedisTrigger) -> None:
    deadline = time.monotonic() + 60
    while await triggers.pending():
        assert time.monotonic() < deadline, await triggers.pending()
        await asyncio.sleep(0.002)


# -- firing


async def test_a_due_trigger_reaches_its_handler_once_and_not_too_early(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    runner = await run()
    await triggers.set("remind", "alice", ttl_seconds=0.05)
    (due_at,) = [each.due_at for each in await triggers.pending()]

    (trigger,) = await remind.seen(1)
    at = await TriggerSchedule(*await current_redis()).now()
    await until_done(triggers)

    assert trigger == Trigger("acme", "remind", "alice", due_at, attempt=1)
    assert at >= due_at
    assert len(remind.got) == 1
    await until(lambda: not runner.metrics()["running"])
    metrics = runner.metrics()
    assert metrics.pop("pending") <= 1  # it depends on when the runner looked
    assert metrics.pop("late") == 0
    assert metrics == {"handled": 1, "failed": 0, "dead": 0, "running": 0, "unhandled": {}}


async def test_a_trigger_that_was_due_long_before_the_start_is_handled(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    await triggers.set("remind", "alice", 0.001)
    await asyncio.sleep(0.02)
    await run()

    assert [each.identifier for each in await remind.seen(1)] == ["alice"]


async def test_two_runners_share_the_work_and_repeat_none(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    for number in range(200):
        await triggers.set("remind", str(number), 0.01)
    first, second = await run(), await run()
    await until_done(triggers)

    assert sorted(int(each.identifier) for each in remind.got) == list(range(200))
    assert first.metrics()["handled"] + second.metrics()["handled"] == 200


async def test_only_the_given_tenants_are_served(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    await triggers.set("remind", "alice", 0.001)
    await RedisTrigger("other").set("remind", "bob", 0.001)
    await run(tenants=["other", "third"])
    await until_done(RedisTrigger("other"))

    assert [each.tenant for each in remind.got] == ["other"]
    assert len(await triggers.late()) == 1


async def test_a_trigger_reset_inside_its_handler_fires_again(triggers: RedisTrigger, run: Run):
    got: list[Trigger] = []

    @on_trigger("tick")
    async def tick(trigger: Trigger) -> None:
        got.append(trigger)
        if len(got) < 3:
            await triggers.set(trigger.action, trigger.identifier, 0.005)

    await run()
    await triggers.set("tick", "clock", 0.001)
    await until(lambda: len(got) == 3)
    await until_done(triggers)

    assert [each.attempt for each in got] == [1, 1, 1]
    assert len({each.due_at for each in got}) == 3


async def test_a_deleted_trigger_does_not_fire(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    await run()
    await triggers.set("remind", "deleted", 5)
    await triggers.delete("remind", "deleted")
    await triggers.set("remind", "kept", 0.001)
    await until_done(triggers)

    assert [each.identifier for each in remind.got] == ["kept"]


async def test_no_more_than_a_hundred_handlers_run_at_once_and_the_others_follow(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    remind.go.clear()
    for number in range(150):
        await triggers.set("remind", str(number), 0.001)
    runner = await run()
    await remind.seen(100)
    await asyncio.sleep(0.05)
    running = runner.metrics()["running"]
    remind.go.set()
    await until_done(triggers)

    assert running == 100
    assert len(remind.got) == 150


# -- failing


async def test_a_failing_handler_is_tried_again_after_growing_pauses(triggers: RedisTrigger, run: Run):
    times: list[float] = []

    @on_trigger("remind")
    async def remind(trigger: Trigger) -> None:
        times.append(time.monotonic())
        if trigger.attempt < 4:
            raise LookupError

    runner = await run(backoff=(0.02, 0.05))
    await triggers.set("remind", "alice", 0.001)
    await until(lambda: len(times) == 4)
    await until_done(triggers)

    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert [pause >= least for pause, least in zip(pauses, (0.019, 0.039, 0.049), strict=True)] == [True] * 3
    assert runner.metrics()["failed"] == 3
    assert await triggers.dead() == []


async def test_after_its_last_attempt_it_is_dead_and_says_why(
    triggers: RedisTrigger, run: Run, caplog: pytest.LogCaptureFixture
):
    remind = Recorder("remind", fail=99)
    runner = await run(max_attempts=3)
    await triggers.set("remind", "alice", 0.001)
    with caplog.at_level(logging.ERROR, "agent_service"):
        await until_done(triggers)
    (dead,) = await triggers.dead()

    assert [each.attempt for each in remind.got] == [1, 2, 3]
    assert (dead.attempt, dead.error) == (3, "LookupError: no such user")
    assert runner.metrics()["dead"] == 1
    assert "dead after 3 attempts" in caplog.text


async def test_an_error_that_no_text_can_hold_still_kills(triggers: RedisTrigger, run: Run):
    @on_trigger("remind")
    async def remind(_: Trigger) -> None:
        raise LookupError("\ud800" + "x" * 1000)

    await run(max_attempts=1)
    await triggers.set("remind", "alice", 0.001)
    await until_done(triggers)
    (dead,) = await triggers.dead()

    assert dead.error.startswith(r"LookupError: \ud800xxx")
    assert len(dead.error) < 600


async def test_a_dead_trigger_that_is_set_again_starts_anew(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind", fail=1)
    await run(max_attempts=1)
    await triggers.set("remind", "alice", 0.001)
    await until_done(triggers)
    await triggers.set("remind", "alice", 0.001)
    await until_done(triggers)

    assert [each.attempt for each in remind.got] == [1, 1]
    assert await triggers.dead() == []


async def test_a_handler_that_cancels_itself_is_tried_again(triggers: RedisTrigger, run: Run):
    got: list[Trigger] = []

    @on_trigger("remind")
    async def remind(trigger: Trigger) -> None:
        got.append(trigger)
        if trigger.attempt == 1:
            raise asyncio.CancelledError

    await run()
    await triggers.set("remind", "alice", 0.001)
    await until_done(triggers)

    assert [each.attempt for each in got] == [1, 2]


async def test_a_long_handler_keeps_its_lease(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    remind.go.clear()
    await run(lease=1)
    await run(lease=1)
    await triggers.set("remind", "alice", 0.001)
    await remind.seen(1)
    await asyncio.sleep(2.5)
    remind.go.set()
    await until_done(triggers)

    assert len(remind.got) == 1


async def test_an_action_without_a_handler_stays_pending_and_is_reported(
    triggers: RedisTrigger, run: Run, caplog: pytest.LogCaptureFixture
):
    remind = Recorder("remind")
    await triggers.set("unknown", "alice", 0.001)
    await triggers.set("remind", "alice", 0.001)
    await asyncio.sleep(0.01)
    with caplog.at_level(logging.WARNING, "agent_service"):
        runner = await run()
        await until(lambda: bool(runner.metrics()["unhandled"]))
        await until(lambda: remind.got != [] and not runner.metrics()["running"])

    assert runner.metrics()["unhandled"] == {"unknown": 1}
    assert runner.metrics()["pending"] >= 1
    assert [each.action for each in await triggers.late()] == ["unknown"]
    assert caplog.text.count("no handler") == 1


# -- starting and stopping


async def test_stop_lets_running_handlers_finish_and_claims_no_more(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    remind.go.clear()
    runner = await run()
    await triggers.set("remind", "alice", 0.001)
    await remind.seen(1)
    stopping = asyncio.create_task(runner.stop())
    await triggers.set("remind", "bob", 0.001)
    await asyncio.sleep(0.05)
    stopped_early = stopping.done()
    remind.go.set()
    await stopping

    assert not stopped_early
    assert [each.identifier for each in remind.got] == ["alice"]
    assert [each.identifier for each in await triggers.pending()] == ["bob"]
    assert runner.metrics()["handled"] == 1


async def test_what_was_being_claimed_when_it_stops_is_handled_still(
    triggers: RedisTrigger, run: Run, monkeypatch: pytest.MonkeyPatch
):
    recorder = Recorder("work")
    claimed, answer = asyncio.Event(), asyncio.Event()
    claim = TriggerSchedule.claim

    async def slow(self: TriggerSchedule, *args: Any, **options: Any) -> Any:
        found = await claim(self, *args, **options)
        claimed.set()
        await answer.wait()
        return found

    monkeypatch.setattr(TriggerSchedule, "claim", slow)
    await triggers.set("work", "u", 0.001)
    runner = await run()
    await asyncio.wait_for(claimed.wait(), 60)
    stopping = asyncio.create_task(runner.stop())
    for _ in range(10):
        await asyncio.sleep(0)
    answer.set()
    await stopping

    assert [each.identifier for each in recorder.got] == ["u"]
    assert await triggers.pending() == []


async def test_leases_are_renewed_while_it_stops(triggers: RedisTrigger, run: Run, monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder("work")
    recorder.go.clear()
    renewed = asyncio.Event()
    renew = TriggerHandling.renew_leases

    async def noted(self: TriggerHandling) -> None:
        await renew(self)
        renewed.set()

    monkeypatch.setattr(TriggerHandling, "renew_leases", noted)
    await triggers.set("work", "u", 0.001)
    runner = await run(lease=0.6)
    await recorder.seen(1)
    stopping = asyncio.create_task(runner.stop())
    await asyncio.sleep(0)
    renewed.clear()
    try:
        await asyncio.wait_for(renewed.wait(), 60)
    finally:
        recorder.go.set()
        await stopping


async def test_a_lease_that_cannot_be_renewed_keeps_no_other_from_it(
    triggers: RedisTrigger, run: Run, monkeypatch: pytest.MonkeyPatch
):
    recorder = Recorder("work")
    recorder.go.clear()
    asked: list[str] = []
    every = asyncio.Event()

    async def renew(_self: TriggerSchedule, claim: TriggerClaim, _seconds: float) -> bool:
        asked.append(claim.trigger.identifier)
        if set(asked) == {"a", "b", "c"}:
            every.set()
        if claim.trigger.identifier == asked[0]:
            raise RedisUnavailableError("away")
        return True

    monkeypatch.setattr(TriggerSchedule, "renew", renew)
    for each in ("a", "b", "c"):
        await triggers.set("work", each, 0.001)
    await run(lease=0.6)
    await recorder.seen(3)
    try:
        await asyncio.wait_for(every.wait(), 60)
    finally:
        recorder.go.set()


async def test_a_handler_that_does_not_end_is_cancelled_and_its_trigger_goes_to_the_next(
    triggers: RedisTrigger, run: Run
):
    remind = Recorder("remind")
    remind.go.clear()
    runner = await run()
    await triggers.set("remind", "alice", 0.001)
    await remind.seen(1)
    began = time.monotonic()
    await runner.stop(timeout=0.05)
    took = time.monotonic() - began
    remind.go.set()
    await run()
    await until_done(triggers)

    assert took < 10
    assert [each.attempt for each in remind.got] == [1, 2]


async def test_a_cancelled_stop_leaves_no_handler_running(triggers: RedisTrigger, run: Run):
    remind = Recorder("remind")
    remind.go.clear()
    runner = await run()
    await triggers.set("remind", "alice", 0.001)
    await remind.seen(1)
    stopping = asyncio.create_task(runner.stop())
    await asyncio.sleep(0.02)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping

    assert runner.metrics()["running"] == 0
    assert [each.identifier for each in await triggers.late()] == ["alice"]


async def test_a_handler_that_refuses_to_end_is_left_in_the_end(
    triggers: RedisTrigger, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("agent_service.tenants.handling._CLEAN_UP", 0.02)
    started, go = asyncio.Event(), asyncio.Event()

    @on_trigger("stubborn")
    async def stubborn(_: Trigger) -> None:
        started.set()
        while not go.is_set():
            with suppress(asyncio.CancelledError):
                await go.wait()

    runner = await run()
    await triggers.set("stubborn", "alice", 0.001)
    await started.wait()
    await asyncio.wait_for(runner.stop(timeout=0.02), 30)
    still_running = runner.metrics()["running"]
    go.set()
    await until_done(triggers)
    await until(lambda: not runner.metrics()["running"])

    assert still_running == 1


async def test_it_is_an_async_context_manager_and_can_start_again(triggers: RedisTrigger):
    remind = Recorder("remind")
    runner = TriggerRunner(poll_interval=0.005)
    await runner.stop()
    for number in (1, 2):
        async with runner:
            with pytest.raises(RuntimeStateError, match="runs already"):
                await runner.start()
            await triggers.set("remind", "alice", 0.001)
            await remind.seen(number)
            await until_done(triggers)

    assert len(remind.got) == 2


async def test_an_outage_delays_triggers_and_loses_none(monkeypatch: pytest.MonkeyPatch, run: Run):
    remind = Recorder("remind")
    with RedisServer(("appendonly", "yes"), ("appendfsync", "always")) as server:
        await close_redis()
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("REDIS_TIMEOUT", "10")
        reset_settings()
        triggers = RedisTrigger("acme")
        await run()
        await triggers.set("remind", "alice", 1)
        server.kill()
        await asyncio.sleep(1.1)
        with pytest.raises(RedisUnavailableError):
            await triggers.set("remind", "bob", 1)
        server.restart()
        server.wait_until("persistence", "loading:0")

        assert [each.identifier for each in await remind.seen(1)] == ["alice"]
        await until_done(triggers)
        await close_redis()


async def test_the_end_of_a_handling_is_noted_after_an_outage(monkeypatch: pytest.MonkeyPatch, run: Run):
    remind = Recorder("remind")
    remind.go.clear()
    with RedisServer(("appendonly", "yes"), ("appendfsync", "always")) as server:
        await close_redis()
        monkeypatch.setenv("REDIS_URL", server.url)
        monkeypatch.setenv("REDIS_TIMEOUT", "10")
        reset_settings()
        triggers = RedisTrigger("acme")
        await run()
        await triggers.set("remind", "alice", 0.001)
        await remind.seen(1)
        server.kill()
        remind.go.set()
        await asyncio.sleep(0.1)
        server.restart()
        server.wait_until("persistence", "loading:0")
        await until_done(triggers)
        await close_redis()

    assert len(remind.got) == 1


async def test_without_any_redis_it_does_not_start(monkeypatch: pytest.MonkeyPatch):
    await close_redis()
    monkeypatch.delenv("REDIS_URL")
    reset_settings()

    with pytest.raises(RedisUnavailableError, match="REDIS_URL"):
        await TriggerRunner().start()


# -- what it takes and refuses


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("poll_interval", "lease") for value in (0, -1, math.nan, math.inf, True, "1")),
        *({"max_attempts": value} for value in (0, -1, True, 1.5, "3")),
        *({"backoff": value} for value in (1, (1,), (2, 1), (0, 1), (1, math.inf), "ab")),
        *({"tenants": value} for value in ("acme", [""], [1])),
    ],
    ids=str,
)
def test_an_unusable_argument_is_refused_by_name(wrong: dict[str, Any]):
    with pytest.raises(RecordValueError, match=next(iter(wrong))):
        TriggerRunner(**wrong)


async def test_an_action_has_one_async_handler():
    @on_trigger("remind")
    async def remind(trigger: Trigger) -> None: ...

    assert on_trigger("remind")(remind) is remind
    with pytest.raises(RecordValueError, match="handled by"):

        @on_trigger("remind")
        async def other(trigger: Trigger) -> None: ...

    with pytest.raises(RecordValueError, match="async function"):
        on_trigger("plain")(print)  # type: ignore[type-var] # the mistake
    with pytest.raises(RecordValueError, match="action"):
        on_trigger("")


async def test_an_object_with_an_async_call_is_a_handler(triggers: RedisTrigger, run: Run):
    got: list[Trigger] = []

    class Handler:
        async def __call__(self, trigger: Trigger) -> None:
            got.append(trigger)

    on_trigger("remind")(Handler())
    await run()
    await triggers.set("remind", "alice", 0.001)
    await until_done(triggers)

    assert len(got) == 1
