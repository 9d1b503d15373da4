"""Many globs matched together, so that one pass over the keys serves all of them.

The literal beginnings of the patterns form a tree. A binary search finds the beginnings that a key has. Of the patterns
below them only those are tried whose literal end the key has too; and if these are many, only those with a few bytes
in the middle that the key has as well. So most patterns cost nothing for a key. How many patterns a key may have to be
compared with is known beforehand; above :data:`MOST_TESTS` the patterns are not matched together.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable
from typing import Final

from agent_service.core.glob import Glob, Matches, compile_glob, literal, matcher, parse_glob

__all__ = ["MOST_BYTES", "MOST_PATTERNS", "MOST_TESTS", "Globs", "compile_globs"]

MOST_PATTERNS: Final = 10_000
"""The most patterns that are matched together."""
MOST_BYTES: Final = 1 << 20
"""The most characters that they may have in total."""
MOST_TESTS: Final = 64
"""The most patterns, and entries of the index, that one key may have to be compared with."""
_FEW: Final = 8
"""Patterns with one beginning and end that are tried one by one: an index of their middles would cost as much."""
_PART: Final = 4
"""Bytes of each text that is searched in the middle of a key."""


class Globs:
    """Several patterns that a cache can use as keys."""

    def __init__(self, patterns: Collection[str], matches: Matches, prefix: bytes) -> None:
        self.patterns = patterns
        self.matches = matches
        """Tells whether a key matches one of them."""
        self.prefix = prefix
        """The literal text that every matching key begins with."""


def compile_globs(patterns: Iterable[str]) -> Globs | None:
    """Return the patterns as one; None if they are too many, or too similar, to be matched in a bounded time.

    :raises CacheKeyError: if a pattern could not be a key.
    """
    distinct = tuple(dict.fromkeys(patterns))
    if len(distinct) == 1:
        return Globs(distinct, compile_glob(distinct[0]), parse_glob(distinct[0]).prefix)
    if len(distinct) > MOST_PATTERNS or sum(map(len, distinct)) > MOST_BYTES:
        return None
    index = _Index()
    for pattern in distinct:
        index.add(pattern)
    if index.link() > MOST_TESTS:
        return None
    return Globs(distinct, index.matches, index.common_prefix)


class _Test:
    """A pattern, compiled when the first key has its literal beginning and end."""

    __slots__ = ("_end", "_glob", "_least", "_matches")

    def __init__(self, glob: Glob, end: bytes) -> None:
        self._glob = glob
        self._end = end
        self._matches: Matches | None = None
        self._least = len(glob.atoms)

    def __call__(self, key: bytes) -> bool:
        if len(key) < self._least:
            return False
        if self._matches is None:
            self._matches = matcher(self._glob)
        return self._matches(key)

    def parts(self) -> list[bytes]:
        """Return texts, a few bytes each, that a matching key must have in its middle."""
        atoms, stars = self._glob.atoms, self._glob.stars
        found: list[bytes] = []
        run = b""
        for place in range(len(self._glob.prefix), len(atoms) - len(self._end)):
            if place in stars:
                run = b""
            is_one = atoms[place].bit_count() == 1
            run = run[1 - _PART :] + literal(atoms[place : place + 1]) if is_one else b""
            if len(run) == _PART:
                found.append(run)
        return found


class _Bucket:
    """The patterns with one literal beginning and one literal end."""

    __slots__ = ("_by_part", "_singly")

    def __init__(self) -> None:
        self._singly: list[_Test] = []
        self._by_part: dict[bytes, list[_Test]] = {}

    def add(self, test: _Test) -> None:
        self._singly.append(test)

    def sort(self) -> int:
        """Index the patterns by their middles if they are many; return how many comparisons a key may need."""
        if len(self._singly) > _FEW:
            tests, self._singly = self._singly, []
            for test in tests:
                rarest = min(test.parts(), key=lambda part: len(self._by_part.get(part, ())), default=None)
                (self._singly if rarest is None else self._by_part.setdefault(rarest, [])).append(test)
        return len(self._singly) + max(map(len, self._by_part.values()), default=0)

    def matches(self, key: bytes) -> bool:
        if any(test(key) for test in self._singly):
            return True
        if self._by_part:
            for place in range(len(key) - _PART + 1):
                tests = self._by_part.get(key[place : place + _PART])
                if tests is not None and any(test(key) for test in tests):
                    return True
        return False


class _Node:
    """The patterns with one literal beginning."""

    __slots__ = ("by_end", "everything", "parent", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.parent: _Node | None = None
        self.everything = False
        """Whether all keys with this beginning match."""
        self.by_end: dict[int, dict[bytes, _Bucket]] = {}
        """By the length of the literal end, then by the end."""

    def sort(self) -> int:
        """Return how many comparisons a key may need here."""
        return 1 + sum(1 + max([bucket.sort() for bucket in each.values()]) for each in self.by_end.values())

    def matches(self, key: bytes) -> bool:
        for length, by_end in self.by_end.items():
            bucket = by_end.get(key[len(key) - length :]) if length <= len(key) else None
            if bucket is not None and bucket.matches(key):
                return True
        return self.everything


class _Index:
    def __init__(self) -> None:
        self._whole: set[bytes] = set()
        self._found: dict[bytes, _Node] = {}
        self._nodes: list[_Node] = []
        self._prefixes: list[bytes] = []
        self.common_prefix = b""

    def add(self, pattern: str) -> None:
        glob = parse_glob(pattern)
        prefix, length = glob.prefix, len(glob.atoms)
        if len(prefix) == length and not glob.stars:
            self._whole.add(prefix)
            return
        node = self._found.get(prefix)
        if node is None:
            node = self._found[prefix] = _Node(prefix)
        if len(prefix) == length:  # nothing but a star follows
            node.everything = True
            return
        end = _literal_end(glob)
        node.by_end.setdefault(len(end), {}).setdefault(end, _Bucket()).add(_Test(glob, end))

    def link(self) -> int:
        """Build the tree; return how many comparisons a key needs at most."""
        above: list[tuple[_Node, int]] = []
        most = 1
        for prefix in sorted(self._found):
            while above and not prefix.startswith(above[-1][0].prefix):
                above.pop()
            parent, tests = above[-1] if above else (None, 1)
            if parent is not None and parent.everything:
                continue
            node = self._found[prefix]
            node.parent = parent
            if node.everything:
                node.by_end.clear()
            tests += node.sort()
            above.append((node, tests))
            most = max(most, tests)
            self._nodes.append(node)
        self._found.clear()
        self._prefixes = [node.prefix for node in self._nodes]
        ends = sorted([*self._prefixes[:1], *self._prefixes[-1:], *self._outermost()])
        self.common_prefix = _common(ends[0], ends[-1])
        return most

    def _outermost(self) -> list[bytes]:
        return [min(self._whole), max(self._whole)] if self._whole else []

    def matches(self, key: bytes) -> bool:
        if key in self._whole:
            return True
        place = bisect_right(self._prefixes, key)
        # The longest beginning of the key that is in the tree is this one or one of its parents.
        node = self._nodes[place - 1] if place else None
        while node is not None and not key.startswith(node.prefix):
            node = node.parent
        while node is not None:
            if node.matches(key):
                return True
            node = node.parent
        return False


def _literal_end(glob: Glob) -> bytes:
    """Return the literal bytes after the last star and the last atom of several bytes."""
    start = len(glob.atoms)
    least = max(glob.stars, default=0)
    while start > least and glob.atoms[start - 1].bit_count() == 1:
        start -= 1
    return literal(glob.atoms[start:])


def _common(first: bytes, last: bytes) -> bytes:
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]
