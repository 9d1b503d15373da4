"""Namespaces and keys: checked, and namespaces as text whose order is that of the paths.

Each label is followed by U+0001, which sorts before everything that a label is written with. So a namespace sorts
before those below it, and those below it are exactly the texts that begin with it.
"""

import re
from typing import Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.validation import require_text

__all__ = ["MAX_KEY", "MAX_NAMESPACE", "Namespace", "end_of", "read_namespace", "require_key", "write_namespace"]

Namespace = tuple[str, ...]

MAX_NAMESPACE: Final = 800
"""Most bytes of a namespace. With tenant and key it is one entry of an index, which PostgreSQL limits to 2,700."""
MAX_KEY: Final = 800
"""Most bytes of a key."""

_END: Final = "\x01"
_ESCAPED: Final = {"\x01": "\x02\x03", "\x02": "\x02\x04"}
_PLAIN: Final = {written: char for char, written in _ESCAPED.items()}
_TO_ESCAPE: Final = re.compile("[\x01\x02]")
_TO_READ: Final = re.compile("\x02[\x03\x04]")


def write_namespace(namespace: Any, name: str = "namespace") -> str:
    """Return the text of a namespace; that of the empty one, above all others, is empty.

    :raises SessionValueError: it is no path of labels, or too long.
    """
    if not isinstance(namespace, tuple | list):
        raise SessionValueError(f"{name} must be a tuple of labels, got {type(namespace).__name__} {namespace!r:.80}")
    labels = [require_text(label, f"a label of {name}") for label in namespace]
    if not all(labels):
        raise SessionValueError(f"{name} has an empty label; leave it out: {namespace!r:.200}")
    text = "".join(f"{_TO_ESCAPE.sub(lambda found: _ESCAPED[found[0]], label)}{_END}" for label in labels)
    if len(text) * 4 > MAX_NAMESPACE and len(text.encode()) > MAX_NAMESPACE:
        raise SessionValueError(
            f"{name} has {len(text.encode())} bytes and {len(labels)} labels; at most {MAX_NAMESPACE} are kept: "
            f"{namespace!r:.80}"
        )
    return text


def read_namespace(text: str) -> Namespace:
    """Return the namespace of a text."""
    return tuple(_TO_READ.sub(lambda found: _PLAIN[found[0]], label) for label in text.split(_END)[:-1])


def end_of(text: str) -> str:
    """Return the text below which all namespaces are that begin with this one, which is not empty."""
    return text[:-1] + "\x02"


def require_key(key: Any) -> str:
    """Return a key.

    :raises SessionValueError: it is no text, or too long.
    """
    text = require_text(key, "key")
    if len(text) * 4 > MAX_KEY and len(text.encode()) > MAX_KEY:
        raise SessionValueError(f"key has {len(text.encode())} bytes; at most {MAX_KEY} are kept: {text!r:.80}")
    return text
