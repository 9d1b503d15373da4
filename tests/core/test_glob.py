"""Globs: the same answer as a real Redis, in bounded time."""

import time

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_service.core import glob
from agent_service.core.errors import CacheKeyError
from agent_service.core.glob import compile_glob
from agent_service.core.keys import glob_escape

TABLE = [
    ("users:*", ["users:", "users:1", "users:a:b"], ["user:1", "xusers:1"]),
    ("*", ["a", "*"], []),
    ("a*", ["a", "ab"], ["ba"]),
    ("*a", ["a", "ba"], ["ab"]),
    ("a**b", ["ab", "axb"], ["a", "abc"]),
    ("*a*b*", ["ab", "xaxbx"], ["ba"]),
    ("?", ["a", "*"], ["aa", "é"]),
    ("??", ["é"], ["a"]),
    ("h[ae]llo", ["hello", "hallo"], ["hillo", "h[ae]llo"]),
    ("h[^e]llo", ["hallo"], ["hello"]),
    ("h[!e]llo", ["hello", "h!llo"], ["hallo"]),
    ("h[a-c]llo", ["hbllo"], ["hdllo", "h-llo"]),
    ("h[c-a]llo", ["hbllo"], ["hdllo"]),
    ("[a-]", ["]", "a", "^", "_"], ["b", "-"]),
    ("[-a]", ["-", "a"], ["b"]),
    ("[a\\-c]", ["a", "-", "c"], ["b"]),
    ("[\\a-c]", ["a", "-", "c"], ["b"]),
    ("[\\]]", ["]"], ["\\"]),
    ("[]]", [], ["]", "]]"]),
    ("[^]", ["a", "^"], ["ab"]),
    ("[]", [], ["a", "[]"]),
    ("[", [], ["["]),
    ("a[", [], ["a", "a["]),
    ("[^", ["a"], ["aa"]),
    ("[ab", ["a", "b"], ["[ab", "c"]),
    ("[a-", ["a", "-"], ["b"]),
    ("[a\\", ["a", "\\"], ["b"]),
    ("\\*", ["*"], ["a", "\\*"]),
    ("\\a", ["a"], ["\\a"]),
    ("a\\", ["a\\"], ["a"]),
    ("\\[a]", ["[a]"], ["a"]),
    ("^a-", ["^a-"], ["a"]),
    ("[é]", [], ["é", "e"]),
    ("[é][é]", ["é"], ["e"]),
    ("a\nb*", ["a\nb", "a\nb\n"], ["ab"]),
    ("a{1,2}.+$|()", ["a{1,2}.+$|()"], ["aa"]),
]


@pytest.fixture
def keys_in_redis(redis_url):
    """Ask a real Redis which of some keys match."""
    client = redis.Redis.from_url(redis_url)

    def matching(pattern, keys):
        client.flushdb()
        client.mset(dict.fromkeys(keys, b""))
        return set(client.keys(pattern.encode()))

    yield matching
    client.close()


@pytest.mark.parametrize(("pattern", "matching", "others"), TABLE)
def test_a_pattern_matches_just_what_it_should(pattern, matching, others):
    matches = compile_glob(pattern)

    assert [key for key in matching + others if matches(key.encode())] == matching


@pytest.mark.parametrize(("pattern", "matching", "others"), TABLE)
def test_a_real_redis_agrees_with_the_table(keys_in_redis, pattern, matching, others):
    assert keys_in_redis(pattern, matching + others) == {key.encode() for key in matching}


