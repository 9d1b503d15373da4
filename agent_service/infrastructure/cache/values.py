"""A value of the cache: how it is written down, how long it lives, and what is known of one that was read."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from agent_service.core.codec import Serializer, decode_stored, is_immutable
from agent_service.core.envelope import pack_payload, read_head, read_payload
from agent_service.core.errors import CacheSerializationError, CacheValueError, UndecodableError
from agent_service.core.milliseconds import lifetime_in_milliseconds
from agent_service.core.values.json_writer import encode
from agent_service.core.values.stored import Stored

__all__ = ["CachedValue", "Encoded", "Lifetime", "ValueCodec", "check_amount", "checked_sum"]

_INT64 = range(-(2**63), 2**63)
_PLAIN = frozenset({str, int, float, bool, type(None)})
"""The scalars of JSON."""
_PLAIN_HEAD = b"\x01\x00"
_HEADLESS = frozenset({_PLAIN_HEAD, b"\x01\x01"})
"""How a value begins of which nothing else is known."""


@dataclass(slots=True)
class Encoded:
    """A value, how it is written down, and the form in which memory keeps it. Never changed, but not frozen: see
    :class:`Lifetime`.

    ``copy`` makes a reader's own value of ``kept``; None: ``kept`` is immutable and is given as it is. ``data`` is what
    :func:`~agent_service.core.envelope.pack_payload` gave, or None for what has no bytes, because it cannot be written
    down or is not to be stored. ``raised`` says that the value describes what is not for every reader (see
    :mod:`~agent_service.infrastructure.cache.loads.raised`).
    """

    value: Any
    data: bytes | None
    kept: Any
    copy: Callable[[Any], Any] | None
    raised: bool = False
    refusal: str = ""
    """Why the value cannot be written down."""

    def open(self) -> Any:
        """Return a value of one reader's own; a Stored where it holds instances of classes."""
        return self.kept if self.copy is None else self.copy(self.kept)


@dataclass
class Lifetime:
    """How long an entry lives: fresh for ``seconds``, then stale for ``stale_for`` seconds, then gone.

    It is shared by many entries and never changed; not frozen, because that takes longer to make.
    """

    seconds: float
    """Above zero; infinity: no expiry."""
    stale_for: float = 0.0
    refresh_at: float | None = None
    """The fraction of ``seconds`` after which a reader has the entry refreshed; None: never."""

    @property
    def kept(self) -> float:
        """Seconds until it is gone."""
        return self.seconds + self.stale_for

    @cached_property
    def milliseconds(self) -> int:
        """Milliseconds until it is gone, as our commands on Redis take them: 0 for no expiry."""
        return lifetime_in_milliseconds(self.kept)


class CachedValue(NamedTuple):
    """An entry that was read."""

    value: Any
    level: str
    """Where: "memory", "redis", "l1", or what another backend calls itself."""
    age: float | None = None
    """Seconds since it was stored; None where that is not kept."""
    left: float = math.inf
    """Seconds it stays fresh, as far as the entry itself says; zero or less: it is stale."""
    life: float | None = None
    """Seconds it was fresh for in all; None where that is not kept."""
    raised: bool = False
    """Whether the value describes what is not for every reader; see
    :mod:`~agent_service.infrastructure.cache.loads.raised`."""
    tags: Sequence[str] = ()
    """The entry's tags, where it is in Redis."""
    expires_in: float | None = None
    """Seconds until it is gone, where that was asked for; infinity: never."""


