"""Values that are costly to make: refused where they are stored, and not made of what others stored."""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.codec import decode, encode
from agent_service.core.errors import CacheSerializationError, UndecodableError
from agent_service.core.values.alike import _forgotten

P = 2**61 - 1
"""Integers that differ by it have the same hash."""


def decoded(value: Any) -> Any:
    return decode(*encode(value))


@pytest.mark.parametrize(
    "value",
    [
        {n * P for n in range(100)},
        {float(n): UUID(int=n) for n in range(5)} | {n * P + 7: n for n in range(100)},
        frozenset(UUID(int=n * P) for n in range(100)),
        {(n * P, 1) for n in range(100)},
        Fraction(10**5000, 3),
        re.compile("[\u0000-\U0010ffff]", re.IGNORECASE),
        re.compile("(?i:[\u0100-\uffff])"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_read_back_in_time_is_refused(value: Any):
    with pytest.raises(CacheSerializationError, match="store"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [
        {-1, -2, 0, P, 2 * P, 0.5, 2**64},
        set(range(5000)),
        {n << 40 for n in range(5000)},
        {n / 7: str(n) for n in range(5000)},
        {(n, str(n)) for n in range(1000)},
        {f"{n}" for n in range(1000)},
        Fraction(-22, 7),
        re.compile("[а-яё]+-[a-z0-9]", re.IGNORECASE),
        re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-\w{4}-(?P<rest>[0-9a-f-]+)$", re.IGNORECASE),
        re.compile("[\u0000-\U0010ffff]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_only_large_or_unusual_comes_back(value: Any):
    assert decoded(value) == value


COSTLY: dict[str, Callable[[int], Any]] = {
    "integers": lambda n: {"$set": [{"$int": f"{each * P:x}"} for each in range(n)]},
    "UUIDs": lambda n: {"$frozenset": [{"$uuid": f"{each * P:032x}"} for each in range(n)]},
    "tuples": lambda n: {"$set": [{"$tuple": [{"$int": f"{each * P:x}"}, 1]} for each in range(n)]},
    "fractions": lambda n: {"$set": [{"$fraction": f"{each * P}"} for each in range(n)]},
    "fractions of one hash": lambda n: {"$set": [{"$fraction": f"{each}/{P - each}"} for each in range(1, n)]},
    "fractions in tuples": lambda n: {"$set": [{"$tuple": [{"$fraction": f"{each * P}"}, 1]} for each in range(n)]},
    "keys": lambda n: {"$dict": [part for each in range(n) for part in ({"$int": f"{each * P:x}"}, 1)]},
    "classes": lambda n: {"$whole": [[[f"c{each}", "s"] for each in range(n)], 1]},
}


@pytest.mark.parametrize("kind", COSTLY)
def test_the_cost_of_reading_grows_with_the_size_alone(kind: str):
    def cost(number: int) -> float:
        payload = json.dumps(COSTLY[kind](number)).encode()
        durations = []
        for _ in range(4):
            started = time.thread_time()
            with suppress(UndecodableError):
                decode(payload, tagged=True)
            durations.append(time.thread_time() - started)
        return min(durations)

    assert cost(8000) < 50 * cost(1000)  # where n * n would be 64, and much more for objects that Python compares


@given(
    st.lists(st.one_of(st.integers(), st.fractions(), st.just(Fraction(P - 1, P)), st.text(), st.just(Fraction(-P, 3))))
)
def test_hashes_are_those_of_python(values: list[Any]):
    for value in (*values, tuple(values), (tuple(values), frozenset(values))):
        assert hash(_forgotten(value)) == hash(value)


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "0.1", "1_0", " 1", "1/-3", ""])
def test_a_fraction_is_made_of_two_integers_only(text: str):
    with pytest.raises(UndecodableError):
        decode(json.dumps({"$fraction": text}).encode(), tagged=True)


def test_keys_whose_different_hashes_meet_each_other_are_found_out():
    """The keys in the file probe, one after the other, nearly all slots that the chain before them holds."""
    chain, slot = [], 1
    for _ in range(19_000):
        chain.append(slot)
        slot = (5 * slot + 1) % 2**15
    keys = [int(each, 16) for each in Path(__file__).with_name("meeting_keys.txt").read_text().split()]

    def stored(keys: list[int]) -> bytes:
        return json.dumps({"$dict": [part for key in keys for part in (key, 1)]}).encode()

    assert decode(stored(chain), tagged=True) == dict.fromkeys(chain, 1)
    assert decode(stored(keys), tagged=True) == dict.fromkeys(keys, 1)
    payload = stored([*chain, *keys])
    started = time.thread_time()
    found_out = False
    try:
        decode(payload, tagged=True)
    except UndecodableError as exc:
        found_out = "meet each other" in str(exc)
    assert found_out or time.thread_time() - started < 0.2  # a machine on which it costs little
