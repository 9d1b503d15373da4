"""A row is gone when what it asked for has reached the shared cache, and not before."""

import asyncio
import json
import logging

import pytest
from sqlalchemy import select, text, update

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.errors import DatabaseError
from agent_service.core.identifiers import uuid7
from agent_service.infrastructure.cache.factory import get_cache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.database.models.outbox import OutboxRow
from agent_service.infrastructure.database.outbox import take_rows
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in, outbox_metrics
from agent_service.infrastructure.outbox.batch import MAX_PASSES, OutboxBatch
from agent_service.infrastructure.outbox.counters import counters
from agent_service.infrastructure.outbox.drain import BATCH
from agent_service.infrastructure.outbox.invalidation import MAX_PATTERNS, Invalidation
from agent_service.infrastructure.redis.factory import get_redis_manager
from tests.servers.proxy import TcpProxy
from tests.servers.redis import RedisServer
from tests.support.outbox import NAMESPACE, configure, rows
from tests.support.waiting import until

GOLDEN = '{"namespace":"users","keys":["ada","nul\\u0000"],"patterns":["user:*"]}'
"""As the first version wrote it."""


async def put(*bodies: str, format_: int = 1) -> None:
    """Store rows that this version might not have written."""
    async with get_session() as db:
        now = SYSTEM_CLOCK.now()
        db.add_all([OutboxRow(id=uuid7(), format=format_, body=body, created_at=now) for body in bodies])


async def ask(*keys: str) -> None:
    """Commit one row for each key."""
    async with get_session() as db:
        for key in keys:
            invalidate_in(db, keys=[key], namespace=NAMESPACE)


async def test_rows_of_the_first_version_are_understood(house: TcpProxy, others: RedisCache[object]):
    await others.set_many({"ada": 1, "nul\x00": 2, "user:1": 3, "other": 4})
    await put(GOLDEN)

    assert await drain_outbox() == 1
    assert await others.get_many(["ada", "nul\x00", "user:1", "other"]) == {"other": 4}


async def test_more_rows_than_a_batch_are_drained_in_one_pass(house: TcpProxy, others: RedisCache[object]):
    keys = [f"k{n}" for n in range(2 * BATCH + 10)]
    await others.set_many(dict.fromkeys(keys, 1))
    await ask(*keys)

    assert await drain_outbox() == len(keys)
    assert await rows() == 0
    assert await others.get_many(keys) == {}


async def test_all_patterns_of_a_namespace_are_done_in_one_pass_in_a_batch(
    house: TcpProxy, redis_server: RedisServer, others: RedisCache[object]
):
    def scans() -> int:
        (line,) = (each for each in redis_server.cli("INFO", "commandstats").splitlines() if b"cmdstat_scan:" in each)
        return int(line.partition(b"calls=")[2].split(b",")[0])

    assert [key async for key in others.scan()] == []
    async with get_session() as db:
        for n in range(BATCH + 50):
            invalidate_in(db, patterns=[f"a:{n}:*", "b:*"], namespace=NAMESPACE)
    before = scans()

    assert await drain_outbox() == BATCH + 50
    # Two batches, each of them one look at the leases and one at the entries.
    assert scans() - before == 2 * 2


def test_a_batch_ends_before_it_has_more_passes_over_the_keys_than_are_done_in_a_bounded_time():
    apart = [(uuid7(), Invalidation(f"n{n}", (), (), ("p*",)).to_json()) for n in range(25)]
    keys = [(uuid7(), Invalidation(f"n{n}", ("k",), (), ()).to_json()) for n in range(25)]
    together = Invalidation("n", ("k",), (), tuple(f"p{n}" for n in range(30)))
    one = [(uuid7(), Invalidation("n", (), (), (f"p{n}*",)).to_json()) for n in range(120)]

    assert len(OutboxBatch(apart)) == MAX_PASSES
    assert len(OutboxBatch([*keys, *apart[:MAX_PASSES], *keys])) == 50 + MAX_PASSES
    assert len(OutboxBatch(one)) == 120
    assert [len(part.patterns) for part in together.parts()] == [MAX_PATTERNS] * 3
    assert len(OutboxBatch([])) == 0


async def test_what_cannot_reach_redis_stays_and_nothing_is_raised(house: TcpProxy, others: RedisCache[object]):
    await others.set_many({"ada": "old", "grace": "old"})
    await ask("ada", "grace")
    house.stall()

    assert await drain_outbox() == 0
    assert await rows() == 2
    house.resume()

    async def drained() -> bool:
        return await drain_outbox() == 2

    await until(drained)
    assert await others.get_many(["ada", "grace"]) == {}


