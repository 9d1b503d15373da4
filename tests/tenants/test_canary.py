"""Every public method over Redis, called by a second tenant with all the names of the first one.

Tenants' names hold one another, separators, globs and other forms of the same letters. The first tenant's records,
queues and triggers stay byte for byte as they are, and nothing that the second one is told says what they hold.
"""

import asyncio
import importlib
import inspect
import logging
import pkgutil
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from agent_service.core.errors import AgentServiceError, RecordValueError
from agent_service.core.logging import logger
from agent_service.infrastructure.redis.client import RedisClient
from agent_service.tenants import (
    RedisBatch,
    RedisGeneric,
    RedisSharedState,
    RedisStateHandler,
    RedisTable,
    RedisTrigger,
    RedisUser,
    TenantCache,
    Trigger,
    TriggerRunner,
    on_trigger,
)
from agent_service.tenants.named import NamedRecords
from tests.tenants.test_isolation import dump

SECRET, COUNT = "kestrel", 7_654_321
DATA = {"text": SECRET, "count": COUNT, "list": [SECRET]}
PAIRS = [
    ("acme", "acme2"),
    ("acme2", "acme"),
    ("acme", "acme:told"),
    ("acme:told", "acme"),
    ("acme", "a*"),
    ("acme", "*"),
    ("acme", "{acme}"),
    ("acme", "acme}:user:told"),
    ("acme", "ACME"),
    ("a%3Ab", "a:b"),
    ("a:b", "a%3Ab"),
    ("é", "e\u0301"),
    ("%", "%25"),
    ("=", "=="),
    ("acme", "%tenant:{acme"),
]
WORK = ("told-service", "told-entity", "told-action")

Calls = list[Callable[[Any], Awaitable[Any]]]

STATES: dict[str, Calls] = {
    "get": [lambda states: states.get("told")],
    "get_field": [lambda states: states.get_field("told", "text")],
    "exists": [lambda states: states.exists("told")],
    "set": [lambda states: states.set("told", {"a": 1})],
    "upsert": [lambda states: states.upsert("told", {"b": 1})],
    "update_field": [lambda states: states.update_field("told", "text", "x")],
    "delete_field": [lambda states: states.delete_field("told", "text")],
    "increment_field": [lambda states: states.increment_field("told", "count")],
    "append_to_list": [lambda states: states.append_to_list("told", "list", 1)],
    "compare_and_set": [
        lambda states: states.compare_and_set("told", "text", SECRET, "x"),
        lambda states: states.compare_and_set("told", "text", None, "x"),
    ],
    "renew_ttl": [lambda states: states.renew_ttl("told", 5)],
    "get_ttl": [lambda states: states.get_ttl("told")],
    "delete": [lambda states: states.delete("told")],
}
USERS: dict[str, Calls] = {
    "get": [lambda user: user.get()],
    "get_field": [lambda user: user.get_field("text")],
    "exists": [lambda user: user.exists()],
    "find_by_field": [lambda user: user.find_by_field("text", SECRET), lambda user: user.find_by_field("count", COUNT)],
    "upsert": [lambda user: user.upsert({"b": 1})],
    "update_field": [lambda user: user.update_field("text", "x")],
    "delete_field": [lambda user: user.delete_field("text")],
    "increment_field": [lambda user: user.increment_field("count")],
    "append_to_list": [lambda user: user.append_to_list("list", 1)],
    "compare_and_set": [lambda user: user.compare_and_set("text", SECRET, "x")],
    "renew_ttl": [lambda user: user.renew_ttl(5)],
    "get_ttl": [lambda user: user.get_ttl()],
    "delete": [lambda user: user.delete()],
    "search": [lambda user: type(user).search(user.tenant, indexes=("text",)).find_by_field("text", SECRET)],
}
TABLES: dict[str, Calls] = {
    "get": [lambda tables: tables.get("told", "pk")],
    "get_field": [lambda tables: tables.get_field("told", "pk", "text")],
    "exists": [lambda tables: tables.exists("told", "pk")],
    "find_by_field": [lambda tables: tables.find_by_field("told", "text", SECRET)],
    "set": [lambda tables: tables.set("told", "pk", {"a": 1})],
    "upsert": [lambda tables: tables.upsert("told", "pk", {"b": 1})],
    "update_field": [lambda tables: tables.update_field("told", "pk", "text", "x")],
    "delete_field": [lambda tables: tables.delete_field("told", "pk", "text")],
    "increment_field": [lambda tables: tables.increment_field("told", "pk", "count")],
    "append_to_list": [lambda tables: tables.append_to_list("told", "pk", "list", 1)],
    "compare_and_set": [lambda tables: tables.compare_and_set("told", "pk", "text", SECRET, "x")],
    "renew_ttl": [lambda tables: tables.renew_ttl("told", "pk", 5)],
    "get_ttl": [lambda tables: tables.get_ttl("told", "pk")],
    "delete": [lambda tables: tables.delete("told", "pk")],
    "delete_all_by_pkid": [lambda tables: tables.delete_all_by_pkid("pk")],
}
_theirs: list[Any] = []
"""Claims that the first tenant holds."""