short = st.text("ab-]", min_size=1, max_size=5) | st.text("a*?[]^-\\é\x00\n", min_size=1, max_size=6)
patterns = st.text("ab*?[]^-\\é\x00\n", min_size=1, max_size=10) | st.lists(
    st.sampled_from(["*", "?", "a", "b", "\\", "[", "]", "[^", "a-é", "é-a", "a-b", "-", "[]", "\\]", "x"]), min_size=1
).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(patterns, st.sets(short, min_size=1, max_size=12))
def test_a_real_redis_agrees_on_any_pattern(keys_in_redis, pattern, keys):
    encoded = {key.encode() for key in keys}
    expected = keys_in_redis(pattern, encoded)
    parsed = glob.parse_glob(pattern)

    assert {key for key in encoded if compile_glob(pattern)(key)} == expected
    assert {key for key in encoded if glob._by_masks(parsed)(key)} == expected
    assert {key for key in encoded if glob._by_expression(parsed)(key)} == expected
    assert all(key.startswith(parsed.prefix) for key in expected)


@pytest.mark.parametrize(("pattern", "matching", "others"), TABLE)
def test_a_long_pattern_matches_just_what_a_short_one_does(pattern, matching, others):
    start = "[a]?" + "a" * glob.LONGEST_EXPRESSION
    begins = "aa" + "a" * glob.LONGEST_EXPRESSION
    matches = compile_glob(start + pattern)
    either_way = glob._by_masks(glob.parse_glob(pattern))

    assert [key for key in matching + others if matches((begins + key).encode())] == matching
    assert [key for key in matching + others if either_way(key.encode())] == matching


@given(st.text(min_size=1), st.text(min_size=1))
def test_an_escaped_text_matches_only_itself(text, other):
    matches = compile_glob(glob_escape(text))

    assert matches(text.encode())
    assert matches(other.encode()) == (other == text)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("*a" * 40 + "b", "a" * 8000),
        ("*a*" * 40 + "b", "a" * 8000),
        ("*?" * 40 + "b", "a" * 8000),
        ("*[ab]" * 40 + "c", "ab" * 4000),
        ("*" * 8000 + "b", "a" * 8000),
        ("*" + "a" * 90 + "b*" + "a" * 90 + "c", "a" * 8000),
        ("*a" * 4000 + "b", "a" * 8100),
        ("*a*" * 2700 + "b", "a" * 8100),
        ("*?" * 4000 + "b", "a" * 8100),
        ("*" + "a" * 4000 + "b", "a" * 8100),
        ("?*a" * 2600 + "b", "a" * 8100),
        ("[a]*" + "a" * 4000 + "b", "a" * 8100),
        ("*[ab]" * 1600 + "c", "ab" * 4000),
        ("?" * 8100, "a" * 8099),
        ("[" * 8192, "[" * 8192),
        ("\\" * 8192, "a" * 8192),
    ],
)
def test_hostile_patterns_take_no_longer_than_the_product_of_the_lengths(pattern, key):
    matches = compile_glob(pattern)
    started = time.process_time()

    assert matches(key.encode()) is False
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "pattern",
    [
        "[^a]" * 2048,
        "[aceg]" * 1365,
        "[a-é]" * 1365,
        "[" + "a-é" * 2000 + "]",
        "[" + "aceg" * 2000 + "]",
        "?" * 8192,
        "*a" * 4096,
        "\\*" * 4096,
        "[" * 8192,
        "a" * 8191 + "*",
        "[^a]" * 60 + "*",
    ],
)
def test_no_pattern_takes_long_to_compile(pattern):
    started = time.process_time()
    compile_glob(pattern)

    assert time.process_time() - started < 0.3


def test_long_patterns_are_not_remembered():
    patterns = [f"{n}" + "[^a]" * 2000 for n in range(20)]
    for pattern in patterns:
        compile_glob(pattern)

    assert compile_glob(patterns[-1]) is not compile_glob(patterns[-1])


@pytest.mark.parametrize("pattern", ["", None, b"a*", "\ud800*", "a" * 9000])
def test_an_unusable_pattern_is_refused(pattern):
    with pytest.raises(CacheKeyError, match="pattern"):
        compile_glob(pattern)


def test_a_compiled_pattern_is_kept():
    assert compile_glob("kept:*") is compile_glob("kept:*")
