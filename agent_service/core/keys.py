"""Keys: which ones a caller may use, and how they are named in Redis.

A physical key is ``{prefix}:{namespace}:{key}``. Prefix and namespace are escaped so that they hold no ``:``, therefore
the first two colons are always the separators and no two (prefix, namespace, key) share a physical key; the key itself
stays as it was given. The package's own bookkeeping (leases, tokens, probes) is named ``{prefix}:%{kind}:{name}``. So
everything that belongs to a prefix matches ``{prefix}:*``, the only pattern that an access rule needs. No escaped
namespace looks like bookkeeping, because each ``%`` in it is followed by a digit; so no pattern over the keys of a
namespace reaches bookkeeping.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from agent_service.core.errors import CacheKeyError

__all__ = [
    "DEFAULT_NAMESPACE",
    "MAX_KEY_BYTES",
    "check_key",
    "check_keys",
    "escape_component",
    "escape_rendered",
    "former_internal_key",
    "glob_escape",
    "hashed_part",
    "internal_key",
    "is_internal",
    "key_prefix",
    "logical_key",
    "name_beside",
    "normalise_namespace",
    "root_prefix",
]

DEFAULT_NAMESPACE: Final = "default"
"""The name of the namespace ``""``."""

MAX_KEY_BYTES: Final = 8192
"""The longest key, namespace or prefix in UTF-8 bytes."""

_RESERVED = re.compile(r"[%:]")
_RESERVED_OR_GLOB = re.compile(r"[%:*?\[\]\\]")
_GLOB = re.compile(r"[*?\[\]^\-\\]")
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_INTERNAL = re.compile(r"%[a-z]")


def check_key(key: str, *, name: str = "key") -> str:
    """Return the key if a cache can use it. Called for each hit: an ASCII key takes about 100 ns.

    :param name: what to call the argument in an error.
    :raises CacheKeyError: if it is no str, is empty, has more than :data:`MAX_KEY_BYTES` bytes in UTF-8, or holds a
        lone surrogate.
    """
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_BYTES:
        return key
    return _check_slowly(key, name)


def _check_slowly(key: object, name: str) -> str:
    if not isinstance(key, str):
        remedy = "decode it first" if isinstance(key, bytes | bytearray) else "make it a str first"
        raise CacheKeyError(f"{name} must be a str, not {type(key).__name__}: {key!r:.80}; {remedy}")
    if not key:
        raise CacheKeyError(f"{name} is empty; give it at least one character")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as exc:
        raise CacheKeyError(
            f"{name} holds a lone surrogate at position {exc.start}: {key!r:.80}; it has no UTF-8 form, replace it"
        ) from None
    if size > MAX_KEY_BYTES:
        raise CacheKeyError(
            f"{name} has {size} bytes in UTF-8, at most {MAX_KEY_BYTES} are allowed: {key[:80]!r}; use a digest of it"
        )
    return str.__str__(key)  # a plain str, even of a StrEnum member


def check_keys(keys: Iterable[str], *, name: str = "key") -> list[str]:
    """Return several keys as a list, each of them checked.

    :raises CacheKeyError: for one str instead of several, what is not iterable, and what :func:`check_key` refuses.
    """
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise CacheKeyError(
            f"{name}s must be several {name}s, got {type(keys).__name__}: {keys!r:.80}; put it in a list"
        )
    return [check_key(key, name=name) for key in keys]


def normalise_namespace(namespace: str) -> str:
    """Return the canonical name of a namespace: ``""`` is ``"default"``.

    :raises CacheKeyError: for what :func:`check_key` refuses, the empty string excepted.
    """
    return DEFAULT_NAMESPACE if namespace == "" else check_key(namespace, name="namespace")


def _percent(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def escape_component(text: str) -> str:
    """Percent-escape ``%`` and ``:``, so that a separator can follow the text. Different texts stay different."""
    return _RESERVED.sub(_percent, text)


def escape_rendered(text: str) -> str:
    """Percent-escape ``: % * ? [ ]`` and the backslash, for a value that is filled into a key template.

    The value can then be mistaken neither for further components of the key nor for a wildcard. ``-`` and ``^`` mean
    something only between brackets and stay, so that a rendered UUID or date reads as it is written.
    """
    return _RESERVED_OR_GLOB.sub(_percent, text)


def glob_escape(text: str) -> str:
    """Escape every special character of a Redis glob with a backslash, so that the text matches only itself."""
    return _GLOB.sub(r"\\\g<0>", text)


@lru_cache(maxsize=1024)
def root_prefix(prefix: str) -> bytes:
    """Return ``{prefix}:``, with which every physical key of this prefix begins and no key of another prefix does.

    :raises CacheKeyError: for a prefix that :func:`check_key` refuses.
    """
    return f"{escape_component(check_key(prefix, name='prefix'))}:".encode()


@lru_cache(maxsize=1024)
def key_prefix(prefix: str, namespace: str) -> bytes:
    """Return ``{prefix}:{namespace}:``, with which every physical key of this namespace begins and no other key does.

    :raises CacheKeyError: for a prefix or namespace that cannot be used.
    """
    return root_prefix(prefix) + f"{escape_component(normalise_namespace(namespace))}:".encode()


def logical_key(physical: bytes, prefix: bytes) -> str | None:
    """Return what follows ``prefix`` (of :func:`key_prefix` or :func:`root_prefix`) in a physical key.

    None for a key that does not begin with it, or that is no UTF-8 and so was written by another program.
    """
    if not physical.startswith(prefix):
        return None
    try:
        return physical[len(prefix) :].decode()
    except UnicodeDecodeError:
        return None


def internal_key(prefix: str, kind: str, name: str) -> bytes:
    """Return the name of a bookkeeping key: ``{prefix}:%{kind}:{name}``. No pattern of a caller reaches it.

    :param kind: what the key is for: lower-case letters, digits and underscores, a letter first.
    :raises CacheKeyError: for a prefix or kind that cannot be used.
    """
    if not _KIND.fullmatch(kind):
        raise CacheKeyError(f"kind must be lower-case letters, digits and _, a letter first, got {kind!r:.80}")
    return root_prefix(prefix) + f"%{kind}:{name}".encode()


def former_internal_key(prefix: str, kind: str, name: str) -> bytes:
    """Return the name that earlier releases use for the same bookkeeping: ``{prefix}%{kind}:{name}``."""
    return root_prefix(prefix)[:-1] + internal_key(prefix, kind, name)[len(root_prefix(prefix)) :]


def is_internal(name: str) -> bool:
    """Return whether what follows ``{prefix}:`` in a key names bookkeeping."""
    return bool(_INTERNAL.match(name))


def name_beside(stem: bytes, key: bytes) -> bytes | None:
    """Return a name that begins with ``stem``, holds ``key`` and shares its cluster slot; None if there is none."""
    for name in (stem + key, stem + b"{" + key + b"}"):
        if hashed_part(name) == hashed_part(key):
            return name
    return None


def hashed_part(key: bytes) -> bytes:
    """Return the part of a key that a cluster hashes: the first ``{...}`` that is not empty, else the whole key."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key
