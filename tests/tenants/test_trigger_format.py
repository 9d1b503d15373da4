"""Golden bytes: what a released version wrote, every later one reads."""

from datetime import UTC, datetime

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants import DeadTrigger, RedisBatch, RedisTrigger, Trigger
from agent_service.tenants.base import current_redis
from agent_service.tenants.schedule import TriggerSchedule

AT = 1_700_000_000_123
"""Milliseconds since 1970: 14 November 2023."""
MOMENT = datetime.fromtimestamp(AT / 1000, UTC)


async def test_triggers_of_version_1_are_read_claimed_and_done(client: RedisClient):
    triggers = "agent_service%tenant:{trigger}:trigger_"
    await client.pipeline(
        [
            ("ZADD", f"{triggers}schedule:acme:send%20it", AT, "user 1"),
            ("HSET", f"{triggers}state:acme:send%20it", "user 1", f"{AT} 2 -"),
            ("HSET", f"{triggers}dead:acme:send%20it", "user 2", f"{AT} 5 {AT} LookupError: no such user"),
            ("ZADD", f"{triggers}tenants:send%20it", AT, "acme"),
            ("SADD", f"{triggers}actions", "send%20it"),
            ("SADD", f"{triggers}own_actions:acme", "send%20it"),
        ]
    )
    schedule = TriggerSchedule(*await current_redis())

    assert await RedisTrigger("acme").late() == [Trigger("acme", "send it", "user 1", MOMENT, 2)]
    assert await RedisTrigger("acme").dead() == [
        DeadTrigger("acme", "send it", "user 2", MOMENT, 5, MOMENT, "LookupError: no such user")
    ]
    assert (await schedule.due(await schedule.actions()))[0] == [("send it", "acme")]
    (claim,), _ = await schedule.claim("acme", "send it", limit=5, lease=30, max_attempts=5)
    assert await schedule.done(claim)
    assert await RedisTrigger("acme").delete("send it", "user 2") == 1
    assert await client.execute("DBSIZE") == 0


async def test_batches_of_version_1_are_read_claimed_and_acknowledged(client: RedisClient):
    batches = "agent_service%tenant:{mail}:batch"
    await client.pipeline(
        [
            ("RPUSH", f"{batches}:acme:daily:send", '{"n":1}'),
            ("ZADD", f"{batches}_claims:acme:daily:send", AT, "0123456789abcdef0123456700000001" + '{"n":0}'),
            ("SADD", f"{batches}_queues:acme", "daily:send"),
            ("SADD", f"{batches}_pending", "acme"),
        ]
    )
    batch = RedisBatch("acme")

    assert await RedisBatch.get_pending_tenants("mail") == {"acme"}
    assert await batch.get_chunk("mail", "daily", "send", 0, -1) == [{"n": 0}, {"n": 1}]
    assert await batch.ack(await batch.claim("mail", "daily", "send", count=2)) == 2
    assert await RedisBatch.remove_from_pending("mail", "acme")
    assert await client.execute("DBSIZE") == 0
