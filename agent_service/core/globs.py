"""Many globs matched together, so that one pass over the keys serves all of them.

The literal beginnings of the patterns form a tree. A binary search finds those that a key begins with; of the patterns
below them only those are tried whose literal end is the key's end too; and where these are many, only those of which
a few bytes in the middle are in the key. So most patterns cost a key nothing. How many cannot be told apart so is known
beforehand: past :data:`MOST_TESTS` there is no matching them together.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable
from typing import Final

from agent_service.core.glob import Glob, Matches, compile_glob, literal, matcher, parse_glob

__all__ = ["MOST_BYTES", "MOST_PATTERNS", "MOST_TESTS", "Globs", "compile_globs"]

MOST_PATTERNS: Final = 10_000
"""Most patterns that are matched together."""
MOST_BYTES: Final = 1 << 20
"""Most characters that they may have together."""
MOST_TESTS: Final = 64
"""Most patterns, and places of the index, that one key may have to be compared with."""
_FEW: Final = 8
"""Patterns of one beginning and end that are tried one by one: looking for what is in their middle costs as much."""
_PART: Final = 4
"""Bytes that are looked for in the middle of a key."""


class Globs:
    """Several patterns that a cache can use as keys."""

    def __init__(self, patterns: Collection[str], matches: Matches, prefix: bytes) -> None:
        self.patterns = patterns
        self.matches = matches
        """Whether a key matches one of them."""
        self.prefix = prefix
        """What every key begins with that matches."""


def compile_globs(patterns: Iterable[str]) -> Globs | None:
    """Return the patterns as one; None: they are too many, or too much alike, to be matched in a bounded time.

    :raises CacheKeyError: for a pattern that could be no key.
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
    """A pattern whose literal beginning and end fit; compiled when the first key comes as far."""

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
        """Return what a key must have in its middle, each some bytes of it."""
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
        """Tell the patterns apart if they are many; return how many comparisons a key may need."""
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
        """By the length of the literal end, and then by the end."""

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
        """Make the tree; return how many comparisons a key needs at most."""
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
        # The longest beginning of the key that is in the tree is this one or stands above it.
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
