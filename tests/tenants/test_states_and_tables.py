"""Shared states, handler states, tables and generic values: what each does beyond the others."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants import (
    RedisGeneric,
    RedisSharedState,
    RedisStateHandler,
    RedisTable,
    _current_ss,
    current_shared_state,
    shared_state_scope,
)
from agent_service.tenants import current as current_module


class Context(BaseModel):
    done: bool


async def test_states_are_listed_by_their_exact_names():
    states = RedisSharedState("acme", "ann")
    for name in ("tool_cache", "conversation", "form_progress", "a:b*", "é"):
        await states.set(name, {})
    await RedisSharedState("acme", "bob").set("other", {})

    assert await states.list_states() == ["a:b*", "conversation", "form_progress", "tool_cache", "é"]


async def test_any_write_lists_a_state_and_its_end_takes_it_out(client: RedisClient):
    states = RedisSharedState("acme", "ann")
    await asyncio.gather(
        states.upsert("a", {}),
        states.set_field("b", "x", 1),
        states.increment_field("c", "n"),
        states.append_to_list("d", "l", 1),
        states.compare_and_set("e", "x", None, 1),
        states.set("f", {}),
        states.set("g", {}),
    )
    assert await states.list_states() == list("abcdefg")

    await states.delete("f")
    await client.unlink([b"agent_service%tenant:{acme:ann}:shared_state:g"])

    assert await states.list_states() == list("abcde")


async def test_clearing_deletes_the_states_of_this_user_alone():
    ann, bob = RedisSharedState("acme", "ann"), RedisSharedState("acme", "bob")
    for states in (ann, bob, RedisSharedState("other", "ann")):
        await states.set("one", {})
        await states.set("two", {})

    assert await ann.clear_all_states() == 2
    assert await ann.clear_all_states() == 0

    assert await ann.list_states() == []
    assert await bob.list_states() == ["one", "two"]
    assert await RedisSharedState("other", "ann").list_states() == ["one", "two"]


async def test_set_replaces_a_state_whole():
    for room in (RedisSharedState("acme", "ann"), RedisStateHandler("acme", "ann")):
        await room.set("x", {"a": 1, "b": 2})
        await room.set("x", {"c": 3})

        assert await room.get("x") == {"c": 3}


async def test_upsert_of_a_handler_gives_the_merged_state_and_stores_nothing_else():
    handler = RedisStateHandler("acme", "ann")
    await handler.set("chat", {"step": 1, "data": {}})

    assert await handler.upsert("chat", {"step": 3}) == {"step": 3, "data": {}}
    assert await handler.upsert("new", {}) == {}
    assert await handler.upsert("chat", {"context": Context(done=True)}, models={"context": Context}) == {
        "step": 3,
        "data": {},
        "context": Context(done=True),
    }
    assert await handler.get("chat") == {"step": 3, "data": {}, "context": {"done": "1"}}


async def test_a_primary_key_is_deleted_from_all_tables_of_the_tenant():
    tables, others = RedisTable("acme"), RedisTable("other")
    for table in ("users", "orders", "a:b"):
        await tables.set(table, "pk", {"n": 1})
        await tables.set(table, "pk2", {"n": 2})
        await others.set(table, "pk", {"n": 3})
    await tables.increment_field("counters", "pk", "n")

    assert await tables.delete_all_by_pkid("pk") == 4
    assert await tables.delete_all_by_pkid("pk") == 0

    assert await tables.get("users", "pk") is None
    assert await tables.get("users", "pk2") == {"n": 2}
    assert await others.get("a:b", "pk") == {"n": 3}


async def test_a_row_is_found_by_a_field_of_its_table_alone():
    tables = RedisTable("acme")
    await tables.set("users", "1", {"name": "Bob", "context": Context(done=False)})
    await tables.set("other", "2", {"name": "Eve"})
    await RedisTable("else").set("users", "3", {"name": "Eve"})

    assert await tables.find_by_field("users", "name", "Bob", models={"context": Context}) == {
        "name": "Bob",
        "context": Context(done=False),
    }
    assert await tables.find_by_field("users", "name", "Eve") is None


async def test_generic_values_are_stored_read_and_deleted(client: RedisClient):
    generic = RedisGeneric("acme")
    assert await generic.get("key") is None
    assert not await generic.exists("key")

    assert await generic.set("key", None, ttl=100)
    assert await generic.exists("key")
    assert await generic.set("key", Context(done=True), ttl=100)

    assert await generic.get("key", Context) == Context(done=True)
    assert await generic.get("key") == {"done": "1"}
    assert 99_000 < await client.execute("PTTL", b"agent_service%tenant:{acme:key}:generic") <= 100_000
    assert await generic.delete("key") == 1
    assert await generic.delete("key") == 0


@pytest.mark.parametrize("value", [object(), {"x": {1: object()}}])
async def test_a_generic_value_that_cannot_be_written_is_refused(value: Any):
    with pytest.raises(ValueError, match="cannot be stored"):
        await RedisGeneric("acme").set("key", value)

    assert not await RedisGeneric("acme").exists("key")


async def test_the_current_shared_state_is_seen_by_child_tasks_and_ends_with_its_scope():
    with pytest.raises(LookupError):
        current_shared_state.get()

    async def child() -> RedisSharedState:
        return current_shared_state.get()

    with shared_state_scope("acme", "ann") as outer:
        assert await asyncio.create_task(child()) is outer
        assert await asyncio.to_thread(current_shared_state.get) is outer
        with shared_state_scope("acme", "bob", ttl_default=60) as inner:
            assert _current_ss.get() is inner
            assert (inner.user_id, inner.ttl_default) == ("bob", 60)
        assert _current_ss.get() is outer

    with pytest.raises(LookupError):
        _current_ss.get()


async def test_concurrent_requests_see_their_own_shared_state():
    async def request(number: int) -> bool:
        with shared_state_scope("acme", f"user {number}"):
            await current_shared_state.get().set_field("state", "number", number)
            await asyncio.sleep(0)
            return bool(await current_shared_state.get().get_field("state", "number") == number)

    assert all(await asyncio.gather(*(request(number) for number in range(50))))


def test_the_documents_names_lead_to_the_same_variable():
    assert current_module._current_ss is _current_ss is current_shared_state
    assert current_module.RedisSharedState is RedisSharedState
