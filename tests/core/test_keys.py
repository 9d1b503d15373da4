"""Physical names of keys: injective, validated, and out of reach of patterns where they should be."""

import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core import keys
from agent_service.core.errors import CacheKeyError
from tests.keys import physical_key

component = st.text(min_size=1, max_size=12) | st.text("a%:3A*?[]\\", min_size=1, max_size=6)
kind = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize("key", ["a", "users:get_user:123", "ü", "\x00", " ", "x" * keys.MAX_KEY_BYTES, "é" * 4096])
def test_a_usable_key_is_given_back_unchanged(key):
    assert keys.check_key(key) == key


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (1, "key must be a str, not int: 1"),
        (None, "key must be a str, not NoneType"),
        (b"x", "decode it first"),
        ("", "key is empty"),
        ("a\ud800", "lone surrogate at position 1"),
        ("x" * (keys.MAX_KEY_BYTES + 1), "at most 8192"),
        ("é" * 4097, "has 8194 bytes"),
    ],
)
def test_an_unusable_key_is_refused_with_what_was_given_and_a_remedy(key, said):
    with pytest.raises(CacheKeyError, match=said) as caught:
        keys.check_key(key)

    assert len(str(caught.value)) < 300


def test_the_error_names_the_argument():
    with pytest.raises(CacheKeyError, match=r"^pattern is empty"):
        keys.check_key("", name="pattern")


def test_a_str_enum_member_becomes_the_plain_string_it_stands_for():
    class Plan(enum.StrEnum):
        FREE = "free"

    key = keys.check_key(Plan.FREE)

    assert (key, type(key)) == ("free", str)


@pytest.mark.parametrize("namespace", ["", "default"])
def test_the_empty_namespace_and_default_are_the_same(namespace):
    assert keys.normalise_namespace(namespace) == "default"


@pytest.mark.parametrize("namespace", [None, 0, False, b"", "\udfff", "x" * 9000])
def test_an_unusable_namespace_is_refused(namespace):
    with pytest.raises(CacheKeyError, match=r"^namespace"):
        keys.normalise_namespace(namespace)


def test_a_physical_key_reads_like_its_parts():
    assert physical_key("agent_service", "users", "user:123") == b"agent_service:users:user:123"
    assert physical_key("agent_service", "", "k") == b"agent_service:default:k"
    assert physical_key("a:b", "50%", "k:%") == b"a%3Ab:50%25:k:%"


@given(st.tuples(component, component, component), st.tuples(component, component, component))
def test_different_names_never_share_a_physical_key(one, other):
    assert (physical_key(*one) == physical_key(*other)) == (one == other)


@given(component, component, component)
def test_a_physical_key_gives_its_logical_key_back(prefix, namespace, key):
    physical = physical_key(prefix, namespace, key)

    assert keys.logical_key(physical, keys.key_prefix(prefix, namespace)) == key
    assert keys.logical_key(physical, keys.root_prefix(prefix)) == f"{keys.escape_component(namespace)}:{key}"


@given(st.tuples(component, component), st.tuples(component, component))
def test_no_prefix_of_one_namespace_begins_a_key_of_another(one, other):
    if one != other:
        assert not keys.key_prefix(*one).startswith(keys.key_prefix(*other))


def test_keys_of_others_have_no_logical_key():
    prefix = keys.key_prefix("p", "n")

    assert keys.logical_key(b"p:nn:k", prefix) is None
    assert keys.logical_key(b"p:n:\xff", prefix) is None


@given(component, kind, st.text(), component, component)
def test_bookkeeping_lies_below_its_own_prefix_and_in_no_namespace(prefix, kind, name, other_prefix, namespace):
    key = keys.internal_key(prefix, kind, name)

    assert key.startswith(keys.root_prefix(other_prefix)) == (prefix == other_prefix)
    assert not key.startswith(keys.key_prefix(prefix, namespace))
    assert keys.is_internal(keys.logical_key(key, keys.root_prefix(prefix)) or "")


@given(component, component, st.text(min_size=1))
def test_no_entry_is_taken_for_bookkeeping(prefix, namespace, key):
    entry = keys.key_prefix(prefix, namespace) + key.encode("utf-8", "replace")

    assert not keys.is_internal(keys.logical_key(entry, keys.root_prefix(prefix)) or "")


@given(component, kind, st.text(), component)
def test_bookkeeping_of_earlier_releases_lies_outside_every_prefix(prefix, kind, name, other_prefix):
    assert not keys.former_internal_key(prefix, kind, name).startswith(keys.root_prefix(other_prefix))


@given(st.tuples(component, kind, st.text()), st.tuples(component, kind, st.text()))
def test_different_bookkeeping_never_shares_a_name(one, other):
    assert (keys.internal_key(*one) == keys.internal_key(*other)) == (one == other)


@pytest.mark.parametrize("kind", ["", "3a", "a:b", "A", "a%"])
def test_a_kind_that_could_read_as_an_escape_is_refused(kind):
    with pytest.raises(CacheKeyError, match="kind must be"):
        keys.internal_key("p", kind, "name")


@given(component, component)
def test_rendered_values_stay_distinct_and_hold_no_separator_or_wildcard(one, other):
    rendered = keys.escape_rendered(one)

    assert not set(rendered) & set(":*?[]\\")
    assert (rendered == keys.escape_rendered(other)) == (one == other)


def test_a_rendered_uuid_reads_as_it_is_written():
    text = "018f3b1c-7a52-7c1e-9f2d-0123456789ab"

    assert keys.escape_rendered(text) == text


@given(component)
def test_the_glob_of_a_rendered_value_keeps_its_key_readable_to_the_same_template(text):
    rendered = keys.escape_rendered(text)

    assert keys.glob_escape(rendered).replace("\\", "") == rendered
