"""Values that were chosen to have the same hash: a set or dict of n of them costs n * n comparisons to make.

Only the hashes of str and bytes are salted. Whoever may write stored bytes knows those of numbers, UUIDs, addresses and
tuples, so they are counted before a set or dict is made of what was stored, and before it is stored.
"""

from collections.abc import Collection, Hashable
from itertools import islice
from operator import eq
from typing import Final

__all__ = ["MOST_ALIKE", "too_many_alike"]

MOST_ALIKE: Final = 16
"""Hashes in one set or dict that may be there a second time. By chance nearly none is: those of -1 and -2 are equal."""
_SALTED: Final = frozenset({str, bytes})


def too_many_alike(values: Collection[Hashable]) -> bool:
    """Whether more of these values share a hash with another one than chance explains. Costs n * log(n)."""
    if len(values) <= MOST_ALIKE or _SALTED.issuperset(map(type, values)):
        return False
    hashes = sorted(map(hash, values))  # in place of a dict, which could be made slow in the same way
    return list(map(eq, hashes, islice(hashes, 1, None))).count(True) > MOST_ALIKE
