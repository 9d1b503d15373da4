"""Many globs matched together, so that one pass over the keys serves all of them.

The literal beginnings of the patterns form a tree. A binary search finds those that a key begins with; of the patterns
below them only those are tried whose literal end is the key's end too. So most patterns cost a key nothing. What a key
can cost at most is known beforehand: past :data:`MOST_TESTS` patterns that one key would have to be compared with there
is no matching them together.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable
from typing import Final

from agent_service.core.glob import Glob, Matches, compile_glob, parse_glob

__all__ = ["MOST_BYTES", "MOST_PATTERNS", "MOST_TESTS", "Globs", "compile_globs"]

MOST_PATTERNS: Final = 10_000
"""Most patterns that are matched together."""
MOST_BYTES: Final = 1 << 20
"""Most characters that they may have together."""
MOST_TESTS: Final = 64
"""Most patterns, and places of the index, that one key may have to be compared with."""


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

    __slots__ = ("_least", "_matches", "_pattern")

    def __init__(self, pattern: str, glob: Glob, end: bytes) -> None:
        self._pattern = pattern
        self._matches: Matches | None = None
        self._least = len(glob.atoms)
        if len(glob.prefix) + len(end) == self._least and glob.stars:
            self._matches = bool  # nothing but stars stands between beginning and end

    def __call__(self, key: bytes) -> bool:
        if len(key) < self._least:
            return False
        if self._matches is None:
            self._matches = compile_glob(self._pattern)
        return self._matches(key)


class _Node:
    """The patterns with one literal beginning."""

    __slots__ = ("by_end", "everything", "parent", "prefix")

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.parent: _Node | None = None
        self.everything = False
        """Whether all keys with this beginning match."""
        self.by_end: dict[int, dict[bytes, list[_Test]]] = {}
        """By the length of the literal end, and then by the end."""

    @property
    def tests(self) -> int:
        """How many comparisons a key needs here at most."""
        return 1 + sum(1 + max(map(len, each.values())) for each in self.by_end.values())

    def matches(self, key: bytes) -> bool:
        for length, by_end in self.by_end.items():
            tests = by_end.get(key[len(key) - length :]) if length <= len(key) else None
            if tests is not None and any(test(key) for test in tests):
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
        node.by_end.setdefault(len(end), {}).setdefault(end, []).append(_Test(pattern, glob, end))

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
            above.append((node, tests + node.tests))
            most = max(most, tests + node.tests)
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
    return bytes(each.bit_length() - 1 for each in glob.atoms[start:])


def _common(first: bytes, last: bytes) -> bytes:
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]