DRIVES: dict[type[TenantCache], dict[str, Calls]] = {
    RedisUser: USERS,
    RedisStateHandler: STATES,
    RedisSharedState: {
        **STATES,
        "set_field": [lambda states: states.set_field("told", "text", "x")],
        "list_states": [lambda states: states.list_states()],
        "clear_all_states": [lambda states: states.clear_all_states()],
    },
    RedisTable: TABLES,
    RedisGeneric: {
        "get": [lambda values: values.get("told")],
        "exists": [lambda values: values.exists("told")],
        "set": [lambda values: values.set("told", 1)],
        "delete": [lambda values: values.delete("told")],
    },
    RedisTrigger: {
        "pending": [lambda triggers: triggers.pending()],
        "late": [lambda triggers: triggers.late()],
        "dead": [lambda triggers: triggers.dead()],
        "delete": [lambda triggers: triggers.delete("told-action", "told")],
        "delete_all_by_identifier": [lambda triggers: triggers.delete_all_by_identifier("told")],
        "set": [lambda triggers: triggers.set("told-action", "told", 3600)],
    },
    RedisBatch: {
        "get_length": [lambda batch: batch.get_length(*WORK)],
        "get_chunk": [lambda batch: batch.get_chunk(*WORK, 0, -1)],
        "trim": [lambda batch: batch.trim(*WORK, 1, 0)],
        "claim": [lambda batch: batch.claim(*WORK, count=10)],
        "ack": [lambda batch: batch.ack(_theirs)],
        "enqueue": [lambda batch: batch.enqueue(*WORK, "mine")],
        "get_pending_tenants": [lambda batch: batch.get_pending_tenants("other-service")],
        "remove_from_pending": [lambda batch: batch.remove_from_pending(WORK[0], batch.tenant)],
    },
}


def opened(owner: type[TenantCache], tenant: str) -> list[Any]:
    """Return instances as a tenant makes them, for the ids that it was told."""
    if owner is RedisUser:
        return [RedisUser(tenant, "told"), RedisUser(tenant, "told", indexes=("text", "count"))]
    make: Callable[..., TenantCache] = owner
    takes_user = "user_id" in inspect.signature(owner).parameters
    return [make(tenant, "told")] if takes_user else [make(tenant)]


async def plant(tenant: str) -> None:
    """Return a tenant something of every kind."""
    await RedisUser(tenant, "told", indexes=("text", "count")).upsert(DATA)
    await RedisStateHandler(tenant, "told").set("told", DATA)
    await RedisSharedState(tenant, "told").set("told", DATA)
    await RedisSharedState(tenant, "told").set(SECRET, DATA)
    await RedisTable(tenant).set("told", "pk", DATA)
    await RedisGeneric(tenant).set("told", SECRET)
    await RedisTrigger(tenant).set("told-action", "told", 3600)
    await RedisTrigger(tenant).set("told-action", SECRET, 3600)
    for number in range(3):
        await RedisBatch(tenant).enqueue(*WORK, {"text": SECRET, "number": number})
    _theirs[:] = await RedisBatch(tenant).claim(*WORK, visibility=3600)


