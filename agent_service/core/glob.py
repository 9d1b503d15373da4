"""Redis globs, matched in this process exactly as Redis matches them.

``*`` is any bytes, ``?`` one byte, ``[abc]``, ``[a-z]`` and ``[^a]`` one byte of a set or outside it, and the backslash
takes the next character literally. As in Redis (``stringmatchlen`` of its ``util.c``) the unit is a byte of the UTF-8
form, a set that is not closed ends with the pattern, a range may run backwards, ``[a-]`` is the range up to ``]``
and not yet closed, and ranges compare bytes as signed numbers, as Redis does where a C ``char`` is signed (x86).

A pattern is parsed into atoms, each of which matches one byte. There are three ways to match. If only stars are special
in it, the texts between them are searched one after another. Other short patterns become regular expressions; compiling
one takes milliseconds per hundred bytes. So long patterns become bit masks instead: each position of the pattern is a
bit of one number, and each byte of the key moves all of them at once.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from agent_service.core.keys import check_key

__all__ = ["Glob", "Matches", "compile_glob", "literal", "matcher", "parse_glob"]

Matches = Callable[[bytes], bool]
"""Tells whether a key, as UTF-8 and not empty, matches."""

LONGEST_EXPRESSION: Final = 256
"""Most bytes of a pattern that becomes a regular expression, which takes about a millisecond, and is remembered."""

_ANY: Final = (1 << 256) - 1
"""The set of all bytes."""
_ONE: Final = tuple(1 << byte for byte in range(256))
"""For each byte, the set of only that byte."""

_SPECIAL = re.compile(rb"[*?\[\\]")


class Glob(NamedTuple):
    """A pattern, read once."""

    atoms: list[int]
    """For each byte of a matching key, the set of bytes that it may be, as a number of 256 bits."""
    stars: set[int]
    """The positions of stars: the atoms before which any bytes may stand; ``len(atoms)``: after the last."""
    prefix: bytes
    """The literal text that every matching key begins with."""
    size: int
    """The number of bytes of the pattern."""


@lru_cache(maxsize=512)
def _remembered(pattern: str) -> Matches:
    return matcher(parse_glob(pattern))


def compile_glob(pattern: str) -> Matches:
    """Return a function that tells whether a key, as UTF-8 and not empty, matches the pattern.

    Matching takes at most as many steps as the key has bytes times the pattern, whatever the pattern.

    :raises CacheKeyError: if the pattern could not be a key: empty, too long, no str, a lone surrogate.
    """
    if len(check_key(pattern, name="pattern").encode()) <= LONGEST_EXPRESSION:
        return _remembered(pattern)
    return matcher(parse_glob(pattern))


def matcher(glob: Glob) -> Matches:
    """Return :func:`compile_glob` for a pattern that was parsed."""
    if glob.stars and all(each.bit_count() == 1 for each in glob.atoms):
        return _by_texts(glob)
    return _by_expression(glob) if glob.size <= LONGEST_EXPRESSION else _by_masks(glob)


def parse_glob(pattern: str) -> Glob:
    """Return the atoms of a pattern that a cache can use as a key."""
    data = pattern.encode()
    atoms: list[int] = []
    stars: set[int] = set()
    prefix: bytes | None = None
    position = 0
    while (special := _SPECIAL.search(data, position)) is not None:
        atoms += [_ONE[byte] for byte in data[position : special.start()]]
        position = special.end()
        char = special[0]
        if char == b"\\":
            byte = data[position] if position < len(data) else ord("\\")
            atoms.append(_ONE[byte])
            position += 1
            continue
        if prefix is None:
            prefix = literal(atoms)
        if char == b"*":
            stars.add(len(atoms))
        elif char == b"?":
            atoms.append(_ANY)
        else:
            members, position = _set(data, position)
            atoms.append(members)
    atoms += [_ONE[byte] for byte in data[position:]]
    return Glob(atoms, stars, literal(atoms) if prefix is None else prefix, len(data))


def literal(atoms: Iterable[int]) -> bytes:
    """Return the text of atoms that match one byte each."""
    return bytes(each.bit_length() - 1 for each in atoms)


def _set(data: bytes, position: int) -> tuple[int, int]:
    """Read the set that begins after ``[``; return its bytes and the position after its ``]``."""
    negated = data[position : position + 1] == b"^"
    position += negated
    members = 0
    while position < len(data) and data[position] != ord("]"):
        if data[position] == ord("\\") and position + 1 < len(data):
            position += 1
            members |= 1 << data[position]
        elif data[position + 1 : position + 2] == b"-" and position + 2 < len(data):
            members |= _range(data[position], data[position + 2])
            position += 2
        else:
            members |= 1 << data[position]
        position += 1
    return members ^ _ANY if negated else members, position + 1


def _range(first: int, last: int) -> int:
    """Return the bytes between two, compared as signed numbers: those from 128 on come before 0."""
    low, high = sorted((first ^ 0x80, last ^ 0x80))
    run = ((1 << (high - low + 1)) - 1) << low
    return (run >> 128) | (run & ((1 << 128) - 1)) << 128


def _runs(members: int) -> Iterator[tuple[int, int]]:
    """Iterate over the first and last byte of each run of a set."""
    while members:
        first = (members & -members).bit_length() - 1
        gaps = ~(members >> first)
        end = first + (gaps & -gaps).bit_length() - 1
        yield first, end - 1
        members = members >> end << end


def _by_texts(glob: Glob) -> Matches:
    """Match by searching each text behind the one before it; the earliest place leaves most room for the rest."""
    cuts = sorted(glob.stars)
    first, last = glob.prefix, literal(glob.atoms[cuts[-1] :])
    between = [literal(glob.atoms[start:end]) for start, end in pairwise(cuts)]

    def matches(key: bytes) -> bool:
        place, end = len(first), len(key) - len(last)
        if place > end or not key.startswith(first) or not key.endswith(last):
            return False
        for each in between:
            place = key.find(each, place, end) + len(each)
            if place < len(each):
                return False
        return True

    return matches


def _by_expression(glob: Glob) -> Matches:
    """Match by a regular expression.

    What a ``*`` has skipped is never tried again (atomic groups), because the earliest place where the text up to
    the next ``*`` fits leaves the most room for the rest.
    """
    cuts = sorted(glob.stars)
    ends = [*cuts, len(glob.atoms)]
    first, *others = [
        b"".join(map(_expression, glob.atoms[start:end])) for start, end in zip([0, *cuts], ends, strict=True)
    ]
    if others:
        first += b"".join(b"(?>.*?%b)" % each for each in others[:-1]) + b".*" + others[-1]
    fullmatch = re.compile(first, re.DOTALL).fullmatch
    return lambda key: fullmatch(key) is not None


def _expression(members: int) -> bytes:
    if members == _ANY:
        return b"."
    if not members:
        return rb"(?!)"
    if members & (members - 1) == 0:
        return re.escape(bytes([members.bit_length() - 1]))
    return b"[" + b"".join(rb"\x%02x-\x%02x" % run for run in _runs(members)) + b"]"


def _by_masks(glob: Glob) -> Matches:
    """Match by bits: bit ``n`` is set while the first ``n`` atoms may have matched the bytes read so far."""
    length, stars, prefix = len(glob.atoms), glob.stars, glob.prefix
    accepts = _accepts(glob.atoms)
    waits = _bits(stars)
    last = 1 << length

    def matches(key: bytes) -> bool:
        if len(key) < length or (not stars and len(key) != length) or not key.startswith(prefix):
            return False
        standing = 1
        for byte in key:
            standing = (standing & accepts[byte]) << 1 | standing & waits
            if not standing:
                return False
        return standing & last != 0

    return matches


def _accepts(atoms: list[int]) -> list[int]:
    """Return for each byte the atoms that match it. Neighbouring bytes with the same atoms share one number."""
    places: dict[int, list[int]] = {}
    for position, members in enumerate(atoms):
        places.setdefault(members, []).append(position)
    changes: dict[int, int] = {}
    for members, positions in places.items():
        change = _bits(positions)
        for first, end in _runs(members):
            for byte in (first, end + 1):
                changes[byte] = changes.get(byte, 0) ^ change
    accepting = 0
    masks = []
    for byte in range(256):
        if byte in changes:
            accepting ^= changes[byte]
        masks.append(accepting)
    return masks


def _bits(positions: Collection[int]) -> int:
    held = bytearray(max(positions, default=0) // 8 + 1)
    for position in positions:
        held[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(held, "little")
