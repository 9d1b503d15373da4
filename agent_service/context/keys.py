"""The key codec: any hashable key to text and back, no two keys to the same text.

Text stands for itself: ``session-123``. Every other key is ``~`` and its JSON as :mod:`agent_service.core.codec` writes
it: ``~1``, ``~true``, ``~null``, ``~{"$tuple":["column","ColumnA"]}``. So is text that begins with ``~`` or holds
U+0000, which not every backend can keep: ``~"~"``. A frozenset's members are sorted, because their order differs from
process to process. Keys are told apart as they are written: ``1`` and ``1.0`` are two, though Python holds them equal.
"""

from collections.abc import Hashable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from agent_service.core.codec import decode, encode
from agent_service.core.errors import CacheSerializationError, ContextStoreError, UndecodableError

__all__ = ["Key", "decode_key", "encode_key", "hide_one_another", "is_hashable", "tuples_beginning"]

Key: TypeAlias = Hashable
"""What a caller may use as a key."""

_MARK: Final = "~"
_LEAVES: Final = frozenset(
    {str, bool, int, float, complex, type(None), bytes, UUID, Decimal, date, datetime, time, timedelta}
)
_UNORDERED: Final = ('"$set"', '"$frozenset"')
_MAX_DEPTH: Final = 100


def encode_key(key: Key) -> str:
    """Return the text of a key.

    :raises ContextStoreError: for a key that is not hashable, holds a lone surrogate, or holds a value whose type does
        not come back from the codec; it names the type and the remedy.
    """
    if type(key) is str and key[:1] != _MARK and "\x00" not in key:
        if not key.isascii():
            _require_text(key)
        return key
    try:
        hash(key)
    except TypeError as exc:
        raise ContextStoreError(
            f"key must be hashable, {type(key).__name__} is not: {key!r:.80}; use a str or a tuple of immutable values"
        ) from exc
    try:
        return f"{_MARK}{_json(key, 0)}"
    except CacheSerializationError as exc:
        raise ContextStoreError(f"key {key!r:.80} cannot be written down: {exc}") from exc


def decode_key(text: str) -> Any:
    """Undo :func:`encode_key`.

    :raises ContextStoreError: for text that it did not return.
    """
    if text[:1] != _MARK:
        return text
    try:
        key = decode(text[1:].encode(), tagged=True)
        hash(key)
    except (UndecodableError, UnicodeEncodeError, TypeError) as exc:
        raise ContextStoreError(
            f"the stored key {text!a:.80} cannot be read; it was not written by this store"
        ) from exc
    return key


def tuples_beginning(prefix: tuple[Key, ...]) -> str:
    """Return what the texts of longer tuples begin with that begin with this one, and no other text does.

    Each member is written as JSON and ends before the comma, so no member can run into the next.

    :raises ContextStoreError: for what is no tuple, or cannot be written down.
    """
    if type(prefix) is not tuple:
        raise ContextStoreError(f"prefix must be a tuple of keys, got {type(prefix).__name__} {prefix!r:.80}")
    text = encode_key(prefix).removesuffix("]}")
    return f"{text}," if prefix else text


def is_hashable(key: Any) -> bool:
    """Whether something has a hash, with all that it holds."""
    try:
        hash(key)
    except TypeError:
        return False
    return True


def hide_one_another(keys: Iterable[Key]) -> bool:
    """Whether some of the keys differ as they are written and are equal to Python, so that one dict cannot hold all."""
    listed = list(keys)
    texts = {encode_key(key) for key in listed}
    return len(set(listed)) < len(texts)


def _json(key: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        raise ContextStoreError(f"key nests deeper than {_MAX_DEPTH} levels; flatten it")
    kind = type(key)
    if kind is tuple:
        return f'{{"$tuple":[{",".join([_json(each, depth + 1) for each in key])}]}}'
    if kind is frozenset:
        return f'{{"$frozenset":[{",".join(sorted(_json(each, depth + 1) for each in key))}]}}'
    if kind is str:
        _require_text(key)
    written = encode(key)[0].decode()
    if kind not in _LEAVES:
        _require_faithful(key, written)
    return written


def _require_faithful(key: Any, written: str) -> None:
    """Refuse what the codec would read back as something else, or write differently in another process."""
    back = decode(written.encode(), tagged=True)
    if type(back) is not type(key) or back != key:
        raise ContextStoreError(
            f"key {key!r:.80} holds a {type(key).__qualname__}, which would come back as a {type(back).__qualname__}; "
            "register_type() its class, or use its plain value"
        )
    if any(each in written for each in _UNORDERED):
        raise ContextStoreError(f"key {key!r:.80} holds a set within a {type(key).__qualname__}; use a sorted tuple")


def _require_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ContextStoreError(
            f"key {text!a:.80} holds a lone surrogate at position {exc.start}, which has no UTF-8 form; replace it"
        ) from exc
