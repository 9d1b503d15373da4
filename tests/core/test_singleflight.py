"""One load for many callers."""

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from agent_service.core.errors import ReentrantLoadError
from agent_service.core.singleflight import SingleFlight

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO")


class Breakable:
    broken = False


async def test_a_broken_fence_sends_later_callers_to_a_load_of_their_own():
    flights = SingleFlight()
    leases: list[Breakable] = []
    finish = asyncio.Event()
    loads = 0

    def open_lease() -> Breakable:
        leases.append(Breakable())
        return leases[-1]

    async def load(_lease: object) -> int:
        nonlocal loads
        loads += 1
        mine = loads
        await finish.wait()
        return mine

    early = asyncio.create_task(flights.run("k", load, open_lease))
    await asyncio.sleep(0)
    assert flights.joinable("k") is leases[0]
    leases[0].broken = True
    assert flights.joinable("k") is None
    late = [asyncio.create_task(flights.run("k", load, open_lease)) for _ in range(3)]
    await asyncio.sleep(0)
    finish.set()

    assert await early == 1
    assert await asyncio.gather(*late) == [2, 2, 2]
    assert len(flights) == 0


async def test_each_waiter_raises_an_exception_of_its_own_with_its_cause():
    flights = SingleFlight()

    async def load(_lease: object) -> None:
        await asyncio.sleep(0)
        try:
            raise OSError("disk")
        except OSError as exc:
            raise LookupError("user", 7) from exc

    results: list[Any] = await asyncio.gather(
        *(flights.run("k", load, Breakable) for _ in range(5)), return_exceptions=True
    )

    assert [type(each) for each in results] == [LookupError] * 5
    assert [each.args for each in results] == [("user", 7)] * 5
    assert all(isinstance(each.__cause__, OSError) for each in results)
    assert len({id(each) for each in results}) == 5


async def test_an_exception_that_cannot_be_copied_is_shared():
    class Odd(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a} {b}")

    flights = SingleFlight()

    async def load(_lease: object) -> None:
        await asyncio.sleep(0)
        raise Odd(1, 2)

    results = await asyncio.gather(*(flights.run("k", load, Breakable) for _ in range(3)), return_exceptions=True)

    assert [type(each) for each in results] == [Odd] * 3


async def test_a_load_sees_only_the_context_variables_that_were_declared():
    flights = SingleFlight()

    async def who(_lease: object) -> str:
        return WHO.get("nobody")

    WHO.set("alice")

    assert await flights.run("k", who, Breakable) == "nobody"
    assert await flights.run("k", who, Breakable, context=[WHO]) == "alice"


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_a_circle_of_loads_is_an_error_not_a_deadlock(depth: int):
    flights = SingleFlight()

    async def load(level: int) -> None:
        await flights.run(str(level), lambda _lease: load((level + 1) % depth), Breakable)

    with pytest.raises(ReentrantLoadError, match="must not ask"):
        await asyncio.wait_for(load(0), 60)
    assert len(flights) == 0


async def test_two_loads_that_wait_for_each_other_are_told_apart_from_two_that_do_not():
    flights = SingleFlight()
    both_run = asyncio.Barrier(2)

    async def load(_lease: object, other: str) -> str:
        await both_run.wait()
        return await flights.run(other, lambda lease: load(lease, "?"), Breakable)

    a = asyncio.create_task(flights.run("a", lambda lease: load(lease, "b"), Breakable))
    b = asyncio.create_task(flights.run("b", lambda lease: load(lease, "a"), Breakable))
    results = await asyncio.wait_for(asyncio.gather(a, b, return_exceptions=True), 60)

    assert all(isinstance(each, ReentrantLoadError) for each in results)


async def test_a_load_may_ask_for_other_keys_in_child_tasks():
    flights = SingleFlight()

    async def leaf(_lease: object) -> int:
        await asyncio.sleep(0)
        return 1

    async def root(_lease: object) -> int:
        return sum(await asyncio.gather(*(flights.run(key, leaf, Breakable) for key in "aabb")))

    assert await flights.run("root", root, Breakable) == 4


