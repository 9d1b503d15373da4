"""An invalidation is part of the transaction it was asked for in."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from agent_service.core.errors import CacheKeyError, DatabaseError, SessionValueError
from agent_service.infrastructure.cache.factory import get_cache
from agent_service.infrastructure.cache.interface import MISS
from agent_service.infrastructure.cache.redis.cache import RedisCache
from agent_service.infrastructure.database.connection import get_session
from agent_service.infrastructure.database.models.outbox import OutboxRow
from agent_service.infrastructure.database.models.session import Session
from agent_service.infrastructure.database.repositories import SessionRepository
from agent_service.infrastructure.outbox import drain_outbox, invalidate_in
from agent_service.infrastructure.outbox.bells import hung_bell, ring
from tests.servers.proxy import TcpProxy
from tests.support.outbox import NAMESPACE, rows
from tests.support.waiting import until


async def test_a_write_and_its_invalidation_commit_together(house: TcpProxy, others: RedisCache[object]):
    await others.set_many({"ada": "old", "grace": "stays"})
    async with get_session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        invalidate_in(db, keys=["ada"], namespace=NAMESPACE)
        await db.flush()
        async with get_session() as elsewhere:
            seen_before_the_commit = await elsewhere.scalar(select(func.count()).select_from(OutboxRow))

    applied = await drain_outbox()

    assert (seen_before_the_commit, applied, await rows()) == (0, 1, 0)
    assert await others.lookup("ada") is MISS
    assert await others.get("grace") == "stays"


async def test_a_rollback_takes_the_invalidation_along(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", "still true")
    async with get_session() as db:
        await SessionRepository(db).create(Session(user_id="ada"))
        invalidate_in(db, keys=["ada"], namespace=NAMESPACE)
        await db.flush()
        await db.rollback()

    assert await drain_outbox() == 0
    assert await others.get("ada") == "still true"
    async with get_session() as db:
        assert await SessionRepository(db).get_user_sessions("ada") == []


async def test_a_rollback_to_a_savepoint_takes_along_what_was_asked_since(house: TcpProxy, others: RedisCache[object]):
    await others.set_many({"kept": 1, "undone": 2})
    async with get_session() as db:
        invalidate_in(db, keys=["kept"], namespace=NAMESPACE)
        async with db.begin_nested() as savepoint:
            invalidate_in(db, keys=["undone"], namespace=NAMESPACE)
            await db.flush()
            await savepoint.rollback()

    assert await drain_outbox() == 1
    assert await others.get_many(["kept", "undone"]) == {"undone": 2}


async def test_keys_patterns_and_namespaces_are_invalidated_as_the_cache_itself_would(
    house: TcpProxy, others: RedisCache[object]
):
    odd = "nul\x00 and \N{SNOWMAN} and *"
    default = await get_cache()
    await others.set_many({"user:1": 1, "user:2": 2, odd: 3, "other": 4})
    await default.set_many({"user:1": 1, "other": 2})
    async with get_session() as db:
        invalidate_in(db, keys=iter([odd, odd]), patterns=("user:*",), namespace=NAMESPACE)
        invalidate_in(db, keys={"other"})

    await drain_outbox()

    assert await others.get_many(["user:1", "user:2", odd, "other"]) == {"other": 4}
    assert await default.get_many(["user:1", "other"]) == {"user:1": 1}


async def test_a_synchronous_session_has_the_same_right(house: TcpProxy, others: RedisCache[object]):
    await others.set("ada", "old")
    async with get_session() as db:
        await db.run_sync(lambda session: invalidate_in(session, keys=["ada"], namespace=NAMESPACE))

    assert await drain_outbox() == 1
    assert await others.lookup("ada") is MISS


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"keys": "user:7"}, r"keys must be several keys, got str: 'user:7'; put it in a list"),
        ({"patterns": b"user:*"}, "patterns must be several patterns, got bytes"),
        ({"tags": 7}, "tags must be several tags, got int"),
        ({"keys": ["fine", 7]}, r"keys\[1\] must be a str, not int"),
        ({"keys": [""]}, r"keys\[0\] is empty"),
        ({"patterns": ["x" * 8193]}, r"patterns\[0\] has 8193 bytes"),
        ({"tags": ["\ud800"]}, r"tags\[0\] holds a lone surrogate"),
        ({"keys": ["fine"], "namespace": 7}, "namespace must be a str"),
    ],
)
async def test_what_a_cache_could_not_use_is_refused_before_anything_is_added(
    house: TcpProxy, given: dict[str, Any], complaint: str
):
    async with get_session() as db:
        with pytest.raises(CacheKeyError, match=complaint):
            invalidate_in(db, **given)
        assert not db.new


async def test_nothing_given_adds_nothing(house: TcpProxy):
    async with get_session() as db:
        invalidate_in(db, keys=[], tags=(), patterns=iter(()))
        assert not db.new


async def test_what_is_no_session_is_refused():
    with pytest.raises(SessionValueError, match="db_session must be an AsyncSession or a Session, not dict"):
        invalidate_in({}, keys=["a"])  # type: ignore[arg-type]


async def test_a_read_only_session_refuses_it(house: TcpProxy):
    with pytest.raises(DatabaseError, match="readonly=True"):
        async with get_session(readonly=True) as db:
            invalidate_in(db, keys=["a"])


async def test_many_names_become_rows_of_a_bounded_size(house: TcpProxy, others: RedisCache[object]):
    names = [f"k{n}" for n in range(1_201)]
    await others.set_many(dict.fromkeys(names, 1))
    async with get_session() as db:
        invalidate_in(db, keys=names, patterns=[f"p{n}:*" for n in range(21)], namespace=NAMESPACE)

    drained = 0

    async def all_drained() -> bool:  # on a busy machine Redis may seem away for a while
        nonlocal drained
        drained += await drain_outbox()
        return drained >= 3

    assert await rows() == 3
    await until(all_drained)
    assert drained == 3
    assert await others.get_many(names) == {}


async def test_only_the_outermost_commit_wakes_the_drain(house: TcpProxy):
    with hung_bell() as bell:
        async with get_session() as db:
            async with db.begin_nested():
                invalidate_in(db, keys=["a"])
            after_the_savepoint = await bell.wait(0.05)
            await db.commit()
            after_the_commit = await bell.wait(60)
            await SessionRepository(db).create(Session(user_id="ada"))
            await db.commit()
            after_another_commit = await bell.wait(0.05)

    assert (after_the_savepoint, after_the_commit, after_another_commit) == (False, True, False)


async def test_a_commit_on_another_thread_wakes_the_drain_too(house: TcpProxy):
    with hung_bell() as bell:
        await asyncio.to_thread(ring)

        assert await bell.wait(60)
