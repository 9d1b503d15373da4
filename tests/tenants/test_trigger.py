"""The schedule: what was set is pending until it is done, and nothing is late, lost or anybody else's."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants.base import current_redis
from agent_service.tenants.schedule import TriggerClaim, TriggerSchedule
from agent_service.tenants.trigger import RedisTrigger
from tests.servers.redis import GivenServer, RedisServer
from tests.support.depth import examples
from tests.tenants.test_batch import until_visible


@pytest.fixture
def triggers() -> RedisTrigger:
    return RedisTrigger(tenant="acme")


async def schedule() -> TriggerSchedule:
    return TriggerSchedule(*await current_redis())


async def claim(tenant: str = "acme", action: str = "remind", lease: float = 30, max_attempts: int = 5) -> Any:
    return await (await schedule()).claim(tenant, action, limit=100, lease=lease, max_attempts=max_attempts)


def names(found: Any) -> list[tuple[str, str]]:
    return [(each.action, each.identifier) for each in found]


async def test_the_documented_example():
    triggers = RedisTrigger(tenant="your_tenant")

    await triggers.set("send_reminder", "user_123", ttl_seconds=3600)
    await triggers.set("cleanup_temp", "session_456", ttl_seconds=300)
    pending = await triggers.pending()
    await triggers.delete("send_reminder", "user_123")
    await triggers.delete_all_by_identifier("session_456")

    assert names(pending) == [("cleanup_temp", "session_456"), ("send_reminder", "user_123")]
    assert await triggers.pending() == []


async def test_what_was_set_is_pending_with_its_due_time(triggers: RedisTrigger):
    before = await (await schedule()).now()
    assert await triggers.set("remind", "a", 60) is True
    assert await triggers.set("remind", "b", timedelta(minutes=2)) is True
    first, second = await triggers.pending()

    assert (first.tenant, first.action, first.identifier, first.attempt) == ("acme", "remind", "a", 0)
    assert timedelta(seconds=60) <= first.due_at - before < timedelta(seconds=61)
    assert timedelta(seconds=120) <= second.due_at - before < timedelta(seconds=121)
    assert await triggers.late() == []
    assert await triggers.dead() == []


async def test_nothing_can_be_claimed_before_it_is_due(triggers: RedisTrigger, server: RedisServer | GivenServer):
    await triggers.set("remind", "a", 300)
    none, wait, *_ = await (await schedule()).due(["remind"])
    assert (none, 0 < (wait or 0) <= 300.001) == ([], True)
    assert await claim() == ([], [])
    await triggers.set("remind", "a", 0.05)
    await until_visible(server, 51)

    assert await (await schedule()).due(["remind", "other"]) == ([("remind", "acme")], None, 1, 0)
    assert names(await triggers.late()) == [("remind", "a")]
    claims, died = await claim()
    assert [(each.trigger.identifier, each.trigger.attempt) for each in claims] == [("a", 1)]
    assert died == []
    assert names(await triggers.late()) == [("remind", "a")]


@pytest.mark.parametrize("order", [["soon", "later"], ["later", "soon"]])
async def test_the_wait_is_that_for_the_earliest_of_all_actions(order: list[str]):
    tenants = {"soon": (RedisTrigger("a"), 50), "later": (RedisTrigger("b"), 500)}
    for action in order:
        triggers, seconds = tenants[action]
        await triggers.set(action, "one", seconds)
        await triggers.set(action, "another", seconds + 100)
    for actions in (["soon", "later"], ["later", "soon"], ["soon", "nothing", "later"]):
        due_now, wait, *_ = await (await schedule()).due(actions)

        assert due_now == []
        assert wait is not None
        assert 1 < wait < 51  # due times are rounded up to milliseconds


async def test_what_is_due_already_does_not_hide_when_the_next_is(server: RedisServer | GivenServer):
    await RedisTrigger("a").set("remind", "now", 0.001)
    await RedisTrigger("b").set("remind", "next", 50)
    await RedisTrigger("c").set("remind", "after it", 90)
    await until_visible(server, 2)
    due_now, wait, *_ = await (await schedule()).due(["remind"])

    assert due_now == [("remind", "a")]
    assert wait is not None
    assert 40 < wait < 51


async def due(triggers: RedisTrigger, server: RedisServer | GivenServer, *identifiers: str) -> list[TriggerClaim]:
    """Set triggers, wait until they are due, and claim them."""
    for each in identifiers:
        await triggers.set("remind", each, 0.001)
    await until_visible(server, 2)
    claims: list[TriggerClaim] = (await claim(triggers.tenant))[0]
    return claims


async def test_a_claimed_trigger_is_nobody_elses_until_its_lease_ends(
    triggers: RedisTrigger, server: RedisServer | GivenServer
):
    await triggers.set("remind", "a", 0.001)
    await until_visible(server, 2)
    await claim(lease=300)
    taken = await claim()
    await triggers.set("remind", "b", 0.001)
    await until_visible(server, 2)
    await claim(lease=0.02)
    await until_visible(server, 21)
    again, _ = await claim()

    assert taken == ([], [])
    assert [(each.trigger.identifier, each.trigger.attempt) for each in again] == [("b", 2)]


async def test_a_done_trigger_leaves_nothing_behind(
    triggers: RedisTrigger, server: RedisServer | GivenServer, client: RedisClient
):
    for each in await due(triggers, server, "a", "b"):
        assert await (await schedule()).done(each) is True
        assert await (await schedule()).done(each) is False

    assert await client.execute("DBSIZE") == 0


async def test_a_renewed_lease_holds_on(triggers: RedisTrigger, server: RedisServer | GivenServer):
    await triggers.set("remind", "a", 0.001)
    await until_visible(server, 2)
    (mine,), _ = await claim(lease=0.02)
    assert await (await schedule()).renew(mine, 30) is True
    await until_visible(server, 21)

    assert await claim() == ([], [])
    assert await (await schedule()).done(mine) is True


async def test_setting_it_again_reschedules_it_and_ends_the_claim(
    triggers: RedisTrigger, server: RedisServer | GivenServer
):
    (mine,) = await due(triggers, server, "a")
    await triggers.set("remind", "a", 60)

    for end in (await schedule()).done(mine), (await schedule()).retry(mine, 0), (await schedule()).renew(mine, 1):
        assert await end is False
    assert await (await schedule()).bury(mine, "error") is False
    (pending,) = await triggers.pending()
    assert pending.attempt == 0
    assert pending.due_at > mine.trigger.due_at + timedelta(seconds=59)
    assert await triggers.late() == []


async def test_a_trigger_that_was_deleted_while_handled_does_not_come_back(
    triggers: RedisTrigger, server: RedisServer | GivenServer, client: RedisClient
):
    (mine,) = await due(triggers, server, "a")

    assert await triggers.delete("remind", "a") == 1
    assert await (await schedule()).retry(mine, 0) is False
    assert await client.execute("DBSIZE") == 0


async def test_a_retried_trigger_can_be_claimed_after_its_pause(
    triggers: RedisTrigger, server: RedisServer | GivenServer
):
    (mine,) = await due(triggers, server, "a")
    await (await schedule()).retry(mine, 300)
    too_early, _ = await claim()
    (other,) = await due(triggers, server, "b")
    await (await schedule()).retry(other, 0.02)
    await until_visible(server, 21)
    (again,), _ = await claim()

    assert too_early == []
    assert again.trigger == type(again.trigger)("acme", "remind", "b", other.trigger.due_at, 2)


async def test_a_buried_trigger_is_dead_until_it_is_set_again(
    triggers: RedisTrigger, server: RedisServer | GivenServer
):
    first, second = await due(triggers, server, "a", "b")
    await (await schedule()).bury(first, "LookupError: no such user é\nline two")
    await (await schedule()).bury(second, "")

    dead = {each.identifier: each for each in await triggers.dead()}
    assert dead["a"].error == "LookupError: no such user é\nline two"
    assert (dead["a"].attempt, dead["a"].due_at, dead["b"].error) == (1, first.trigger.due_at, "")
    assert dead["a"].died_at >= dead["a"].due_at
    assert await triggers.pending() == []
    assert await claim() == ([], [])
    await triggers.set("remind", "a", 60)
    assert names(await triggers.dead()) == [("remind", "b")]
    assert await triggers.delete("remind", "b") == 1
    assert await triggers.dead() == []


async def test_workers_that_die_use_up_the_attempts(triggers: RedisTrigger, server: RedisServer | GivenServer):
    await triggers.set("remind", "a", 0.001)
    for attempt in (1, 2):
        await until_visible(server, 2)
        (mine,), _ = await claim(lease=0.001, max_attempts=2)
        assert mine.trigger.attempt == attempt
    await until_visible(server, 2)

    assert await claim(max_attempts=2) == ([], ["a"])
    (dead,) = await triggers.dead()
    assert (dead.attempt, "worker" in dead.error) == (2, True)


async def test_the_earliest_are_claimed_first_and_no_more_than_asked(
    triggers: RedisTrigger, server: RedisServer | GivenServer
):
    for number in range(6):
        await triggers.set("remind", f"{number}", 0.010 - number / 1000)
    await until_visible(server, 12)
    first, _ = await (await schedule()).claim("acme", "remind", limit=4, lease=30, max_attempts=5)
    rest, _ = await claim()

    claimed = [each.trigger for each in first + rest]
    assert len(first) == 4
    assert claimed == sorted(claimed, key=lambda each: each.due_at)


async def test_deleting_tells_how_many_there_were(triggers: RedisTrigger):
    for action in ("remind", "expire", "bill"):
        await triggers.set(action, "user", 60)
        await triggers.set(action, "other", 60)
    await RedisTrigger("stranger").set("remind", "user", 60)

    assert await triggers.delete("remind", "nobody") == 0
    assert await triggers.delete_all_by_identifier("user") == 3
    assert await triggers.delete_all_by_identifier("user") == 0
    assert sorted(names(await triggers.pending())) == [("bill", "other"), ("expire", "other"), ("remind", "other")]
    assert len(await RedisTrigger("stranger").pending()) == 1


async def test_actions_without_triggers_are_forgotten(triggers: RedisTrigger, client: RedisClient):
    await triggers.set("remind", "a", 60)
    assert await (await schedule()).actions() == await (await schedule()).actions("acme") == ["remind"]
    await triggers.delete("remind", "a")

    assert await (await schedule()).actions() == []
    assert await client.execute("DBSIZE") == 0


async def test_inspection_sees_every_one_of_many(triggers: RedisTrigger):
    for number in range(2500):
        await (await schedule()).set("acme", "remind", str(number), 60_000 + number)

    assert len({each.identifier for each in await triggers.pending()}) == 2500


hostile = st.text(st.sampled_from([*":_*?[]\\{}%^-/ aé", "\x00"]), min_size=1, max_size=6)


@settings(max_examples=examples(20, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tenant=hostile, action=hostile, identifier=hostile)
async def test_hostile_names_reach_nobody_else(tenant: str, action: str, identifier: str):
    canary, triggers = RedisTrigger("canary"), RedisTrigger(tenant)
    await canary.set(action, identifier, 60)

    await triggers.set(action, identifier, 60)
    pending = await triggers.pending()
    deleted = await triggers.delete_all_by_identifier(identifier)
    await triggers.delete(action, identifier)

    assert [(each.tenant, each.action, each.identifier) for each in pending] == [(tenant, action, identifier)]
    assert deleted == 1
    assert (action, identifier) in names(await canary.pending())


@pytest.mark.parametrize("ttl", [0, -1, -0.5, math.nan, math.inf, True, "60", None, timedelta(seconds=-1)])
async def test_an_unusable_time_is_refused(triggers: RedisTrigger, ttl: Any):
    with pytest.raises(ValueError, match="ttl_seconds"):
        await triggers.set("remind", "a", ttl_seconds=ttl)
    assert await triggers.pending() == []


@pytest.mark.parametrize("wrong", ["", None, 1, "\ud800"])
async def test_an_unusable_name_is_refused(triggers: RedisTrigger, wrong: Any, client: RedisClient):
    for call in (
        triggers.set("remind", wrong, 60),
        triggers.delete("remind", wrong),
        triggers.delete_all_by_identifier(wrong),
    ):
        with pytest.raises(RecordValueError, match="identifier"):
            await call
    for call in (triggers.set(wrong, "a", 60), triggers.delete(wrong, "a")):
        with pytest.raises(RecordValueError, match="action"):
            await call
    with pytest.raises(RecordValueError, match="tenant"):
        RedisTrigger(wrong)
    assert await client.execute("DBSIZE") == 0
