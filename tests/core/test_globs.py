"""Many globs at once: the same answers as one by one, at a cost that their number does not raise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.errors import CacheKeyError
from agent_service.core.glob import compile_glob
from agent_service.core.globs import MOST_BYTES, MOST_PATTERNS, MOST_TESTS, compile_globs
from tests.core.test_glob import TABLE, patterns, short

long_words = st.lists(st.sampled_from(["a", "abcd", "bcda", "x", "*", "?"]), min_size=1, max_size=5).map("".join)
words = st.lists(st.sampled_from(["a", "ab", "abc", "b", "x", "*", "?", "[ab]", "\\*", ":"]), min_size=1).map("".join)


@given(st.lists(words | patterns, min_size=1, max_size=12), st.lists(short | words, min_size=1, max_size=12))
def test_a_key_matches_all_together_when_it_matches_one(globs, keys):
    together = compile_globs(globs)
    assert together is not None
    singly = [compile_glob(each) for each in globs]

    for key in (each.encode() for each in keys):
        assert together.matches(key) == any(matches(key) for matches in singly)
        assert not together.matches(key) or key.startswith(together.prefix)


@given(st.lists(long_words, min_size=10, max_size=60), st.lists(st.text("abcdx", min_size=1), min_size=1, max_size=12))
def test_many_patterns_alike_are_told_apart(globs, keys):
    alike = [f"*{each}*x" for each in globs]
    together = compile_globs(alike)
    singly = [compile_glob(each) for each in alike]

    for key in (f"{each}x".encode() for each in keys):
        assert together is None or together.matches(key) == any(matches(key) for matches in singly)


@pytest.mark.parametrize(("pattern", "matching", "others"), TABLE)
def test_a_pattern_among_others_matches_just_what_it_should(pattern, matching, others):
    together = compile_globs([pattern, "never:*", "never:[x]"])

    assert together is not None
    assert [key for key in matching + others if together.matches(key.encode())] == matching


@pytest.mark.parametrize(
    ("globs", "prefix"),
    [
        (["users:*", "users:1:*"], b"users:"),
        (["user:1:*", "user:2"], b"user:"),
        (["a*", "b*"], b""),
        (["abc", "abd"], b"ab"),
        (["ab?", "a\\bc*"], b"ab"),
        (["*"], b""),
        (["same:*", "same:*"], b"same:"),
    ],
)
def test_what_all_matching_keys_begin_with_is_known(globs, prefix):
    together = compile_globs(globs)

    assert together is not None
    assert together.prefix == prefix


@pytest.mark.parametrize(
    "globs",
    [
        [f"user:{n}:*" for n in range(MOST_PATTERNS)],
        [f"*:{n}" for n in range(MOST_PATTERNS)],
        [f"user:*:{n}" for n in range(MOST_PATTERNS)],
        [f"user:{n}:*:[ab]" for n in range(MOST_PATTERNS)],
        [f"user:{n}" for n in range(MOST_PATTERNS)],
        [f"user:*:{n}:*" for n in range(MOST_PATTERNS)],
        [f"*:{n}?:*" for n in range(1000, MOST_PATTERNS)],
        [f"*{n}*" for n in range(1000, MOST_PATTERNS)],
        ["*", *(f"*{n}*" for n in range(MOST_PATTERNS - 1))],
        ["a" * n + "*" for n in range(1, 1000)],
    ],
)
def test_thousands_of_patterns_cost_a_key_a_few_comparisons(globs):
    together = compile_globs(globs)

    assert together is not None
    assert together.matches(globs[-1].replace("*", "x").replace("?", "x").replace("[ab]", "a").encode())


@pytest.mark.parametrize(
    "globs",
    [
        [f"user:{n}:*" for n in range(MOST_PATTERNS + 1)],
        [f"*{n}*" for n in range(MOST_TESTS + 1)],
        ["a" * n + "*x" for n in range(1, MOST_TESTS + 1)],
        [f"{n}" + "a" * 8000 for n in range(MOST_BYTES // 8000 + 1)],
    ],
)
def test_what_would_take_too_long_is_not_matched_together(globs):
    assert compile_globs(globs) is None


@pytest.mark.parametrize("pattern", ["", None, "\ud800*", "a" * 9000])
def test_an_unusable_pattern_is_refused(pattern):
    with pytest.raises(CacheKeyError, match="pattern"):
        compile_globs([pattern])
