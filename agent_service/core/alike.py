"""Values that were chosen to have the same hash: a set or dict of n of them costs n * n comparisons to make.

Only the hashes of str and bytes are salted. Whoever may write stored bytes knows those of numbers, UUIDs, addresses and
tuples, so they are counted before a set or dict is made of what was stored, and before it is stored. Different hashes
can be chosen as well so that each meets all the others; that is found out by the processor time that it takes.
"""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Sequence
from itertools import islice
from operator import eq
from time import thread_time
from typing import Any, Final

__all__ = ["MOST_ALIKE", "dict_of", "set_of", "too_many_alike"]

MOST_ALIKE: Final = 16
"""Hashes in one set or dict that may be there a second time. By chance nearly none is: those of -1 and -2 are equal."""
_AT_ONCE: Final = 64
"""Values that are put in before the clock is looked at; as few cost nothing that matters, whatever they are."""
_START: Final = 0.01
_EACH: Final = 2e-6
"""Seconds of processor time that all, and each of them, may take beside hashing: several times what is usual."""
_SALTED: Final = frozenset({str, bytes})


def too_many_alike(values: Collection[Hashable]) -> bool:
    """Whether more of these values share a hash with another one than chance explains. Costs n * log(n)."""
    if len(values) <= MOST_ALIKE or _SALTED.issuperset(map(type, values)):
        return False
    hashes = sorted(map(hash, values))  # in place of a dict, which could be made slow in the same way
    return list(map(eq, hashes, islice(hashes, 1, None))).count(True) > MOST_ALIKE


def dict_of(keys: Sequence[Hashable], values: Sequence[Any]) -> dict[Any, Any]:
    """Return the dict of these keys and values.

    :raises ValueError: when there are more of one than of the other, and when the keys were chosen to be costly.
    """
    if len(keys) != len(values):
        raise ValueError("as many keys as values are expected")
    made: dict[Any, Any] = {}
    _put(keys, lambda start, end: made.update(zip(keys[start:end], values[start:end], strict=True)))
    return made


def set_of(values: Sequence[Hashable]) -> set[Any]:
    """Return the set of these values.

    :raises ValueError: when they were chosen to be costly.
    """
    made: set[Any] = set()
    _put(values, lambda start, end: made.update(values[start:end]))
    return made


def _put(keys: Sequence[Hashable], put: Callable[[int, int], None]) -> None:
    """Put keys into what is being made, a few at a time.

    :param put: puts in those from one position to another.
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