class ValueCodec:
    """Turns values into the bytes that are stored, and back.

    :param serializer: replaces the built-in lossless JSON. Integers within 64 bits stay counters whatever it is.
    :param compress_above: payloads of more bytes than this are compressed; None: never.
    :param copy: False keeps every value as it is and gives it to all readers.
    """

    def __init__(
        self, serializer: Serializer | None = None, *, compress_above: int | None = None, copy: bool = True
    ) -> None:
        self._serializer = serializer
        self._compress_above = compress_above
        self._copy = copy

    def encode(self, value: Any, *, annotated: bool | None = None) -> Encoded:
        """Write a value down.

        :param annotated: whether it will be read with an annotation that names its classes, which False leaves out;
            None: perhaps.
        :raises CacheSerializationError: when it cannot be written without losing something.
        """
        if not self._copy:
            return Encoded(value, b"", value, None)
        if type(value) is int and value in _INT64:
            return Encoded(value, b"%d" % value, value, None)
        if self._serializer is None:
            kind = type(value)
            private = (value, None) if kind in _PLAIN else _private(value)
            if kind is Stored:  # on its way from one level to another, unread
                payload, tagged = value.payload(), True
            else:
                payload, tagged = encode(value, keep_classes=annotated is not False, annotated=annotated is True)
            data = pack_payload(payload, tagged=tagged, compress_above=self._compress_above)
            return Encoded(value, data, *(private or (data, self.decode)))
        payload = self._serializer.dumps(value)
        if not isinstance(payload, bytes):
            name = type(self._serializer).__name__
            raise CacheSerializationError(f"{name}.dumps must return bytes, not {type(payload).__name__}")
        data = pack_payload(payload, compress_above=self._compress_above)
        return Encoded(value, data, data, self.decode)

    def decode(self, data: bytes) -> Any:
        """Read a value back from bytes with or without a head; a Stored where it holds instances of classes.

        :raises UndecodableError: for bytes that no version of the format explains.
        """
        if data[:2] == _PLAIN_HEAD and self._serializer is None:
            try:
                return orjson.loads(memoryview(data)[2:])
            except orjson.JSONDecodeError:
                pass  # refused below
        if data[:2] in _HEADLESS:
            return self.decode_body(data, data[1], 2)
        head = read_head(data)
        return self.decode_body(data, head.flags, head.end)

    def decode_body(self, data: bytes, flags: int, start: int) -> Any:
        """Read the value behind a head that was read already; see :func:`~agent_service.core.envelope.read_head`."""
        payload, tagged, is_counter = read_payload(data, flags, start)
        if is_counter:  # an integer is a counter, whatever the serializer
            return decode_stored(payload, tagged)
        return self.decode_payload(payload, tagged=tagged)

    def decode_payload(self, payload: bytes, *, tagged: bool) -> Any:
        """Read the value of a payload; see :func:`~agent_service.core.envelope.read_payload`."""
        if self._serializer is None:
            return decode_stored(payload, tagged)
        try:
            return self._serializer.loads(payload)
        except Exception as exc:
            name = type(self._serializer).__name__
            raise UndecodableError(f"{name}.loads failed: {type(exc).__name__}; the entry counts as a miss") from exc


def _private(value: Any) -> tuple[Any, Callable[[Any], Any] | None] | None:
    """Return what memory keeps in place of the bytes, and how a reader copies it; None: it keeps the bytes.

    That is an immutable value itself, or a private copy of a flat container. It is only for a value that can be written
    down, so a str has a form in UTF-8.
    """
    if type(value) is dict:
        return (value.copy(), dict.copy) if _all_immutable(value.values()) and _all_immutable(value) else None
    if type(value) is list:
        return (value.copy(), list.copy) if _all_immutable(value) else None
    return (value, None) if is_immutable(value) else None


def _all_immutable(values: Collection[Any]) -> bool:
    return _PLAIN.issuperset(map(type, values)) or all(map(is_immutable, values))


def check_amount(amount: int) -> int:
    """Return the amount of an increment if it is an int within 64 bits."""
    if type(amount) is not int or amount not in _INT64:
        raise CacheValueError(f"amount must be an int within 64 bits, got {type(amount).__name__}: {amount!r:.80}")
    return amount


def checked_sum(key: str, value: object, amount: int) -> int:
    """Add to the value of a counter, or say why that cannot be done."""
    if type(value) is not int or value not in _INT64:
        raise CacheValueError(
            f"the entry of key {key!r:.80} is no integer within 64 bits; delete it or set a number first"
        )
    if value + amount not in _INT64:
        raise CacheValueError(f"adding {amount} to the counter of key {key!r:.80} leaves 64 bits; it stays {value}")
    return value + amount
