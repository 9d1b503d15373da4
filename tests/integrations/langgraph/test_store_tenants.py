"""A second tenant calls every public method of a store with all it may know of the first one, and finds nothing."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp
from sqlalchemy import text

from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.items.operations import Get, ListNamespaces, Put, Search
from agent_service.infrastructure.database.items.transactions import ItemTransactions
from agent_service.integrations.langgraph import AgentServiceStore
from tests.integrations.langgraph.conftest import PassTime

SECRET = "the first tenant's"
NAMESPACE, KEY = ("users", "ada"), "k"
ATTACKS: dict[str, Callable[[Any], list[Awaitable[Any]]]] = {
    "aget": lambda store: [store.aget(NAMESPACE, KEY)],
    "asearch": lambda store: [
        store.asearch(()), store.asearch(NAMESPACE, query="tenant"), store.asearch((), filter={"n": {"$gt": 0}}),
    ],
    "alist_namespaces": lambda store: [
        store.alist_namespaces(), store.alist_namespaces(prefix=("users",), max_depth=1),
    ],
    "abatch": lambda store: [store.abatch([GetOp(NAMESPACE, KEY), SearchOp(()), ListNamespacesOp()])],
    "adelete": lambda store: [store.adelete(NAMESPACE, KEY)],
    "aclear": lambda store: [store.aclear(()), store.aclear(NAMESPACE)],
    "sweep_ttl": lambda store: [store.sweep_ttl()],
    "aput": lambda store: [store.aput(NAMESPACE, KEY, {"n": 2}, ttl=1)],
    "setup": lambda store: [store.setup()],
}  # fmt: skip
OF_ITEMS: dict[str, Callable[[Any, DatabaseManager], list[Awaitable[Any]]]] = {
    "run": lambda items, database: [
        items.run(database, [Get.of(NAMESPACE, KEY, refresh=True), Search.of(()), ListNamespaces.of()]),
        items.run(database, [Put.of(NAMESPACE, KEY, None)]),
    ],
    "remove_expired": lambda items, database: [items.remove_expired(database)],
    "remove_under": lambda items, database: [items.remove_under(database, "")],
}
OF_NOBODY = {"aclose", "start_ttl_sweeper", "stop_ttl_sweeper", "find_vectors"}
"""They open, close and repeat what the others do."""


def coroutines(kind: type) -> set[str]:
    return {name for name, each in inspect.getmembers(kind, inspect.iscoroutinefunction) if not name.startswith("_")}


async def rows(database: DatabaseManager) -> list[Any]:
    async with database.session() as db:
        found = await db.execute(text("SELECT * FROM agent_service_store_items WHERE tenant_id = 'acme'"))
        return [tuple(each) for each in found]


async def test_another_tenant_finds_and_changes_nothing(database: DatabaseManager, pass_minutes: PassTime) -> None:
    assert coroutines(AgentServiceStore) == ATTACKS.keys() | OF_NOBODY - {"find_vectors"}
    assert coroutines(ItemTransactions) == OF_ITEMS.keys() | {"find_vectors"}
    first, second = (AgentServiceStore(database, tenant_id=each) for each in ("acme", "acme2"))
    await first.abatch([PutOp(NAMESPACE, KEY, {"text": SECRET, "n": 1}, ttl=10)])
    await pass_minutes(11)
    before = await rows(database)
    items = ItemTransactions("acme2")

    told = [await each for attack in ATTACKS.values() for each in attack(second)]
    await second.adelete(NAMESPACE, KEY)
    told += [await each for attack in OF_ITEMS.values() for each in attack(items, database)]

    assert SECRET not in repr(told)
    assert all(each in (None, [], 0) for answer in told for each in (answer if isinstance(answer, list) else [answer]))
    assert await rows(database) == before
    assert len(before) == 1
    for each in (first, second):
        await each.aclose()
