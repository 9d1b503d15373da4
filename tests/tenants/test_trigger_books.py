"""Whatever is done in whatever order, the books of triggers and batches agree with what is there."""

from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants import KeyFactory, RedisBatch, RedisTrigger
from agent_service.tenants.base import current_redis
from agent_service.tenants.batch import BatchClaim
from agent_service.tenants.schedule import TriggerClaim, TriggerSchedule
from tests.support.depth import examples

FEW = settings(
    max_examples=examples(20, 80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

tenants = st.sampled_from(["a", "b"])
actions = st.sampled_from(["x", "y"])
identifiers = st.sampled_from(["1", "2", "3"])
steps_on_triggers = st.lists(
    st.one_of(
        st.tuples(st.just("set"), tenants, actions, identifiers, st.sampled_from([0.001, 60])),
        st.tuples(st.just("delete"), tenants, actions, identifiers),
        st.tuples(st.just("delete all"), tenants, identifiers),
        st.tuples(st.just("claim"), tenants, actions, st.integers(1, 3), st.sampled_from([0.001, 30])),
        st.tuples(st.sampled_from(["done", "retry", "bury", "renew"]), st.integers(0, 5)),
    ),
    max_size=25,
)


@FEW
@given(steps=steps_on_triggers)
async def test_the_books_of_triggers_agree_after_any_steps(steps: list[Any]):
    client, keys = await current_redis()
    await client.execute("FLUSHDB")
    schedule = TriggerSchedule(client, keys)
    claims: list[TriggerClaim] = []
    for step in steps:
        await take(step, schedule, claims)

        await check_triggers(client, keys)


async def take(step: Any, schedule: TriggerSchedule, claims: list[TriggerClaim]) -> None:
    match step:
        case "set", tenant, action, identifier, seconds:
            await RedisTrigger(tenant).set(action, identifier, seconds)
        case "delete", tenant, action, identifier:
            await RedisTrigger(tenant).delete(action, identifier)
        case "delete all", tenant, identifier:
            await RedisTrigger(tenant).delete_all_by_identifier(identifier)
        case "claim", tenant, action, limit, lease:
            claims += (await schedule.claim(tenant, action, limit=limit, lease=lease, max_attempts=2))[0]
        case end, number if number < len(claims):
            claim = claims[number]
            ends: dict[str, Any] = {
                "done": lambda: schedule.done(claim),
                "retry": lambda: schedule.retry(claim, 0.001),
                "bury": lambda: schedule.bury(claim, "error"),
                "renew": lambda: schedule.renew(claim, 30),
            }
            await ends[end]()


async def check_triggers(client: RedisClient, keys: KeyFactory) -> None:
    found: dict[str, dict[tuple[str, ...], bytes]] = defaultdict(dict)
    async for page in client.scan(b"*"):
        for key in page:
            parts = keys.parse(key)
            assert parts is not None
            found[parts.kind][parts.rest] = key
    scheduled, dead = found["trigger_schedule"], found["trigger_dead"]

    assert scheduled.keys() == found["trigger_state"].keys()
    for queue, key in scheduled.items():
        assert set(await client.execute("ZRANGE", key, 0, -1)) == set(
            await client.execute("HKEYS", found["trigger_state"][queue])
        )
        earliest = (await client.execute("ZRANGE", key, 0, 0, "WITHSCORES"))[1]
        tenant, action = queue
        assert await client.execute("ZSCORE", found["trigger_tenants"][action,], tenant) == earliest
    for (action,), key in found["trigger_tenants"].items():
        assert {each.decode() for each in await client.execute("ZRANGE", key, 0, -1)} == {
            queue[0] for queue in scheduled if queue[1] == action
        }
    everywhere = await client.execute("SMEMBERS", found["trigger_actions"].get((), b"none"))
    assert {each.decode() for each in everywhere} == {queue[1] for queue in scheduled}
    for tenant in "a", "b":
        own = await client.execute("SMEMBERS", found["trigger_own_actions"].get((tenant,), b"none"))
        assert {each.decode() for each in own} == {queue[1] for queue in {*scheduled, *dead} if queue[0] == tenant}


steps_on_batches = st.lists(
    st.one_of(
        st.tuples(st.just("enqueue"), tenants, actions, st.integers()),
        st.tuples(st.just("claim"), tenants, actions, st.integers(1, 3)),
        st.tuples(st.just("ack"), st.integers(0, 5)),
        st.tuples(st.just("trim"), tenants, actions, st.integers(-3, 3), st.integers(-3, 3)),
        st.tuples(st.just("leave"), tenants),
    ),
    max_size=25,
)


class Model:
    """What batches do, in Python."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.claimed: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.pending: set[str] = set()

    def busy(self, tenant: str) -> bool:
        return any(items for of in (self.items, self.claimed) for queue, items in of.items() if queue[0] == tenant)

    def trim(self, queue: tuple[str, str], start: int, end: int) -> None:
        items = self.items[queue]
        first = max(start + len(items), 0) if start < 0 else start
        last = end + len(items) if end < 0 else end
        self.items[queue] = items[first : last + 1] if last >= first else []


@FEW
@given(steps=steps_on_batches)
async def test_batches_do_what_their_model_does(steps: list[Any]):
    await (await current_redis())[0].execute("FLUSHDB")
    model = Model()
    claims: list[tuple[tuple[str, str], BatchClaim]] = []
    for step in steps:
        await step_both(step, model, claims)

        assert await RedisBatch.get_pending_tenants("s") == model.pending
        for queue in [(tenant, action) for tenant in "ab" for action in "xy"]:
            assert await RedisBatch(queue[0]).get_chunk("s", "e", queue[1], 0, -1) == model.items[queue]
            assert await RedisBatch(queue[0]).get_length("s", "e", queue[1]) == len(model.items[queue])


async def step_both(step: Any, model: Model, claims: list[tuple[tuple[str, str], BatchClaim]]) -> None:
    match step:
        case "enqueue", tenant, action, number:
            await RedisBatch(tenant).enqueue("s", "e", action, number)
            model.items[tenant, action].append(number)
            model.pending.add(tenant)
        case "claim", tenant, action, count:
            queue = tenant, action
            taken = await RedisBatch(tenant).claim("s", "e", action, count=count)
            assert [each.payload for each in taken] == model.items[queue][:count]
            model.items[queue] = model.items[queue][count:]
            model.claimed[queue] += [each.id for each in taken]
            claims += [(queue, each) for each in taken]
        case "ack", number if number < len(claims):
            queue, claim = claims[number]
            held = claim.id in model.claimed[queue]
            assert await RedisBatch(queue[0]).ack([claim]) == held
            if held:
                model.claimed[queue].remove(claim.id)
        case "trim", tenant, action, start, end:
            before = len(model.items[tenant, action])
            model.trim((tenant, action), start, end)
            dropped = await RedisBatch(tenant).trim("s", "e", action, start, end)
            assert dropped == before - len(model.items[tenant, action])
        case "leave", tenant:
            assert await RedisBatch.remove_from_pending("s", tenant) is not model.busy(tenant)
            if not model.busy(tenant):
                model.pending.discard(tenant)
