"""Words of a query, and how many of them an event has."""

import re
import unicodedata
from typing import Any, Final

from agent_service.infrastructure.database.queries.word_search import MAX_WORDS

__all__ = ["matched", "text_of", "words_of"]

_LATIN: Final = "0-9A-Za-z_\u00c0-\u024f"
_WORD: Final = re.compile(r"\w+")
_SHORT: Final = 3
"""A word of fewer ASCII characters is looked for only where a query has no longer one: most texts hold it."""


def words_of(query: str) -> list[str]:
    """Return the words to look for, in lower case, the longest first: at most as many as one statement takes."""
    words = set(_WORD.findall(_lower(query)))
    telling = {word for word in words if len(word) >= _SHORT or not word.isascii()}
    return sorted(telling or words, key=lambda word: (-len(word), word))[:MAX_WORDS]


def text_of(document: dict[str, Any]) -> str:
    """Return what an event says, in the form that :func:`matched` takes."""
    parts = (document.get("content") or {}).get("parts") or ()
    return _lower(" ".join(text for part in parts if isinstance(text := part.get("text"), str)))


def matched(words: list[str], text: str) -> int:
    """Count the words that a text has: whole ones, and in a script without spaces also within others."""
    return sum(_has(word, text) for word in words)


def _has(word: str, text: str) -> bool:
    if not word.isascii():
        return word in text
    return re.search(rf"(?<![{_LATIN}]){re.escape(word)}(?![{_LATIN}])", text) is not None


def _lower(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()
