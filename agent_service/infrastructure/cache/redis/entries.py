"""An entry as Redis holds it: a head with stamps and tokens, and the value behind it."""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from agent_service.core.clock import SYSTEM_CLOCK
from agent_service.core.envelope import LONGEST_TOKEN, Head, pack_tags, read_head, seal
from agent_service.core.errors import UndecodableError
from agent_service.core.memo import Memo, size_of
from agent_service.infrastructure.cache.redis.tokens import NAMESPACE, CurrentTokens, Tokens
from agent_service.infrastructure.cache.values import CachedValue, Encoded, Lifetime, ValueCodec

__all__ = [
    "HEAD_BYTES",
    "EntryFormat",
    "counter_head",
    "freshness",
    "is_live",
    "is_valid",
    "read_known_head",
    "stamp",
    "stamp_position",
]

HEAD_BYTES = 512
"""How much of an entry is read where only its head is wanted; longer heads take a second look."""

_STAMP = struct.Struct(">q")
_PLAIN = frozenset({b"\x01\x14", b"\x01\x15"})
"""How an entry begins that has a time of creation, tokens and nothing else; its value tagged or not."""
_TAGGED = 0x15
_TOKENS = 10
"""Where the tokens begin in such an entry."""
_MOST_SECTIONS = 4096


class EntryFormat:
    """Makes and reads the entries of one namespace."""

    def __init__(self, codec: ValueCodec) -> None:
        self._codec = codec
        self._sections: Memo[tuple[Sequence[str], Sequence[bytes | None]], bytes] = Memo(_MOST_SECTIONS)

    def write(self, encoded: Encoded, life: Lifetime, tokens: Mapping[str, bytes]) -> bytes:
        """Return the bytes of an entry that is stored now."""
        packed = encoded.data or b""
        # Whether the entry is gone as soon as it is stale, and nobody asks how much of its life is over.
        is_plain = not life.stale_for and life.refresh_at is None
        now = None if is_plain and packed[:1] != b"\x01" else SYSTEM_CLOCK.time()  # so that counters have one head
        stale_at = None if now is None or is_plain or life.seconds == math.inf else now + life.seconds
        return seal(packed, created_at=now, stale_at=stale_at, tags=pack_tags(tokens), raised=encoded.raised)

    def read_expected(self, data: bytes, tags: Sequence[str], held: Sequence[bytes | None]) -> CachedValue | None:
        """Read an entry with just these tags and no staleness: the short way of a hit. None: take the long way.

        :param held: what the names of the tokens of the namespace and the tags hold; see :meth:`Tokens.keys`.
        """
        section = self._sections.known.get((tags, held)) or self._section(tags, held)
        if section is None or data[:2] not in _PLAIN or not data.startswith(section, _TOKENS):
            return None
        age = SYSTEM_CLOCK.time() - _STAMP.unpack_from(data, 2)[0] / 1000
        try:
            value = self._codec.decode_payload(data[_TOKENS + len(section) :], tagged=data[1] == _TAGGED)
        except UndecodableError:
            return None
        # Half the cost of calling the class, which counts here: a hit takes this way.
        return tuple.__new__(CachedValue, (value, "redis", age, math.inf, None, False, tags, None))

    def _section(self, tags: Sequence[str], held: Sequence[bytes | None]) -> bytes | None:
        """Return how the current tokens are written in a head, and remember it; None: no head holds them."""
        tokens = Tokens.current(held, 1 + len(tags))
        if any(token is not None and len(token) > LONGEST_TOKEN for token in tokens):
            return None  # somebody else wrote it
        section = pack_tags({name: token or b"" for name, token in zip((NAMESPACE, *tags), tokens, strict=True)})
        self._sections.keep((tags, held), section, size_of((*tags, *held, section)))
        return section

    def read(self, data: bytes, head: Head) -> CachedValue:
        """Read an entry whose tokens were found to stand.

        :raises UndecodableError: for a value that no version of the format explains.
        """
        age, left, life = freshness(head)
        value: Any = self._codec.decode_body(data, head.flags, head.end)
        return CachedValue(
            value, "redis", age, left, life, head.raised, [name for name in head.tags if name != NAMESPACE]
        )


def freshness(head: Head) -> tuple[float | None, float, float | None]:
    """Return age, seconds left and seconds of life, as :class:`CachedValue` has them."""
    now = SYSTEM_CLOCK.time()
    age = None if head.created_at is None else now - head.created_at
    if head.stale_at is None:
        return age, math.inf, None
    return age, head.stale_at - now, None if head.created_at is None else head.stale_at - head.created_at


def is_valid(head: Head, current: CurrentTokens) -> bool:
    """Whether an entry carries the token of its namespace, and all its tokens are the current ones."""
    return NAMESPACE in head.tags and all(current.get(name) == token for name, token in head.tags.items())


def is_live(head: Head, current: CurrentTokens) -> bool:
    """Whether an entry is valid, fresh and a value: what the contract calls an entry."""
    return is_valid(head, current) and freshness(head)[1] > 0 and not head.raised


def counter_head(tokens: Mapping[str, bytes]) -> bytes:
    """Return how every counter with these tokens begins."""
    return seal(b"0", tags=pack_tags(tokens))[:-1]


def stamp(seconds: float) -> bytes:
    """Return a stamp of staleness, seconds from now."""
    return _STAMP.pack(2**62 if seconds == math.inf else round((SYSTEM_CLOCK.time() + seconds) * 1000))


def stamp_position(head: Head) -> int | None:
    """Return where the stamp of staleness stands; None where there is none."""
    if head.stale_at is None:
        return None
    return 2 if head.created_at is None else 2 + _STAMP.size


def read_known_head(data: bytes | None) -> Head | None:
    """Return the head of stored bytes; None for nothing, and for what no version of the format explains."""
    if not data:
        return None
    try:
        return read_head(data)
    except UndecodableError:
        return None
