"""What LangGraph asks of a store, on both engines."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)

from agent_service.core.errors import ConfigurationError, DatabaseError, SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.integrations.langgraph import AgentServiceStore

LONG = ("x" * 300, "y" * 300, "z" * 300)


async def fill(store: BaseStore, namespace: tuple[str, ...], *keys: str) -> None:
    for key in keys:
        await store.aput(namespace, key, {"key": key})


async def keys(store: BaseStore, prefix: tuple[str, ...] = (), **options: Any) -> list[str]:
    return [each.key for each in await store.asearch(prefix, **options)]


async def test_what_is_put_is_read_as_it_was(store: AgentServiceStore) -> None:
    value = {"n": 1, "f": 1.5, "big": 2**70, "large": 1e23, "t": "Åse\n", "b": True, "none": None, "l": [1, {"a": []}]}
    before = datetime.now(UTC)

    await store.aput(("users", "ada"), "likes", value)
    item = await store.aget(("users", "ada"), "likes")

    assert item is not None
    assert item.value == value
    assert [type(item.value[name]) for name in ("n", "f", "large", "b")] == [int, float, float, bool]
    assert (item.namespace, item.key) == (("users", "ada"), "likes")
    assert item.created_at == item.updated_at
    assert abs((item.created_at - before).total_seconds()) < 3600
    assert item.created_at.utcoffset() is not None


async def test_a_missing_item_is_none_and_deleting_one_is_no_error(store: AgentServiceStore) -> None:
    await store.adelete(("a",), "none")

    assert await store.aget(("a",), "none") is None
    assert await store.asearch(("a",)) == []


async def test_an_item_that_is_put_again_keeps_when_it_was_created(store: AgentServiceStore) -> None:
    await store.aput(("a",), "k", {"n": 1})
    first = await store.aget(("a",), "k")
    await store.aput(("a",), "k", {"n": 2})
    second = await store.aget(("a",), "k")

    assert first is not None
    assert second is not None
    assert second.value == {"n": 2}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at


async def test_a_batch_gives_results_in_order_and_reads_what_was_before_its_writes(store: AgentServiceStore) -> None:
    await fill(store, ("a",), "old", "gone")
    ops: list[Op] = [
        PutOp(("a",), "new", {"n": 1}),
        GetOp(("a",), "new"),
        PutOp(("a",), "gone", None),
        GetOp(("a",), "gone"),
        SearchOp(("a",)),
        ListNamespacesOp(),
        PutOp(("b",), "k", {"n": 2}),
        GetOp(("a",), "old"),
    ]

    results = await store.abatch(ops)

    assert [type(each).__name__ for each in results] == [
        *("NoneType", "NoneType", "NoneType", "Item", "list", "list", "NoneType", "Item")
    ]
    assert {each.key for each in results[4]} == {"old", "gone"}  # type: ignore[union-attr]
    assert results[5] == [("a",)]
    assert sorted(await keys(store)) == ["k", "new", "old"]
    assert await store.abatch([]) == []


async def test_of_several_writes_of_a_key_the_last_one_holds(store: AgentServiceStore) -> None:
    await store.abatch([PutOp(("a",), "k", {"n": n}) for n in range(3)] + [PutOp(("a",), "gone", {"n": 1})])
    await store.abatch([PutOp(("a",), "gone", {"n": 2}), PutOp(("a",), "gone", None)])

    item = await store.aget(("a",), "k")
    assert item is not None
    assert item.value == {"n": 2}
    assert await store.aget(("a",), "gone") is None


async def test_a_batch_that_cannot_be_done_changes_nothing(store: AgentServiceStore) -> None:
    with pytest.raises(SessionValueError, match=r"value\.x is a set"):
        await store.abatch([PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "l", {"x": {1}})])

    assert await keys(store) == []


@pytest.mark.parametrize("label", ["", "a.b", "a\x00"])
async def test_labels_are_checked_for_operations_too(store: AgentServiceStore, label: str) -> None:
    ops = (
        GetOp((label,), "k"),
        PutOp(("a", label), "k", {}),
        SearchOp((label,)),
        ListNamespacesOp((MatchCondition("prefix", (label,)),)),
    )
    for op in ops:
        with pytest.raises(InvalidNamespaceError):
            await store.abatch([op])


async def test_the_namespaces_that_langgraph_forbids_are_refused(store: AgentServiceStore) -> None:
    for namespace in ((), ("langgraph", "a")):
        with pytest.raises(InvalidNamespaceError):
            await store.aput(namespace, "k", {})
    with pytest.raises(SessionValueError, match="namespace is empty"):
        await store.abatch([PutOp((), "k", {})])


@pytest.mark.parametrize(
    ("op", "match"),
    [
        (GetOp(LONG, "k"), "namespace has 903 bytes"),
        (GetOp(("a",), "k" * 900), "key has 900 bytes"),
        (GetOp(("a",), "k\x00"), "key holds U\\+0000"),
        (GetOp(("\ud800",), "k"), "lone surrogate"),
        (PutOp(("a",), "k", {"t": "\x00"}), "value.t holds U\\+0000"),
        (PutOp(("a",), "k", {"t": float("nan")}), "value.t is nan"),
        (PutOp(("a",), "k", {1: 2}), "key that is no string"),  # type: ignore[dict-item]
        (PutOp(("a",), "k", [1]), "value must be a dict"),  # type: ignore[arg-type]
        (PutOp(("a",), "k", {"t": (1,)}), "value.t is a tuple"),
        (PutOp(("a",), "k", {}, ttl=0), "ttl must be minutes above 0"),
        (PutOp(("a",), "k", {}, ttl=-1), "ttl must be minutes above 0"),
        (PutOp(("a",), "k", {}, ttl=float("nan")), "ttl must be minutes above 0"),
        (PutOp(("a",), "k", {}, ttl=True), "ttl must be minutes above 0"),
        (PutOp(("a",), "k", {}, ttl=10**400), "ttl must be minutes above 0"),
        (PutOp(("a",), "k", {}, ttl=1e12), "at most 100 years"),
        (PutOp(("a",), "k", {}, index="text"), "index must be"),  # type: ignore[arg-type]
        (SearchOp((), limit=-1), "limit must be an integer"),
        (SearchOp((), limit=10_001), "limit must be an integer"),
        (SearchOp((), offset=-1), "offset must be an integer"),
        (SearchOp((), query="x" * 10_001), "query has 10001 characters"),
        (ListNamespacesOp(max_depth=0), "max_depth must be"),
        (ListNamespacesOp(limit=-1), "limit must be"),
        (ListNamespacesOp((MatchCondition("middle", ("a",)),)), "'middle'"),  # type: ignore[arg-type]
        ("get", "str is no operation"),
    ],
)
async def test_what_cannot_be_used_is_refused_by_name_before_anything_is_sent(op: Any, match: str) -> None:
    nowhere = DatabaseManager("postgresql+asyncpg://nobody@127.0.0.1:1/none")

    with pytest.raises(SessionValueError, match=match):
        await AgentServiceStore(nowhere).abatch([PutOp(("a",), "before", {}), op])


async def test_errors_do_not_show_what_was_stored(store: AgentServiceStore) -> None:
    with pytest.raises(SessionValueError) as refused:
        await store.aput(("a",), "k", {"secret": ["hunter2", {1}]})

    assert "hunter2" not in str(refused.value)


async def test_a_search_without_a_query_shows_what_was_updated_last_first(store: AgentServiceStore) -> None:
    await fill(store, ("a", "b"), "1", "2", "3")
    await fill(store, ("ab",), "other")
    await fill(store, ("a",), "1")
    await fill(store, ("a", "b"), "1")

    assert await keys(store, ("a",)) == ["1", "1", "3", "2"]
    assert await keys(store, ("a",), limit=2, offset=1) == ["1", "3"]
    assert await keys(store, ("a",), limit=0) == []
    assert await keys(store, ("a",), offset=10) == []
    assert await keys(store, ("a", "b"), limit=1) == ["1"]
    assert len(await keys(store)) == 5


async def test_namespaces_are_listed_in_their_order_with_wildcards_and_depth(store: AgentServiceStore) -> None:
    for namespace in (("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"), ("a", "b", "f"), ("a", "c", "f")):
        await fill(store, namespace, "1", "2")
    await fill(store, ("a-b", "c"), "1")
    await fill(store, ("a", "b"), "1")

    listed = await store.alist_namespaces()
    assert listed == sorted(listed)
    assert len(listed) == 7
    assert await store.alist_namespaces(prefix=("a", "b"), max_depth=3) == [
        *(("a", "b"), ("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f"))
    ]
    assert await store.alist_namespaces(prefix=("*", "c")) == [("a", "c", "f"), ("a-b", "c")]
    assert await store.alist_namespaces(suffix=("*", "f")) == [("a", "b", "f"), ("a", "c", "f")]
    assert await store.alist_namespaces(prefix=("a", "*", "d"), suffix=("e",)) == [("a", "b", "d", "e")]
    assert await store.alist_namespaces(max_depth=1) == [("a",), ("a-b",)]
    assert await store.alist_namespaces(max_depth=2, limit=1, offset=1) == [("a", "c")]
    assert await store.alist_namespaces(limit=2, offset=5) == listed[5:7]
    assert await store.alist_namespaces(limit=0) == []
    assert await store.alist_namespaces(prefix=("a", "b", "c", "x")) == []


async def test_more_namespaces_than_a_page_are_listed(store: AgentServiceStore) -> None:
    await store.abatch([PutOp((f"{n:04}", "x", str(n % 2)), "k", {}) for n in range(1100)])

    assert len(await store.alist_namespaces(limit=2000)) == 1100
    assert len(await store.alist_namespaces(limit=2000, max_depth=1)) == 1100
    assert await store.alist_namespaces(suffix=("1",), limit=1, offset=540) == [("1081", "x", "1")]
    await store.abatch([PutOp(("0000", f"y{n}"), "k", {}) for n in range(600)])
    assert await store.alist_namespaces(max_depth=1, limit=3) == [("0000",), ("0001",), ("0002",)]


async def test_a_namespace_without_items_is_not_listed(store: AgentServiceStore) -> None:
    await fill(store, ("a", "b"), "k")
    await store.adelete(("a", "b"), "k")

    assert await store.alist_namespaces() == []


async def test_labels_may_hold_what_separates_them_where_they_are_kept(store: AgentServiceStore) -> None:
    odd = [("a\x01b",), ("a", "b"), ("a\x02\x03b",), ("a\x02",), ("a%_",), ("A",), ("ä", "🦊")]
    for namespace in odd:
        await store.aput(namespace, "k", {"of": list(namespace)})

    assert await store.alist_namespaces() == sorted(odd)
    assert [item.value for item in await store.asearch(("a",))] == [{"of": ["a", "b"]}]
    assert [item.namespace for item in await store.asearch(("a\x01b",))] == [("a\x01b",)]


async def test_a_query_finds_words_wherever_they_stand_the_best_first(store: AgentServiceStore) -> None:
    await store.aput(("u",), "pizza", {"text": "Ada likes pizza", "n": 1})
    await store.aput(("u",), "tea", {"text": "Ada likes tea", "n": 2})
    await store.aput(("u",), "deep", {"of": [{"more": "a red bicycle"}], "n": 3})
    await store.aput(("v",), "other", {"text": "pizza and a red bicycle"})

    for query, found in (
        ("PIZZA", ["pizza"]),
        ("likes pizza", ["pizza", "tea"]),
        ("what about the red bicycle?", ["deep"]),
        ("%", []),
        ("_", []),
        ("nothing of that", []),
    ):
        items = await store.asearch(("u",), query=query)

        assert [each.key for each in items] == found, query
        scores = [each.score for each in items]
        assert all(score is not None and 0 < score < 1 for score in scores)
        assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
        assert await keys(store, ("u",), query=query, offset=1) == found[1:]


async def test_an_index_says_which_texts_a_query_finds(store: AgentServiceStore) -> None:
    value = {"title": "pizza", "parts": [{"text": "tea"}, {"text": "milk"}], "hidden": "secret"}
    await store.aput(("u",), "some", value, index=["title", "parts[*].text"])
    await store.aput(("u",), "none", value, index=False)

    assert await keys(store, ("u",), query="pizza milk") == ["some"]
    assert await keys(store, ("u",), query="secret") == []
    assert sorted(await keys(store, ("u",))) == ["none", "some"]


async def test_clearing_a_namespace_leaves_the_others(store: AgentServiceStore) -> None:
    await store.abatch([PutOp(("a", str(n % 3)), str(n), {}) for n in range(1200)])
    await fill(store, ("ab",), "k")

    assert await store.aclear(("a",)) == 1200
    assert await store.aclear(("a",)) == 0
    assert await store.alist_namespaces() == [("ab",)]
    assert await store.aclear(()) == 1
    with pytest.raises(SessionValueError, match="namespace_prefix"):
        await store.aclear("a")  # type: ignore[arg-type]


async def test_tenants_see_nothing_of_each_other(
    database: DatabaseManager, store: AgentServiceStore, stored: Callable[[], Awaitable[int]]
) -> None:
    other = AgentServiceStore(database, tenant_id="other")
    await store.aput(("a",), "k", {"of": "acme"}, ttl=1)
    await other.aput(("a",), "k", {"of": "other"})

    item = await store.aget(("a",), "k")
    assert item is not None
    assert item.value == {"of": "acme"}
    await other.adelete(("a",), "k")
    assert await other.aclear(()) == 0
    assert await other.asearch(()) == []
    assert await other.asearch((), query="acme") == []
    assert await other.alist_namespaces() == []
    assert await stored() == 1
    await other.aclose()


async def test_many_tasks_share_transactions_and_each_has_its_own_answer(store: AgentServiceStore) -> None:
    async def work(n: int) -> None:
        await store.aput(("n", str(n)), "k", {"n": n})
        item = await store.aget(("n", str(n)), "k")
        assert item is not None
        assert item.value == {"n": n}
        assert await keys(store, ("n", str(n))) == ["k"]

    await asyncio.gather(*map(work, range(100)))


async def test_a_cancelled_caller_harms_nobody(store: AgentServiceStore) -> None:
    async def put(n: int) -> None:
        await store.aput(("n",), str(n), {"n": n})

    for _ in range(5):
        tasks = [asyncio.create_task(put(n)) for n in range(40)]
        for turn in range(3):
            await asyncio.sleep(0)
            for task in tasks[turn::10]:
                task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        stayed = {n for n, each in enumerate(done) if each is None}

        assert stayed >= {n for n in range(40) if n % 10 > 2}
        assert stayed <= {int(each) for each in await keys(store, ("n",), limit=100)}
    await fill(store, ("n",), "after")
    assert await store.aget(("n",), "after") is not None


async def test_an_operation_that_the_database_refuses_is_refused_to_its_caller_alone(
    database: DatabaseManager, store: AgentServiceStore
) -> None:
    refuse = "ALTER TABLE agent_service_store_items ADD CHECK (key <> 'bad')"
    if database.embedded:
        refuse = (
            "CREATE TRIGGER refuse BEFORE INSERT ON agent_service_store_items WHEN new.key = 'bad' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    async with database.session() as db:
        await (await db.connection()).exec_driver_sql(refuse)

    done = await asyncio.gather(
        *(store.aput(("a",), "bad" if n == 7 else str(n), {"n": n}) for n in range(20)), return_exceptions=True
    )

    assert [n for n, each in enumerate(done) if each is not None] == [7]
    assert isinstance(done[7], DatabaseError)
    assert len(await keys(store, limit=100)) == 19


async def test_it_says_what_it_can(store: AgentServiceStore) -> None:
    assert store.supports_ttl is True
    assert isinstance(store, BaseStore)
    await store.setup()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"database": "sqlite://"}, "DatabaseManager"),
        ({"ttl": {"default_ttl": 0}}, "default_ttl"),
        ({"ttl": {"default_ttl": 10**400}}, "default_ttl"),
        ({"ttl": {"sweep_interval_minutes": "1"}}, "sweep_interval_minutes"),
        ({"ttl": {"minutes": 1}}, "'minutes'"),
        ({"index": {"dims": 0, "embed": len}}, "dims"),
        ({"index": {"dims": 2}}, "embed"),
        ({"index": {"dims": 2, "embed": len, "fields": "text"}}, "fields"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        AgentServiceStore(**options)