async def test_a_load_that_fails_after_everyone_left_warns_nobody_but_the_log(caplog: pytest.LogCaptureFixture):
    flights = SingleFlight()
    started = asyncio.Event()

    async def load(_lease: object) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    caller = asyncio.create_task(flights.run("k", load, Breakable))
    await started.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    while len(flights):
        await asyncio.sleep(0)
    gc.collect()

    assert "nobody waits for it" in caplog.text


async def test_closing_cancels_what_is_running():
    flights = SingleFlight()

    async def load(_lease: object) -> None:
        await asyncio.Event().wait()

    callers = [asyncio.create_task(flights.run(key, load, Breakable)) for key in "ab"]
    await asyncio.sleep(0)
    await flights.aclose()
    results = await asyncio.gather(*callers, return_exceptions=True)

    assert all(isinstance(each, asyncio.CancelledError) for each in results)
    assert len(flights) == 0


class Held:
    """A load that runs until it is told to finish, and says whether it was cancelled."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.began = self.cancelled = 0

    async def __call__(self, _lease: object) -> str:
        self.began += 1
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "value"


async def cancelled(*waiters: "asyncio.Task[Any]") -> None:
    for each in waiters:
        each.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    await asyncio.sleep(0)


async def test_a_load_is_cancelled_with_its_last_waiter_and_not_before():
    flights, load = SingleFlight(), Held()
    waiters = [asyncio.create_task(flights.run("k", load, Breakable)) for _ in range(3)]
    await asyncio.sleep(0)

    await cancelled(*waiters[:2])
    assert load.cancelled == 0
    await cancelled(waiters[2])

    assert load.cancelled == 1
    assert len(flights) == 0


async def test_a_caller_after_the_last_waiter_left_gets_a_load_of_his_own():
    flights = SingleFlight()
    ending = asyncio.Event()

    async def reluctant(_lease: object) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await ending.wait()  # it cleans up, and takes its time
        return "never"

    first = asyncio.create_task(flights.run("k", reluctant, Breakable))
    await asyncio.sleep(0)
    await cancelled(first)

    load = Held()
    load.finish.set()
    assert await flights.run("k", load, Breakable) == "value"
    ending.set()
    await flights.aclose()


async def test_a_load_that_ends_late_does_not_end_the_one_that_came_after_it():
    flights, leases = SingleFlight(), [Breakable(), Breakable()]
    old, new = Held(), Held()
    early = asyncio.create_task(flights.run("k", old, lambda: leases[0]))
    await asyncio.sleep(0)
    leases[0].broken = True
    late = asyncio.create_task(flights.run("k", new, lambda: leases[1]))
    await asyncio.sleep(0)

    old.finish.set()
    assert await early == "value"
    assert flights.joinable("k") is leases[1]
    joining = asyncio.create_task(flights.run("k", new, Breakable))
    await asyncio.sleep(0)
    new.finish.set()

    assert [await late, await joining] == ["value", "value"]
    assert new.began == 1


async def test_a_load_that_one_caller_wanted_to_go_on_outlives_all_of_them():
    flights, load = SingleFlight(), Held()
    waiters = [asyncio.create_task(flights.run("k", load, Breakable, goes_on=wanted)) for wanted in (True, False)]
    await asyncio.sleep(0)

    await cancelled(*waiters)

    assert load.cancelled == 0
    again = asyncio.create_task(flights.run("k", load, Breakable))
    await asyncio.sleep(0)
    load.finish.set()
    assert await again == "value"
    assert load.began == 1


async def test_closing_ends_loads_that_have_just_been_asked_for_too():
    flights, load = SingleFlight(), Held()
    flights.launch("k", load, Breakable)

    await flights.aclose()

    assert (load.began, load.cancelled) == (1, 1)
    assert len(flights) == 0
