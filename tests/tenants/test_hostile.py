"""Whatever stands in Redis under the keys of a tenant: an error of ours that names the key, and runners go on."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core.errors import AgentServiceError, RedisCommandError, UndecodableError
from agent_service.infrastructure.redis import ops
from agent_service.infrastructure.redis.source import get_record_redis
from agent_service.tenants import (
    RedisBatch,
    RedisGeneric,
    RedisSharedState,
    RedisStateHandler,
    RedisTable,
    RedisTrigger,
    RedisUser,
    Trigger,
    TriggerRunner,
    on_trigger,
)
from agent_service.tenants import runner as runner_module
from agent_service.tenants.keys import KeyFactory
from tests.support.depth import examples

T = "hostile"
KEYS = KeyFactory()
TAG = [("scope", "trigger")]


def user() -> RedisUser:
    return RedisUser(T, "u", indexes=("email",))


READERS: dict[str, tuple[bytes, Callable[[], Awaitable[Any]]]] = {
    "user": (KEYS.user(T, "u"), lambda: user().get()),
    "user's field": (KEYS.user(T, "u"), lambda: user().get_field("f")),
    "user by field": (KEYS.user(T, "u"), lambda: user().find_by_field("n", 5)),
    "user's increment": (KEYS.user(T, "u"), lambda: user().increment_field("f")),
    "user's list": (KEYS.user(T, "u"), lambda: user().append_to_list("f", 1)),
    "user's comparison": (KEYS.user(T, "u"), lambda: user().compare_and_set("f", 1, 2)),
    "state": (KEYS.state(T, "u", "s"), lambda: RedisStateHandler(T, "u").get("s")),
    "row": (KEYS.table_row(T, "t", "p"), lambda: RedisTable(T).get("t", "p")),
    "shared state": (KEYS.shared_state(T, "u", "s"), lambda: RedisSharedState(T, "u").get("s")),
}
JSON = st.binary(max_size=60) | st.sampled_from(
    [
        *(
            b"",
            b"[",
            b'"\xff"',
            b'{"$set":[[]]}',
            b'{"$nope":1}',
            b"1e999",
            b"[" * 2000,
            b'{"$fraction":"1e999999999"}',
        ),
        json.dumps({"$set": [{"$int": f"{n * (2**61 - 1):x}"} for n in range(3000)]}).encode(),
    ]
)


async def client() -> Any:
    return (await get_record_redis()).client


async def failure_of(work: Awaitable[Any]) -> AgentServiceError | None:
    """Await, and return the error of ours that was raised."""
    try:
        await work
    except AgentServiceError as exc:
        return exc
    return None


@pytest.mark.parametrize("reader", READERS)
@given(name=st.just(b"f") | st.binary(min_size=1, max_size=5), value=JSON)
@settings(max_examples=examples(8, 25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_field_that_nobody_wrote_raises_an_error_of_ours_with_the_key(
    url: str, reader: str, name: bytes, value: bytes
):
    key, read = READERS[reader]
    redis = await client()
    await redis.unlink([key])
    await redis.execute("HSET", key, b"f", value, name, value)
    await redis.execute("PEXPIRE", key, 60_000)
    failure = await failure_of(read())
    if isinstance(failure, UndecodableError):
        assert repr(key)[1:-1] in str(failure) or reader in {"user by field", "user's comparison"}
        assert failure.__cause__ is not None
    await redis.unlink([key])


@pytest.mark.parametrize("reader", READERS)
async def test_another_type_of_value_raises_an_error_that_names_the_key(url: str, reader: str):
    key, read = READERS[reader]
    await (await client()).execute("SET", key, b"x", "PX", 60_000)

    with pytest.raises(RedisCommandError) as caught:
        await read()
    assert repr(key) in str(caught.value)
    assert caught.value.__cause__ is not None


async def test_values_items_and_names_that_nobody_wrote_raise_errors_that_name_where_they_stand(url: str):
    redis = await client()
    generic = KEYS.generic(T, "g")
    await redis.execute("SET", generic, b'{"$nope":1}', "PX", 60_000)
    with pytest.raises(UndecodableError, match=r"hostile:g\}:generic"):
        await RedisGeneric(T).get("g")

    for listing, read in (
        (KEYS.shared_states(T, "u"), lambda: RedisSharedState(T, "u").list_states()),
        (KEYS.shared_states(T, "u"), lambda: RedisSharedState(T, "u").clear_all_states()),
        (KEYS.row_tables(T, "p"), lambda: RedisTable(T).delete_all_by_pkid("p")),
    ):
        for member in (b"\xff", b"%ff", b""):
            await redis.unlink([listing])
            await redis.execute("ZADD", listing, 9e15, member)
            await redis.execute("PEXPIRE", listing, 60_000)
            failure = await failure_of(read())
            assert failure is None or repr(listing)[1:-1] in str(failure)
    pending = KEYS.key("batch_pending", [("service", "s")])
    await redis.execute("SADD", pending, b"\xff")
    with pytest.raises(UndecodableError, match="batch_pending"):
        await RedisBatch.get_pending_tenants("s")
    await redis.unlink([pending])


async def test_an_item_that_nobody_wrote_does_not_keep_the_others_from_being_claimed(url: str):
    batch = RedisBatch(T)
    for number in (1, 2):
        await batch.enqueue("s", "e", "a", number)
    redis = await client()
    items = KEYS.key("batch", [("service", "s")], ("tenant", T), ("entity_key", "e"), ("action", "a"))
    await redis.execute("LPUSH", items, b"\xff{")

    with pytest.raises(UndecodableError, match="'e'"):
        await batch.get_chunk("s", "e", "a", 0, -1)
    claims = await batch.claim("s", "e", "a", count=2, visibility=60)
    assert [each.payload for each in claims] == [1]
    await batch.ack(claims)
    claims = await batch.claim("s", "e", "a", count=2)
    assert [each.payload for each in claims] == [2]
    await batch.ack(claims)
    await redis.execute("LPUSH", items, b"\xff{")
    with pytest.raises(UndecodableError, match=T):
        await batch.claim("s", "e", "a")
    await redis.unlink([items, KEYS.key("batch_claims", [("service", "s")], *REST)])
    assert await batch.get_length("s", "e", "a") == 0
    assert await RedisBatch.remove_from_pending("s", T)


REST = [("tenant", T), ("entity_key", "e"), ("action", "a")]
STATES = [
    b"",
    b"x",
    b"1 2",
    b"1 2 3 4",
    b"nan 0 -",
    b"9" * 400 + b" 0 -",
    b"5 " + b"9" * 400 + b" -",
    b"-5 0 -",
    b"\xff \xff \xff",
]


async def test_a_runner_goes_on_with_the_next_trigger_whatever_stands_in_the_schedule(url: str):
    handled: asyncio.Queue[str] = asyncio.Queue()

    @on_trigger("hostile-action")
    async def handle(trigger: Trigger) -> None:
        handled.put_nowait(f"{trigger.tenant} {trigger.identifier}")

    redis = await client()
    triggers = RedisTrigger(T)
    await triggers.set("hostile-action", "later", 3600)
    place = [("tenant", T), ("action", "hostile-action")]
    schedule, state, dead = [KEYS.key(f"trigger_{kind}", TAG, *place) for kind in ("schedule", "state", "dead")]
    for number, each in enumerate(STATES):
        await redis.execute("ZADD", schedule, 1, b"state%d" % number)
        await redis.execute("HSET", state, b"state%d" % number, each)
    await redis.execute("ZADD", schedule, 1, b"\xff", 1, b"no state")
    await redis.execute("HSET", state, b"\xff", b"1 0 -")
    tenants = KEYS.key("trigger_tenants", TAG, ("action", "hostile-action"))
    await redis.execute("ZADD", tenants, 1, b"\xfe", 1, b"%ff", 1, T, 1, "wrong-type")
    await redis.execute("SADD", KEYS.key("trigger_actions", TAG), b"\xff")
    other = [("tenant", "wrong-type"), ("action", "hostile-action")]
    await redis.execute("SET", KEYS.key("trigger_schedule", TAG, *other), b"x")
    await triggers.set("hostile-action", "good", 0.001)
    await RedisTrigger("another").set("hostile-action", "good", 0.001)
    runner = TriggerRunner(poll_interval=0.02)
    await runner.start()

    async with asyncio.timeout(30):
        assert {await handled.get(), await handled.get()} == {f"{T} good", "another good"}
        while int(await redis.execute("HLEN", dead)) < len(STATES) + 2:
            await asyncio.sleep(0.02)
    assert {each.identifier for each in await triggers.dead()} >= {"\\xff", "no state", "state0"}
    await runner.stop()
    await redis.execute("HSET", state, b"odd", b"odd")
    with pytest.raises(UndecodableError, match=r"odd.*trigger_state"):
        await triggers.pending()
    await redis.execute("HSET", dead, b"odd", b"odd")
    with pytest.raises(UndecodableError, match=r"odd.*trigger_dead"):
        await triggers.dead()
    await ops.delete(*[key.decode() for key in await redis.execute("KEYS", "*trigger*")])


async def test_tenants_whose_triggers_cannot_be_claimed_are_said_once_and_not_all_remembered(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(runner_module, "_MOST_SAID", 3)

    @on_trigger("unclaimable-action")
    async def handle(trigger: Trigger) -> None: ...

    redis = await client()
    for number in range(6):
        await RedisTrigger(f"{T}{number}").set("unclaimable-action", "i", 0.001)
        place = [("tenant", f"{T}{number}"), ("action", "unclaimable-action")]
        await redis.execute("DEL", KEYS.key("trigger_state", TAG, *place))
        await redis.execute("SET", KEYS.key("trigger_state", TAG, *place), b"x")
    runner = TriggerRunner()
    await asyncio.sleep(0.01)
    for _ in range(3):
        await runner._claim_what_is_due()
    assert len(runner._unclaimable) == 3
    assert len([each for each in caplog.records if "cannot be claimed" in each.message]) == 3
    await runner._stop_wake_ups()
    await ops.delete(*[key.decode() for key in await redis.execute("KEYS", "*trigger*")])
