"""Documents that refuse changes in place are written, compared and identified as the dicts and lists they hold."""

import copy
import json
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_service.context.memory import InMemoryContextStore
from agent_service.core.codec import decode, encode
from agent_service.core.errors import SessionValueError
from agent_service.core.fixed import fixed, plain
from agent_service.core.identity import encode_argument
from agent_service.infrastructure.cache.memory.cache import InMemoryCache
from agent_service.tenants.serde import dumps

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
DOCUMENT: dict[str, Any] = {"a": {"b": [1, {"c": 2.0}], "$": 1}, "n": None, "l": [[], {}]}


@settings(deadline=None)
@given(VALUES)
def test_what_is_fixed_is_equal_and_written_alike(value: Any) -> None:
    held = fixed(value)

    assert held == value
    assert plain(held) == value
    assert encode(held) == encode(value)
    assert encode({"within": [held]}) == encode({"within": [value]})
    assert encode_argument(held, "value") == encode_argument(value, "value")
    assert json.dumps(held) == json.dumps(value)


def test_a_copy_holds_nothing_fixed() -> None:
    for copied in (plain(fixed(DOCUMENT)), copy.deepcopy(fixed(DOCUMENT)), copy.deepcopy([fixed(DOCUMENT)])[0]):
        copied["a"]["b"][1]["c"] = copied["l"][0].append(1)

        assert copied["l"] == [[1], {}]


def test_what_was_fixed_shares_nothing_with_what_it_was_made_of() -> None:
    document = copy.deepcopy(DOCUMENT)
    held = fixed(document)
    document["a"]["b"].append(3)

    assert held == DOCUMENT


def test_other_writers_write_it_too() -> None:
    held = fixed(DOCUMENT)

    assert orjson.dumps(held) == orjson.dumps(DOCUMENT)
    assert dumps(held) == dumps(DOCUMENT)
    assert yaml.safe_load(json.dumps(held)) == DOCUMENT


async def test_caches_and_context_stores_keep_it_as_a_plain_dict() -> None:
    cache: InMemoryCache[Any] = InMemoryCache()
    store: Any = InMemoryContextStore()
    await cache.set("key", fixed(DOCUMENT))
    await store.set("key", fixed(DOCUMENT))

    kept: Any
    for kept in (await cache.get("key"), await store.get("key"), decode(*encode(fixed(DOCUMENT)))):
        kept["a"]["b"].append(1)

        assert kept == {**DOCUMENT, "a": {**DOCUMENT["a"], "b": [1, {"c": 2.0}, 1]}}


@pytest.mark.parametrize("operator", ["+=", "*="])
def test_operators_that_assign_make_plain_lists(operator: str) -> None:
    held = fixed([1])
    names = {"held": held}
    exec(f"held {operator} {[2] if operator == '+=' else 2}", names)

    assert held == [1]
    assert names["held"] == ([1, 2] if operator == "+=" else [1, 1])
    with pytest.raises(SessionValueError):
        held.append(2)
