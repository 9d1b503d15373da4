"""Entity tags: made of the content, and compared as RFC 9110 (8.8.3 and 13.1.2) says."""

import re
from hashlib import blake2b
from typing import Final

__all__ = ["entity_tag", "is_entity_tag", "matches_any"]

_TAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ITEM: Final = re.compile(rf"({_TAG.pattern})[ \t]*(?:,[ \t,]*|$)")
_BYTES: Final = 16


def entity_tag(content_type: str, content_encoding: str, body: bytes) -> str:
    """Return the strong entity tag of a representation: the same in every process, for ever."""
    digest = blake2b(body, digest_size=_BYTES)
    digest.update(f"\0{content_type}\0{content_encoding}".encode())
    return f'"{digest.hexdigest()}"'


def is_entity_tag(text: str) -> bool:
    """Whether a text is an entity tag, weak or strong."""
    return _TAG.fullmatch(text) is not None


def matches_any(field: str, tag: str) -> bool:
    """Whether If-None-Match names the tag of the present representation, by the weak comparison, or is ``*``.

    A field that is no list of entity tags names nothing.
    """
    field = field.strip(" \t")
    if field == "*":
        return True
    opaque = tag.removeprefix("W/")
    found = False
    field = field.lstrip(" \t,")
    position = 0
    while position < len(field):
        item = _ITEM.match(field, position)
        if item is None:
            return False
        found = found or item[1].removeprefix("W/") == opaque
        position = item.end()
    return found
