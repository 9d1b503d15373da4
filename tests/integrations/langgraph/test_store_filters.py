"""Filters: numbers are compared as numbers and structures as structures, alike on both engines."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import PutOp, SearchOp
from langgraph.store.memory import InMemoryStore

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.engine import DatabaseManager
from agent_service.infrastructure.database.values.conditions import holds, read_filter
from agent_service.integrations.langgraph import AgentServiceStore
from tests.support.depth import examples

VALUES: dict[str, dict[str, Any]] = {
    "nine": {"n": 9, "s": "9", "on": "2026-01-09", "tags": ["a", "b"], "p": {"city": "Oslo", "age": 7}},
    "ten": {"n": 10, "s": "10", "on": "2026-11-10", "tags": ["a"], "p": {"city": "Bergen", "age": 70.5}},
    "half": {"n": 0.5, "s": "b", "tags": [], "p": {"city": "Oslo"}, "b": True},
    "none": {"n": None, "s": "B", "tags": "a", "p": None, "b": False},
    "other": {"n": "10", "b": 1},
}


@pytest.fixture
async def filled(store: AgentServiceStore) -> AgentServiceStore:
    await store.abatch([PutOp(("v",), key, value) for key, value in VALUES.items()])
    return store


FOUND: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set(VALUES)),
    ({"n": 10}, {"ten"}),
    ({"n": 10.0}, {"ten"}),
    ({"n": "10"}, {"other"}),
    ({"n": {"$gt": 9}}, {"ten"}),
    ({"n": {"$gt": 1}}, {"nine", "ten"}),
    ({"n": {"$gte": 9}}, {"nine", "ten"}),
    ({"n": {"$lt": 9.5}}, {"nine", "half"}),
    ({"n": {"$lte": 0.5}}, {"half"}),
    ({"n": {"$gt": 0.5, "$lt": 10}}, {"nine"}),
    ({"n": {"$eq": 9}}, {"nine"}),
    ({"n": {"$ne": 9}}, {"ten", "half", "none", "other"}),
    ({"missing": None}, set(VALUES)),
    ({"n": None}, {"none"}),
    ({"missing": {"$ne": 1}}, set(VALUES)),
    ({"missing": {"$gt": 1}}, set()),
    ({"s": {"$gt": "9"}}, {"half", "none"}),
    ({"s": {"$lt": "a"}}, {"nine", "ten", "none"}),
    ({"on": {"$gte": "2026-02-01"}}, {"ten"}),
    ({"tags": ["a", "b"]}, {"nine"}),
    ({"tags": ["b", "a"]}, set()),
    ({"tags": ["a"]}, {"ten"}),
    ({"tags": []}, {"half"}),
    ({"tags": ("a",)}, {"ten"}),
    ({"p": {"city": "Oslo"}}, {"nine", "half"}),
    ({"p": {"city": "Oslo", "age": {"$lt": 10}}}, {"nine"}),
    ({"p": {"age": {"$gt": 7}}}, {"ten"}),
    ({"p": {}}, {"nine", "ten", "half"}),
    ({"p": {"$eq": {"city": "Oslo"}}}, {"half"}),
    ({"p": {"$ne": {"city": "Oslo"}}}, {"nine", "ten", "none", "other"}),
    ({"tags": [{"$ne": "b"}]}, {"ten"}),
    ({"b": True}, {"half"}),
    ({"b": 1}, {"other"}),
    ({"b": {"$ne": False}}, {"nine", "ten", "half", "other"}),
    ({"n": 10, "s": "10"}, {"ten"}),
    ({"n": 10, "s": "9"}, set()),
]


async def test_filters(filled: AgentServiceStore) -> None:
    results = await filled.abatch([SearchOp((), filter=filter_) for filter_, _ in FOUND])

    for (filter_, found), items in zip(FOUND, results, strict=True):
        assert {each.key for each in items} == found, filter_  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("filter_", "match"),
    [
        ({"n": {"$near": 1}}, r"filter\.n has the operator '\$near'"),
        ({"n": {"$gt": 1, "lt": 2}}, "operator 'lt'"),
        ({"n": {"$gt": None}}, r"filter\.n compares by \$gt with NoneType"),
        ({"n": {"$lt": True}}, "bool"),
        ({"n": {"$lt": [1]}}, "list"),
        ({"n": float("nan")}, "nan"),
        ({"n": {1}}, "set"),
        ({"n": "\x00"}, "U\\+0000"),
        ({1: 1}, "a key of filter must be a string"),
        (["n"], "filter must be a dict"),
    ],
)
async def test_filters_that_cannot_be_used_are_refused(filter_: Any, match: str) -> None:
    with pytest.raises(SessionValueError, match=match):
        await AgentServiceStore().asearch((), filter=filter_)


async def test_numbers_are_compared_exactly(store: AgentServiceStore) -> None:
    await store.aput(("n",), "exact", {"n": 2**53 + 1, "large": 1e23})

    for filter_, found in (
        ({"n": 2**53 + 1}, 1), ({"n": 2**53}, 0), ({"n": {"$gt": 2**53}}, 1), ({"n": {"$gt": float(2**53)}}, 1),
        ({"large": 10**23}, 1), ({"large": {"$gte": 10**23}}, 1), ({"large": {"$lt": 10**23 + 1}}, 1),
    ):  # fmt: skip
        assert len(await store.asearch((), filter=filter_)) == found, filter_


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, -0.0, 1.0, 1e23, 2**60]),
    st.sampled_from(["", "a", "A", "ab", "10", "9", "ä", "🦊", "'", "\\"]),
)  # fmt: skip
NAMES = st.sampled_from(["a", "b", "0", "1", "-1"])
JSON = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=2) | st.dictionaries(NAMES, each, max_size=2), max_leaves=4
)
OPERATIONS = st.one_of(
    st.fixed_dictionaries({"$eq": JSON}), st.fixed_dictionaries({"$ne": JSON}),
    st.dictionaries(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        st.integers(-2, 2) | st.sampled_from([0.5, 1e23, "a", "B", "ä", "9"]), min_size=1, max_size=2,
    ),
)  # fmt: skip
WANTED = st.recursive(
    SCALARS | OPERATIONS,
    lambda each: st.lists(each, max_size=2) | st.dictionaries(NAMES, each, max_size=2),
    max_leaves=3,
)
FILTERS = st.dictionaries(NAMES, WANTED, min_size=1, max_size=2)


@settings(max_examples=examples(25, 1000), suppress_health_check=list(HealthCheck))
@given(
    values=st.lists(st.dictionaries(NAMES, JSON, max_size=3), min_size=8, max_size=8),
    filters=st.lists(FILTERS, min_size=8, max_size=8),
)
async def test_both_engines_find_what_the_conditions_say(
    values: list[dict[str, Any]], filters: list[dict[str, Any]], store: AgentServiceStore
) -> None:
    await store.abatch([PutOp(("p",), str(number), value) for number, value in enumerate(values)])

    found = await store.abatch([SearchOp(("p",), filter=each, limit=10) for each in filters])

    expected = [
        {str(n) for n, value in enumerate(values) if all(holds(value, each) for each in read_filter(filter_))}
        for filter_ in filters
    ]
    assert [{item.key for item in each} for each in found] == expected  # type: ignore[union-attr]


NUMBERS = st.integers(-3, 12) | st.sampled_from([0.5, 9.5])
PLAIN = NUMBERS | st.sampled_from(["a", "b", "10"]) | st.none()


@settings(max_examples=examples(100, 2000))
@given(
    value=st.dictionaries(NAMES, PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(NAMES, PLAIN, max_size=2)),
    numbers=st.dictionaries(st.sampled_from(["x", "y"]), NUMBERS, min_size=2),
    wanted=st.dictionaries(NAMES, PLAIN | st.lists(PLAIN, max_size=2) | st.dictionaries(NAMES, PLAIN, max_size=2)),
    operation=st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
    operand=NUMBERS,
)
def test_they_say_what_the_store_in_memory_says(
    value: dict[str, Any], numbers: dict[str, Any], wanted: dict[str, Any], operation: str, operand: float
) -> None:
    """But for what Python takes for equal and JSON does not (true and 1), and where that store raises: a comparison of
    a number with what is none."""
    memory, whole = InMemoryStore(), {**value, **numbers}
    memory.put(("v",), "k", whole)
    for filter_ in (wanted, {"x": {operation: operand}}):
        expected = bool(memory.search(("v",), filter=filter_))

        assert all(holds(whole, each) for each in read_filter(filter_)) is expected


async def test_a_filter_is_applied_before_the_limit(store: AgentServiceStore) -> None:
    await store.abatch([PutOp(("n",), str(n), {"even": n % 2 == 0}) for n in range(20)])

    items = await store.asearch((), filter={"even": True}, limit=3, offset=2)

    assert len(items) == 3
    assert all(each.value["even"] for each in items)


async def test_a_filter_and_a_query_hold_together(database: DatabaseManager, filled: AgentServiceStore) -> None:
    items = await filled.asearch((), query="oslo", filter={"n": {"$gt": 1}})

    assert [each.key for each in items] == ["nine"]
