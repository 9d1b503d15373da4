"""Redis globs, for keys that are not in Redis.

``*`` is any bytes, ``?`` one byte, ``[abc]``, ``[a-z]`` and ``[^a]`` one byte of a set or outside it, and the backslash
takes the next character literally. As in Redis (``stringmatchlen`` of its ``util.c``) the unit is a byte of the UTF-8
form, a set that is not closed ends with the pattern, a range may run backwards, ``[a-]`` is the range up to ``]``
and not yet closed, and ranges compare bytes as signed numbers, as Redis does where a C ``char`` is signed (x86).
"""

import re
from collections.abc import Callable
from functools import lru_cache

from agent_service.core.keys import check_key

__all__ = ["compile_glob"]


@lru_cache(maxsize=512)
def compile_glob(pattern: str) -> Callable[[bytes], bool]:
    """Give a function that tells whether a key, as UTF-8 and not empty, matches the pattern.

    Matching takes at most as many steps as the key has bytes times the pattern, whatever the pattern: what a ``*`` has
    skipped is never looked at again (atomic groups), because the earliest place where the text up to the next ``*``
    fits leaves the most room for the rest.

    :raises CacheKeyError: for a pattern that could be no key: empty, too long, no str, a lone surrogate.
    """
    first, *others = _segments(check_key(pattern, name="pattern").encode())
    expression = first
    if others:
        expression += b"".join(b"(?>.*?%b)" % segment for segment in others[:-1]) + b".*" + others[-1]
    fullmatch = re.compile(expression, re.DOTALL).fullmatch
    return lambda key: fullmatch(key) is not None


def _segments(pattern: bytes) -> list[bytes]:
    """Split at each ``*``; every part is a regular expression of a fixed number of bytes."""
    segments = [b""]
    position = 0
    while position < len(pattern):
        char = pattern[position : position + 1]
        if char == b"*":
            if segments[-1] or len(segments) == 1:
                segments.append(b"")
        elif char == b"?":
            segments[-1] += b"."
        elif char == b"[":
            members, position = _set(pattern, position + 1)
            segments[-1] += _one_of(members)
        else:
            if char == b"\\" and position + 1 < len(pattern):
                position += 1
            segments[-1] += re.escape(pattern[position : position + 1])
        position += 1
    return segments


def _set(pattern: bytes, position: int) -> tuple[frozenset[int], int]:
    """Read the set that begins after ``[``; give its bytes and the position of its ``]``."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members: set[int] = set()
    while position < len(pattern) and pattern[position] != ord("]"):
        if pattern[position] == ord("\\") and position + 1 < len(pattern):
            position += 1
            members.add(pattern[position])
        elif pattern[position + 1 : position + 2] == b"-" and position + 2 < len(pattern):
            ends = sorted((_signed(pattern[position]), _signed(pattern[position + 2])))
            members.update(value & 0xFF for value in range(ends[0], ends[1] + 1))
            position += 2
        else:
            members.add(pattern[position])
        position += 1
    return frozenset(range(256)) - members if negated else frozenset(members), position


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _one_of(members: frozenset[int]) -> bytes:
    if not members:
        return rb"(?!)"
    return b"[" + b"".join(rb"\x%02x" % member for member in sorted(members)) + b"]"
