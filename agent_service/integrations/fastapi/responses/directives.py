"""Cache-Control as RFC 9111 reads it."""

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["MOST_SECONDS", "directives", "seconds_of"]

MOST_SECONDS: Final = 2**31
"""The largest number of seconds that every cache understands (RFC 9111, 1.2.2)."""

_DIRECTIVE: Final = re.compile(
    r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?\s*(?:,|$)"""
)


def directives(field: str) -> dict[str, str]:
    """Return the directives of a Cache-Control field by lower-case name; one without an argument has "".

    What cannot be read ends the list, and is under the name "": nothing after it can be trusted to be a directive. Of a
    directive that is given twice the first counts.
    """
    found: dict[str, str] = {}
    position = 0
    while (match := _DIRECTIVE.match(field, position)) is not None:
        found.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3] or "")
        position = match.end()
    rest = field[position:].strip(" \t,")
    return {**found, "": rest} if rest else found


def seconds_of(given: Mapping[str, str], name: str) -> int | None:
    """Return the seconds of a directive; None where it is missing. What is no number counts as 0, that is, stale."""
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        return 0
    return min(int(text), MOST_SECONDS) if len(text) < 12 else MOST_SECONDS