@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_a_second_tenant_finds_and_changes_nothing(
    client: RedisClient, caplog: pytest.LogCaptureFixture, first: str, second: str
) -> None:
    caplog.set_level(logging.DEBUG, logger.name)
    await plant(first)
    before = await _without_books(client)

    for owner, drives in DRIVES.items():
        for instance in opened(owner, second):
            for name, calls in drives.items():
                for call in calls:
                    try:
                        told: Any = await call(instance)
                    except AgentServiceError as exc:
                        told = exc
                    assert SECRET not in repr(told), f"{owner.__name__}.{name}"
                    assert str(COUNT) not in repr(told), f"{owner.__name__}.{name}"
        after = await _without_books(client)
        assert {key: after.get(key) for key in before} == before, owner.__name__

    assert not [record for record in caplog.records if SECRET in record.getMessage()]
    assert first in await RedisBatch.get_pending_tenants(WORK[0])
    assert sorted(each.identifier for each in await RedisTrigger(first).pending()) == sorted(["told", SECRET])
    assert await RedisBatch(first).ack(_theirs) == 1
    assert await RedisBatch(first).get_length(*WORK) == 2


async def _without_books(client: RedisClient) -> dict[bytes, bytes]:
    """Every key, without the indexes of all tenants' work, which name tenants and hold nothing of theirs."""
    shared = (b"batch_pending", b"trigger_tenants", b"trigger_actions", b"trigger_wakes")
    return {key: value for key, value in (await dump(client)).items() if not any(each in key for each in shared)}


@pytest.mark.parametrize(("first", "second"), PAIRS)
async def test_a_runner_of_one_tenant_handles_its_own_triggers(first: str, second: str) -> None:
    handled: list[tuple[str, str]] = []
    action = uuid4().hex

    @on_trigger(action)
    async def handle(trigger: Trigger) -> None:
        handled.append((trigger.tenant, trigger.identifier))

    for tenant in (first, second):
        await RedisTrigger(tenant).set(action, "told", 0.001)
    async with TriggerRunner(tenants=[second]):
        while await RedisTrigger(second).pending():
            await asyncio.sleep(0.005)

    assert handled == [(second, "told")]
    assert [each.identifier for each in await RedisTrigger(first).pending()] == ["told"]


@pytest.mark.parametrize("owner", DRIVES, ids=lambda owner: owner.__name__)
def test_every_public_method_is_driven_here(owner: type[TenantCache]) -> None:
    found = inspect.getmembers(owner, lambda each: inspect.isfunction(each) or inspect.ismethod(each))
    methods = {name for name, _ in found if not name.startswith("_")}

    assert [f"no drive for {owner.__name__}.{name}" for name in sorted(methods - DRIVES[owner].keys())] == []
    assert DRIVES[owner].keys() <= methods


def test_every_repository_of_a_tenant_is_driven_here() -> None:
    found: set[type] = set()
    for module in pkgutil.iter_modules(importlib.import_module("agent_service.tenants").__path__):
        members = inspect.getmembers(importlib.import_module(f"agent_service.tenants.{module.name}"), inspect.isclass)
        found |= {each for _, each in members if issubclass(each, TenantCache)}

    assert found - {TenantCache, NamedRecords} == set(DRIVES)


@pytest.mark.parametrize("owner", DRIVES, ids=lambda owner: owner.__name__)
@pytest.mark.parametrize("tenant", ["", None, 7, b"acme", "\ud800", "x" * 2049])
def test_a_tenant_that_cannot_be_is_refused(owner: type[TenantCache], tenant: Any) -> None:
    with pytest.raises(RecordValueError, match="tenant"):
        opened(owner, tenant)
