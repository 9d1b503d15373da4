"""Queues that lose nothing: chunks for one worker, claims for many, tenants that stay pending while there is work."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import RecordValueError
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants.batch import BatchClaim, RedisBatch
from tests.servers.redis import GivenServer, RedisServer
from tests.support.depth import examples

QUEUE = ("email_service", "daily_reports", "send")


@pytest.fixture
def batch() -> RedisBatch:
    return RedisBatch(tenant="mimeia")


async def fill(batch: RedisBatch, number: int, queue: tuple[str, str, str] = QUEUE) -> None:
    for position in range(number):
        await batch.enqueue(*queue, {"n": position})


def numbers(claims: list[BatchClaim]) -> list[int]:
    return [each.payload["n"] for each in claims]


async def until_visible(server: RedisServer | GivenServer, milliseconds: int) -> None:
    """Wait until that much time has passed on the server's own clock."""

    def now() -> int:
        seconds, micros = server.cli("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    end = now() + milliseconds
    while now() <= end:
        await asyncio.sleep(0.002)


# -- one worker


async def test_the_documented_example():
    batch = RedisBatch(tenant="your_tenant")

    await batch.enqueue("email_service", "daily_reports", "send", {"user_id": "123", "template": "daily_summary"})
    items = await batch.get_chunk("email_service", "daily_reports", "send", 0, 99)
    await batch.trim("email_service", "daily_reports", "send", 100, -1)
    pending_tenants = await RedisBatch.get_pending_tenants("email_service")
    await RedisBatch.remove_from_pending("email_service", "your_tenant")

    assert items == [{"user_id": "123", "template": "daily_summary"}]
    assert pending_tenants == {"your_tenant"}
    assert await RedisBatch.get_pending_tenants("email_service") == set()


async def test_a_chunk_holds_both_ends_and_trim_keeps_its_range(batch: RedisBatch):
    await fill(batch, 120)

    assert [each["n"] for each in await batch.get_chunk(*QUEUE, 0, 99)] == list(range(100))
    assert await batch.get_chunk(*QUEUE, -1, -1) == [{"n": 119}]
    assert await batch.trim(*QUEUE, 100, -1) == 100
    assert await batch.get_length(*QUEUE) == 20
    assert (await batch.get_chunk(*QUEUE, 0, 0)) == [{"n": 100}]


async def test_enqueue_tells_how_many_wait(batch: RedisBatch):
    assert await batch.get_length(*QUEUE) == 0
    assert [await batch.enqueue(*QUEUE, n) for n in "abc"] == [1, 2, 3]


# -- many workers


async def test_claims_come_in_order_and_are_seen_by_nobody_else(batch: RedisBatch):
    await fill(batch, 5)

    first, second = await batch.claim(*QUEUE, count=2), await batch.claim(*QUEUE, count=9)

    assert (numbers(first), numbers(second)) == ([0, 1], [2, 3, 4])
    assert await batch.claim(*QUEUE) == []
    assert await batch.get_length(*QUEUE) == 0
    assert await batch.get_chunk(*QUEUE, 0, -1) == []
    assert len({each.id for each in first + second}) == 5


async def test_an_acknowledged_claim_is_gone_for_good(batch: RedisBatch, client: RedisClient):
    await fill(batch, 3)
    claims = await batch.claim(*QUEUE, count=3)

    assert await batch.ack(claims[:2]) == 2
    assert await batch.ack(claims) == 1
    assert await batch.ack([]) == 0
    assert await RedisBatch.remove_from_pending("email_service", "mimeia")
    assert await client.execute("DBSIZE") == 0


async def test_more_claims_than_lua_can_unpack_are_acknowledged_at_once(
    batch: RedisBatch, client: RedisClient, server: RedisServer | GivenServer
):
    await fill(batch, 1)
    (waiting,) = await client.execute("KEYS", "*:batch:*")
    await client.pipeline([("RPUSH", waiting, *[b'{"n":%d}' % number for number in range(1, 9_001)])])
    claims = await batch.claim(*QUEUE, count=9_001)

    assert numbers(claims) == list(range(9_001))
    assert len({each.id for each in claims}) == 9_001
    assert await batch.ack(claims) == 9_001
    assert await RedisBatch.remove_from_pending("email_service", "mimeia")
    assert await client.execute("DBSIZE") == 0


async def test_claims_of_several_queues_are_acknowledged_together(batch: RedisBatch):
    other = ("email_service", "weekly", "send")
    await fill(batch, 2)
    await fill(batch, 2, other)

    claims = await batch.claim(*QUEUE, count=2) + await batch.claim(*other, count=2)

    assert await batch.ack(iter(claims)) == 4
    assert await RedisBatch.remove_from_pending("email_service", "mimeia")


async def test_what_is_not_acknowledged_in_time_goes_back_to_the_head_in_order(
    batch: RedisBatch, server: RedisServer | GivenServer
):
    await fill(batch, 25)
    lost = await batch.claim(*QUEUE, count=20, visibility=0.02)
    await until_visible(server, 21)

    assert [each["n"] for each in await batch.get_chunk(*QUEUE, 0, -1)] == list(range(25))
    assert await batch.get_length(*QUEUE) == 25
    assert await batch.ack(lost) == 0
    assert numbers(await batch.claim(*QUEUE, count=25)) == list(range(25))


LOOKS: dict[str, Callable[[RedisBatch], Awaitable[Any]]] = {
    "get_length": lambda batch: batch.get_length(*QUEUE),
    "get_chunk": lambda batch: batch.get_chunk(*QUEUE, 0, -1),
    "trim": lambda batch: batch.trim(*QUEUE, 2, -1),
    "enqueue": lambda batch: batch.enqueue(*QUEUE, {"n": 2}),
    "claim": lambda batch: batch.claim(*QUEUE, count=9),
}


@pytest.mark.parametrize(
    ("look", "sees"),
    [("get_length", 2), ("get_chunk", [{"n": 0}, {"n": 1}]), ("trim", 2), ("enqueue", 3), ("claim", [0, 1])],
)
async def test_every_operation_finds_what_was_not_acknowledged_in_time(
    batch: RedisBatch, server: RedisServer | GivenServer, look: str, sees: Any
):
    await fill(batch, 2)
    await batch.claim(*QUEUE, count=2, visibility=0.02)
    await until_visible(server, 21)
    seen = await LOOKS[look](batch)

    assert (numbers(seen) if look == "claim" else seen) == sees


async def test_a_late_acknowledgement_takes_nothing_from_the_next_worker(
    batch: RedisBatch, server: RedisServer | GivenServer
):
    await fill(batch, 1)
    late = await batch.claim(*QUEUE, visibility=0.005)
    await until_visible(server, 6)
    mine = await batch.claim(*QUEUE)

    assert await batch.ack(late) == 0
    assert await batch.ack(mine) == 1


async def test_a_late_acknowledgement_counts_where_nobody_looked(batch: RedisBatch, server: RedisServer | GivenServer):
    await fill(batch, 1)
    late = await batch.claim(*QUEUE, visibility=0.005)
    await until_visible(server, 6)

    assert await batch.ack(late) == 1
    assert await batch.get_length(*QUEUE) == 0


async def test_trim_leaves_claimed_items_alone(batch: RedisBatch):
    await fill(batch, 4)
    claims = await batch.claim(*QUEUE, count=2)

    assert await batch.trim(*QUEUE, 1, -1) == 1
    assert await batch.get_chunk(*QUEUE, 0, -1) == [{"n": 3}]
    assert await batch.ack(claims) == 2


async def test_concurrent_claims_never_share_an_item(batch: RedisBatch):
    await fill(batch, 200)

    claims = await asyncio.gather(*(batch.claim(*QUEUE, count=7) for _ in range(40)))

    assert sorted(n for each in claims for n in numbers(each)) == list(range(200))


async def test_another_tenant_cannot_acknowledge_a_claim(batch: RedisBatch):
    await fill(batch, 1)
    claims = await batch.claim(*QUEUE)

    assert await RedisBatch("stranger").ack(claims) == 0
    assert await batch.ack(claims) == 1


# -- who is pending


@pytest.mark.parametrize("what", ["item", "claim", "other queue"])
async def test_a_tenant_stays_pending_while_there_is_work(batch: RedisBatch, what: str):
    await fill(batch, 1)
    if what == "claim":
        await batch.claim(*QUEUE)
    if what == "other queue":
        await fill(batch, 1, ("email_service", "weekly", "send"))
        await batch.trim(*QUEUE, 1, 0)

    assert not await RedisBatch.remove_from_pending("email_service", "mimeia")
    assert await RedisBatch.get_pending_tenants("email_service") == {"mimeia"}


async def test_only_that_service_and_tenant_is_removed(batch: RedisBatch):
    await fill(batch, 1, ("sms_service", "daily", "send"))
    await fill(RedisBatch("other"), 1)
    await fill(batch, 1)
    await batch.ack(await batch.claim(*QUEUE))

    assert await RedisBatch.remove_from_pending("email_service", "mimeia")
    assert await RedisBatch.remove_from_pending("email_service", "never seen")
    assert await RedisBatch.get_pending_tenants("email_service") == {"other"}
    assert await RedisBatch.get_pending_tenants("sms_service") == {"mimeia"}


async def test_a_tenant_that_was_removed_comes_back_with_the_next_item(batch: RedisBatch):
    await fill(batch, 1)
    await batch.trim(*QUEUE, 1, 0)
    await RedisBatch.remove_from_pending("email_service", "mimeia")
    await fill(batch, 1)

    assert await RedisBatch.get_pending_tenants("email_service") == {"mimeia"}


# -- what it takes and refuses

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["1", "0", "null", "true", "1e5", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab:", max_size=3), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=examples(20, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=json_values)
async def test_any_json_value_comes_back_as_it_went_in(payload: Any):
    batch = RedisBatch("t")
    await batch.enqueue(*QUEUE, payload)
    (chunk,), (claim,) = await batch.get_chunk(*QUEUE, 0, -1), await batch.claim(*QUEUE)
    await batch.ack([claim])

    assert (chunk, type(chunk)) == (payload, type(payload))
    assert (claim.payload, type(claim.payload)) == (payload, type(payload))


hostile = st.text(st.sampled_from([*":_*?[]\\{}%^-/ aé", "\x00"]), min_size=1, max_size=6)


@settings(max_examples=examples(20, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tenant=hostile, service=hostile, entity=hostile, action=hostile)
async def test_hostile_names_reach_nobody_else(tenant: str, service: str, entity: str, action: str):
    canary = RedisBatch("canary")
    await canary.trim(*QUEUE, 1, 0)
    await canary.enqueue(*QUEUE, "alive")
    batch = RedisBatch(tenant)

    await batch.enqueue(service, entity, action, 1)
    pending = await RedisBatch.get_pending_tenants(service)
    claims = await batch.claim(service, entity, action, count=10)
    await batch.ack(claims)
    await batch.trim(service, entity, action, 1, 0)
    gone = await RedisBatch.remove_from_pending(service, tenant)

    assert [each.payload for each in claims] == [1]
    assert tenant in pending
    assert gone
    assert await canary.get_chunk(*QUEUE, 0, -1) == ["alive"]


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "1", 100_001])
async def test_an_unusable_count_is_refused(batch: RedisBatch, count: Any):
    with pytest.raises(RecordValueError, match="count"):
        await batch.claim(*QUEUE, count=count)


@pytest.mark.parametrize("visibility", [0, -1, math.nan, math.inf, True, "1"])
async def test_an_unusable_visibility_is_refused(batch: RedisBatch, visibility: Any):
    await fill(batch, 1)

    with pytest.raises(RecordValueError, match="visibility"):
        await batch.claim(*QUEUE, visibility=visibility)
    assert await batch.get_length(*QUEUE) == 1


@pytest.mark.parametrize("position", [None, "0", 1.5, True, 2**63])
async def test_an_unusable_position_is_refused(batch: RedisBatch, position: Any):
    for call in (batch.get_chunk, batch.trim):
        with pytest.raises(RecordValueError, match="start"):
            await call(*QUEUE, position, 1)
        with pytest.raises(RecordValueError, match="end"):
            await call(*QUEUE, 0, position)


@pytest.mark.parametrize("wrong", ["", None, 1, "\ud800"])
async def test_an_unusable_name_is_refused(batch: RedisBatch, wrong: Any, client: RedisClient):
    for place, name in enumerate(["service", "entity_key", "action"]):
        service, entity_key, action = (wrong if each == place else QUEUE[each] for each in range(3))
        with pytest.raises(RecordValueError, match=name):
            await batch.enqueue(service, entity_key, action, 1)
    with pytest.raises(RecordValueError, match="tenant"):
        RedisBatch(wrong)
    with pytest.raises(RecordValueError, match="tenant"):
        await RedisBatch.remove_from_pending("s", wrong)
    assert await client.execute("DBSIZE") == 0


async def test_a_payload_that_cannot_be_written_is_refused(batch: RedisBatch, client: RedisClient):
    with pytest.raises(RecordValueError):
        await batch.enqueue(*QUEUE, object())
    assert await client.execute("DBSIZE") == 0
