"""Protection against hash flooding: n values that were chosen to collide cost n * n comparisons in a set or dict.

Python salts only the hashes of str and bytes. Whoever can write stored bytes knows the hashes of numbers, UUIDs,
addresses and tuples. So equal hashes are counted before a set or dict is built from stored data, and before such data
is stored. Unequal hashes can also be chosen so that they collide in the table; that shows in the processor time that
building takes, which is therefore limited.
"""

import sys
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from fractions import Fraction
from itertools import islice
from operator import eq
from time import thread_time
from typing import Any, Final

__all__ = ["MOST_ALIKE", "dict_of", "set_of", "too_many_alike"]

MOST_ALIKE: Final = 16
"""Hashes that may occur twice in one set or dict. By chance almost none does; those of -1 and -2 do."""
_AT_ONCE: Final = 64
"""Values that are added before the clock is read; so few are cheap whatever they are."""
_START: Final = 0.01
_EACH: Final = 2e-6
"""Seconds of processor time, in total and for each value, beside hashing: several times what is usual."""
_SALTED: Final = frozenset({str, bytes})


def too_many_alike(values: Collection[Hashable]) -> bool:
    """Return whether more values share a hash than chance explains. Costs n * log(n)."""
    if len(values) <= MOST_ALIKE or _SALTED.issuperset(map(type, values)):
        return False
    hashes = sorted(map(hash, map(_forgotten, values)))  # in place of a dict, which could be made slow in the same way
    return list(map(eq, hashes, islice(hashes, 1, None))).count(True) > MOST_ALIKE


class _Hashed:
    """Stands for a value of this hash."""

    __slots__ = ("_hash",)

    def __init__(self, value: int) -> None:
        self._hash = value

    def __hash__(self) -> int:
        return self._hash


def _forgotten(value: Hashable) -> Hashable:
    """Return a value of the same hash, which Python does not remember.

    From 3.12 on, it remembers the hashes of fractions in a dict, where fractions of one hash meet each other: to ask
    for the hashes of n of them would cost n * n comparisons. See "Hashing of numeric types" in Python's reference.
    """
    if isinstance(value, Fraction):
        modulus = sys.hash_info.modulus
        if value.denominator % modulus == 0:
            magnitude = sys.hash_info.inf
        else:
            magnitude = hash(hash(abs(value.numerator)) * pow(value.denominator, -1, modulus))
        return _Hashed(magnitude if value.numerator >= 0 else -magnitude)
    if type(value) is tuple:
        return tuple(map(_forgotten, value))
    return frozenset(map(_forgotten, value)) if type(value) is frozenset else value


def dict_of(keys: Sequence[Hashable], values: Sequence[Any]) -> dict[Any, Any]:
    """Return the dict of these keys and values.

    :raises ValueError: if there are more keys than values or the reverse, or if the keys were chosen to collide.
    """
    if len(keys) != len(values):
        raise ValueError("as many keys as values are expected")
    made: dict[Any, Any] = {}
    _put(keys, lambda start, end: made.update(zip(keys[start:end], values[start:end], strict=True)))
    return made


def set_of(values: Sequence[Hashable]) -> set[Any]:
    """Return the set of these values.

    :raises ValueError: if they were chosen to collide.
    """
    made: set[Any] = set()
    _put(values, lambda start, end: made.update(values[start:end]))
    return made


def _put(keys: Sequence[Hashable], put: Callable[[int, int], None]) -> None:
    """Add keys to the set or dict that is being built, a few at a time.

    :param put: adds those between two positions.
    """
    if too_many_alike(keys):
        raise ValueError("many elements or keys have the same hash")
    if len(keys) <= _AT_ONCE or _SALTED.issuperset(map(type, keys)):
        put(0, len(keys))
        return
    hashing = putting = 0.0
    for start in range(0, len(keys), _AT_ONCE):
        end = start + _AT_ONCE
        began = thread_time()
        deque(map(hash, keys[start:end]), maxlen=0)
        hashed = thread_time()
        put(start, end)
        hashing += hashed - began
        putting += thread_time() - hashed
        if putting > _START + 3 * hashing + _EACH * end:
            raise ValueError("many elements or keys meet each other in a table of hashes")
