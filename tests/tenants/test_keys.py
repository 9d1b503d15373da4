"""Keys: nobody's components can make another's key, and a pattern matches what it is for alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.errors import RecordValueError
from agent_service.core.glob import compile_glob
from agent_service.tenants.keys import KeyFactory, decode_component, encode_component
from tests.keys import physical_key

HOSTILE = st.text(alphabet=":_*?[]\\{}%^-\n\x00/.a1é☃\U0001f600", min_size=1, max_size=6) | st.text(min_size=1)
KEYS = KeyFactory()
RULES: dict[str, tuple[Any, int]] = {
    "user": (KEYS.user, 2),
    "state": (KEYS.state, 3),
    "table": (KEYS.table_row, 3),
    "tables": (KEYS.row_tables, 2),
    "shared_state": (KEYS.shared_state, 3),
    "shared_states": (KEYS.shared_states, 2),
    "generic": (KEYS.generic, 2),
}
COMPONENTS = st.sampled_from(sorted(RULES)).flatmap(lambda kind: st.tuples(st.just(kind), *[HOSTILE] * RULES[kind][1]))


def build(kind: str, *components: str) -> bytes:
    key: bytes = RULES[kind][0](*components)
    return key


@pytest.fixture(autouse=True)
def house():
    """No server is needed here."""


@given(COMPONENTS, COMPONENTS)
def test_different_components_make_different_keys(one: Any, other: Any):
    assert (build(*one) == build(*other)) is (one == other)


@given(COMPONENTS)
def test_a_key_says_what_it_was_made_of(made_of: Any):
    kind, *components = made_of
    parts = KEYS.parse(build(kind, *components))

    assert parts is not None
    assert parts.kind == kind
    assert sorted(parts.tag + parts.rest) == sorted(components)


@given(HOSTILE)
def test_an_encoded_component_is_plain_ascii_and_comes_back(value: str):
    encoded = encode_component(value, "x")

    assert encoded.isascii()
    assert not set(encoded) & set(":*?[]\\{}^\r\n ")
    assert decode_component(encoded) == value


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_the_patterns_of_a_tenant_match_its_own_keys_alone(tenant: str, other: str, table: str, pk: str, name: str):
    rows, users = compile_glob(KEYS.table_rows(tenant, table).decode()), compile_glob(f"{KEYS.users(tenant).decode()}*")

    assert rows(build("table", tenant, table, pk))
    assert users(build("user", tenant, pk))
    for key in (build("table", other, table, pk), build("user", other, pk), build("state", tenant, pk, table)):
        assert not rows(key) or other == tenant
        assert not users(key) or other == tenant
    assert rows(build("table", tenant, name, pk)) is (name == table)


@given(HOSTILE, HOSTILE, HOSTILE)
def test_the_keys_of_a_record_and_its_listing_share_a_hash_tag(tenant: str, one: str, two: str):
    assert tag(KEYS.shared_state(tenant, one, two)) == tag(KEYS.shared_states(tenant, one))
    assert tag(KEYS.table_row(tenant, one, two)) == tag(KEYS.row_tables(tenant, two))
    assert tag(KEYS.user(tenant, one)) == tag(KEYS.user_index(tenant, two))


def tag(key: bytes) -> bytes:
    """What Redis hashes: the text between the first brace and the next closing one."""
    found = key[key.index(b"{") + 1 : key.index(b"}")]
    assert found
    return found


@given(HOSTILE, HOSTILE, HOSTILE)
def test_no_key_is_one_of_a_cache_or_of_another_root(root: str, other: str, name: str):
    key = KeyFactory(root).user("t", "u")

    assert not key.startswith(physical_key(root, "n", "k")[: -len("n:k")])
    assert physical_key(other, name, name) != key
    assert (KeyFactory(other).parse(key) is None) is (root != other)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "tenant is empty"),
        (None, "tenant must be a str, not NoneType"),
        (7, "tenant must be a str, not int: 7"),
        (b"x", "tenant must be a str, not bytes"),
        ("\ud800", "tenant holds a lone surrogate at position 0"),
        ("x" * 2049, "tenant has 2049 bytes in UTF-8, at most 2048"),
    ],
)
def test_a_component_that_cannot_be_used_is_named(value: Any, message: str):
    with pytest.raises(RecordValueError, match=message):
        KEYS.user(value, "u")


@pytest.mark.parametrize("key", [b"", b"agent_service:x", b"agent_service%tenant:{a}", b"agent_service%tenant:a:b:c"])
def test_what_is_no_key_of_a_tenant_is_not_parsed(key: bytes):
    assert KEYS.parse(key) is None
