"""What all repositories of records promise alike."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel

from agent_service.core.errors import RecordValueError, RedisUnavailableError, UndecodableError
from agent_service.core.settings import reset_settings
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.infrastructure.redis.factory import close_redis
from agent_service.infrastructure.redis.manager import RedisManager
from agent_service.infrastructure.redis.source import set_redis_source
from agent_service.tenants import RedisGeneric, RedisSharedState, RedisStateHandler, RedisTable, RedisUser, TenantCache
from tests.servers.redis import RedisServer
from tests.support.depth import examples
from tests.tenants.rooms import ROOMS, Room
from tests.tenants.values import RECORDS, VALUES

on_a_server = settings(
    max_examples=examples(8, 30),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Profile(BaseModel):
    name: str
    active: bool
    flags: list[bool] = []


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest) -> Room:
    return ROOMS[request.param]("acme", "ann", "main")


@on_a_server
@given(data=RECORDS, more=RECORDS)
async def test_any_record_comes_back_as_it_went_in(room: Room, data: dict[str, Any], more: dict[str, Any]):
    await room.put(data)
    assert same(await room.get(), data)

    await room.upsert(more)

    assert same(await room.get(), data | more)


@on_a_server
@given(value=VALUES, other=VALUES)
async def test_any_value_comes_back_through_every_way_in(room: Room, value: Any, other: Any):
    await room.put({"held": value})
    await room.update_field("field", value)
    await room.append_to_list("list", value)
    await room.append_to_list("list", other)
    if same(value, other):
        assert await room.compare_and_set("held", value, other)
    else:
        assert not await room.compare_and_set("held", other, None)
        assert await room.compare_and_set("held", value, other)

    assert same(await room.get(), {"held": other, "field": value, "list": [value, other]})
    assert same(await room.get_field("field"), value)


@on_a_server
@given(value=VALUES)
async def test_any_generic_value_comes_back_as_it_went_in(value: Any):
    generic = RedisGeneric("acme")

    assert await generic.set("key", value)

    assert same(await generic.get("key"), value)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in every type, the order of members aside."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)


async def test_what_is_missing_is_none_and_no_error(room: Room):
    assert await room.get() is None
    assert await room.get_field("x") is None
    assert not await room.exists()
    assert await room.delete() == 0
    assert not await room.delete_field("x")
    assert not await room.renew_ttl()
    assert await room.get_ttl() is None


async def test_numbers_count_and_lists_grow(room: Room):
    await room.put({"score": 100, "tags": ["new"]})

    assert await room.increment_field("score", 10) == 110
    assert await room.increment_field("logins") == 1
    assert await room.append_to_list("tags", "premium")

    assert await room.get() == {"score": 110, "logins": 1, "tags": ["new", "premium"]}


async def test_a_record_without_fields_exists_until_it_is_deleted(room: Room):
    await room.put({"a": 1})
    assert await room.delete_field("a")

    assert await room.get() == {}
    assert await room.exists()
    assert await room.delete() == 1
    assert not await room.exists()


async def test_writes_renew_the_default_time_to_live_or_the_one_given(room: Room):
    default = room.repository.ttl_default
    await room.update_field("a", 1)
    assert default - 1 < await room.get_ttl() <= default

    for write in (
        room.upsert({"b": 1}, ttl=100),
        room.update_field("b", 1, ttl=timedelta(seconds=100)),
        room.increment_field("a", ttl=100),
        room.append_to_list("c", 1, ttl=100.0),
        room.compare_and_set("b", 1, 2, ttl=100),
        room.delete_field("b", ttl=100),
        room.renew_ttl(100),
    ):
        await write
        assert 99 < await room.get_ttl() <= 100
        await room.renew_ttl()

    assert default - 1 < await room.get_ttl() <= default


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "60", timedelta(0)])
async def test_a_time_to_live_that_cannot_be_used_is_refused(room: Room, ttl: Any):
    for write in (
        room.upsert({"a": 1}, ttl=ttl),
        room.update_field("a", 1, ttl=ttl),
        room.increment_field("a", ttl=ttl),
        room.append_to_list("a", 1, ttl=ttl),
    ):
        with pytest.raises(ValueError, match="ttl must be"):
            await write

    assert not await room.exists()


async def test_models_go_in_and_come_out_by_field(room: Room):
    profile = Profile(name="Ann", active=True, flags=[True, False])
    await room.update_field("profile", profile)
    await room.upsert({"old": profile, "nothing": None, "at": datetime(2026, 1, 2, tzinfo=UTC)})
    await room.append_to_list("all", profile)

    data = await room.get(models={"profile": Profile, "nothing": Profile, "missing": Profile})

    assert data["profile"] == profile
    assert data["old"] == {"name": "Ann", "active": "1", "flags": ["1", "0"]}
    assert data["all"] == [data["old"]]
    assert (data["nothing"], data["at"]) == (None, datetime(2026, 1, 2, tzinfo=UTC))
    assert await room.compare_and_set("profile", profile, None)


async def test_a_field_that_does_not_fit_its_model_is_named(room: Room):
    await room.update_field("profile", {"name": "Ann"})

    with pytest.raises(UndecodableError, match="field 'profile': stored data does not make a Profile: active: missing"):
        await room.get(models={"profile": Profile})


@pytest.mark.parametrize(
    "make",
    [
        lambda text: TenantCache(text),
        lambda text: RedisUser(text, "u"),
        lambda text: RedisUser("t", text),
        lambda text: RedisStateHandler("t", text),
        lambda text: RedisSharedState(text, "u"),
        lambda text: RedisTable(text),
        lambda text: RedisGeneric(text),
        lambda text: RedisUser("t", "u", indexes=(text,)),
    ],
)
@pytest.mark.parametrize("text", ["", None, 7])
def test_a_tenant_or_id_that_is_no_text_is_refused_at_once(make: Callable[[Any], TenantCache], text: Any):
    with pytest.raises(RecordValueError, match=r"is empty|must be a str"):
        make(text)


async def test_an_empty_name_is_refused_by_every_method():
    states, tables, generic = RedisSharedState("t", "u"), RedisTable("t"), RedisGeneric("t")

    for call in (
        *(states.get(""), states.set("", {}), states.delete(""), RedisStateHandler("t", "u").upsert("", {})),
        *(tables.get("", "pk"), tables.set("table", "", {}), tables.delete_all_by_pkid(""), tables.delete("", "pk")),
        *(tables.find_by_field("", "a", 1), generic.get(""), generic.set("", 1), generic.delete("")),
    ):
        with pytest.raises(ValueError, match="is empty"):
            await call


async def test_without_redis_every_call_says_so(room: Room, monkeypatch: pytest.MonkeyPatch):
    await close_redis()
    monkeypatch.delenv("REDIS_URL")
    reset_settings()

    for call in (room.get(), room.upsert({}), room.delete()):
        with pytest.raises(RedisUnavailableError, match="REDIS_URL is not set"):
            await call


async def test_an_outage_is_raised_and_never_looks_like_missing_data(room: Room, own_redis: RedisServer):
    manager = RedisManager(own_redis.url)
    set_redis_source(lambda: manager)
    try:
        await room.upsert({"a": 1})
        own_redis.kill()
        for call in (room.get(), room.exists(), room.upsert({}), room.increment_field("a"), room.delete()):
            with pytest.raises(RedisUnavailableError):
                await call
        own_redis.restart()
        assert await room.increment_field("a") == 1
    finally:
        set_redis_source(None)
        await manager.aclose()


async def test_a_source_of_redis_comes_before_the_settings(room: Room, url: str, client: RedisClient):
    manager = RedisManager(url, prefix="other root")
    set_redis_source(lambda: manager)
    try:
        await room.upsert({"a": 1})
        set_redis_source(lambda: None)
        assert await room.get() is None
    finally:
        set_redis_source(None)

    keys = await client.execute("KEYS", "*")
    assert keys
    assert all(key.startswith(b"other%20root%tenant:") for key in keys)
    await client.unlink(keys)
    await manager.aclose()


async def test_a_repository_is_shared_by_many_tasks(room: Room):
    await asyncio.gather(*(room.increment_field("n") for _ in range(100)), *(room.get() for _ in range(100)))

    assert await room.get_field("n") == 100