async def test_a_row_that_nobody_can_read_is_set_aside_once_and_blocks_nothing(
    house: TcpProxy, others: RedisCache[object], caplog: pytest.LogCaptureFixture
):
    bad = ["", "[]", "7", "null", "{}", "{not json", '{"namespace":7}', '{"namespace":"n","keys":"secret"}']
    bad += ['{"namespace":"n","new":["secret"]}', '{"namespace":"n","keys":[""]}', "[" * 100_000]
    await others.set_many({"first": 1, "last": 2})
    await ask("first")
    await put(*bad)
    await ask("last")
    before = counters.unreadable

    assert await drain_outbox() == 2
    assert await drain_outbox() == 0
    assert await others.get_many(["first", "last"]) == {}
    assert counters.unreadable - before == len(bad)
    complaints = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(complaints) == len(bad)
    assert "secret" not in caplog.text
    async with get_session() as db:
        kept = (await db.scalars(select(OutboxRow).order_by(OutboxRow.id))).all()
        assert [each.body for each in kept] == bad
        assert all(each.failed_at is not None for each in kept)


async def test_a_row_that_was_repaired_is_drained(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", 1)
    await put("{")
    await drain_outbox()
    async with get_session() as db:
        body = json.dumps({"namespace": NAMESPACE, "keys": ["ada"]})
        await db.execute(update(OutboxRow).values(body=body, failed_at=None))

    assert await drain_outbox() == 1
    assert await others.lookup("ada") is MISS


async def test_a_row_of_a_later_version_waits_for_a_process_that_knows_it(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", 1)
    await put('{"later":"format"}', format_=2)
    await ask("ada")

    assert await drain_outbox() == 1
    async with get_session() as db:
        (waiting,) = (await db.scalars(select(OutboxRow))).all()
        assert (waiting.format, waiting.failed_at) == (2, None)


async def test_drains_at_once_apply_every_row_exactly_once_in_their_counts(house: TcpProxy, others: RedisCache[object]):
    keys = [f"k{n}" for n in range(500)]
    await others.set_many(dict.fromkeys(keys, 1))
    await ask(*keys)

    assert sum(await asyncio.gather(*(drain_outbox() for _ in range(5)))) == 500
    assert await rows() == 0
    assert await others.get_many(keys) == {}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_on_postgresql_a_row_belongs_to_one_process_at_a_time(house: TcpProxy):
    await ask("first", "second", "third")
    async with get_session() as one, get_session() as other:
        taken, left = await take_rows(one, 2), await take_rows(other, 3)

    assert [Invalidation.from_json(body).keys for _, body in taken] == [("first",), ("second",)]
    assert [Invalidation.from_json(body).keys for _, body in left] == [("third",)]


async def test_a_database_that_fails_is_an_error_and_the_row_stays(house: TcpProxy, others: RedisCache[object]):
    await ask("ada")
    async with get_session() as db:
        await db.execute(text("ALTER TABLE agent_service_cache_outbox RENAME body TO elsewhere"))

    with pytest.raises(DatabaseError, match="db upgrade"):
        await drain_outbox()
    async with get_session() as db:
        await db.execute(text("ALTER TABLE agent_service_cache_outbox RENAME elsewhere TO body"))
    assert await drain_outbox() == 1


async def test_what_was_drained_is_among_the_metrics(house: TcpProxy):
    await drain_outbox()
    before = (await get_redis_manager()).get_metrics()["outbox_applied"]
    await ask("ada", "grace")
    await drain_outbox()

    assert (await get_redis_manager()).get_metrics()["outbox_applied"] == before + 2


async def test_what_a_pass_leaves_is_counted_until_it_is_drained(house: TcpProxy):
    await drain_outbox()
    nothing = outbox_metrics()
    house.stall()
    await ask("ada", "grace")
    await drain_outbox()
    left = outbox_metrics()
    house.resume()
    await until_drained_again()
    afterwards = outbox_metrics()

    assert (nothing["pending"], nothing["oldest_age"]) == (0, 0.0)
    assert left["pending"] == 2
    assert 0 < left["oldest_age"] < 3600
    assert (afterwards["pending"], afterwards["oldest_age"]) == (0, 0.0)


async def until_drained_again() -> None:
    async def drained() -> bool:
        await drain_outbox()
        return bool(outbox_metrics()["pending"] == 0)

    await until(drained)


async def test_without_redis_the_memory_of_this_process_is_invalidated(
    database_url: str, house: TcpProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("REDIS_URL")
    configure(monkeypatch)
    cache = await get_cache(NAMESPACE)
    await cache.set_many({"ada": 1, "grace": 2})
    await ask("ada")

    assert await drain_outbox() == 1
    assert await cache.get_many(["ada", "grace"]) == {"grace": 2}
