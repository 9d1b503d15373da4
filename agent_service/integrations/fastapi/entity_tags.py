"""Entity tags as RFC 9110, 8.8.3 and 13.1 write, list and compare them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

__all__ = ["EntityTag", "EntityTags", "content_tag", "parse_tags"]

_LIST: Final = re.compile(r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*)"|(?P<comma>,)')
_SPACE: Final = " \t"


@dataclass(frozen=True, slots=True)
class EntityTag:
    """One entity tag: the text between the quotes, and whether it is weak."""

    opaque: str
    weak: bool = False

    def __str__(self) -> str:
        return f'{"W/" * self.weak}"{self.opaque}"'


@dataclass(frozen=True, slots=True)
class EntityTags:
    """The value of If-Match or If-None-Match: ``*``, or a list of tags."""

    tags: tuple[EntityTag, ...] = ()
    any: bool = False

    def match_weakly(self, tag: EntityTag) -> bool:
        """Return whether one of them names the same content, weak or not, as If-None-Match asks."""
        return self.any or any(each.opaque == tag.opaque for each in self.tags)

    def strong(self) -> list[str]:
        """Return the texts of the tags that are not weak, the only ones that If-Match compares."""
        return [each.opaque for each in self.tags if not each.weak]


def parse_tags(lines: Iterable[str]) -> EntityTags:
    """Return what the lines of a header list.

    :raises ValueError: they are neither ``*`` nor a list of quoted tags.
    """
    text = ",".join(lines)
    if text.strip(_SPACE) == "*":
        return EntityTags(any=True)
    tags: list[EntityTag] = []
    separated, place = True, 0
    while place < len(text):
        if text[place] in _SPACE:
            place += 1
            continue
        found = _LIST.match(text, place)
        if found is None or not (separated or found["comma"]):
            raise ValueError(f'must be * or a list of entity tags such as "3-5f0c", got {text!a:.80}')
        if found["comma"] is None:
            tags.append(EntityTag(found["opaque"], found["weak"] is not None))
        separated, place = found["comma"] is not None, found.end()
    if not tags:
        raise ValueError(f"must be * or a list of entity tags, got none: {text!a:.80}")
    return EntityTags(tuple(tags))


def content_tag(content: bytes, prefix: str = "") -> EntityTag:
    """Return a strong tag of some content: the same in every process, and another one for any other content."""
    return EntityTag(prefix + blake2b(content, digest_size=12).hexdigest())
