"""The text of an item that searches look through, and the words that they look for."""

import re
from collections.abc import Iterator
from typing import Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.validation import require_text

__all__ = ["MAX_QUERY", "strings_in", "words_of"]

MAX_QUERY: Final = 10_000
"""Most characters of a query."""
_MOST_WORDS: Final = 16
_WORD: Final = re.compile(r"\w+")
_TELLING: Final = 3
"""Characters from which on a word says something; shorter ones are parts of most others."""


def strings_in(value: Any) -> Iterator[str]:
    """Yield every text of a value, at any depth; keys are not among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings_in(each)


def words_of(query: Any) -> list[str]:
    """Return the words that a query looks for: at most 16, without those of one or two letters if there are others.

    :raises SessionValueError: the query is no text, or too long.
    """
    text = require_text(query, "query").lower()
    if len(text) > MAX_QUERY:
        raise SessionValueError(f"query has {len(text)} characters; at most {MAX_QUERY} are looked for")
    words = list(dict.fromkeys(_WORD.findall(text))) or ([text.strip()] if text.strip() else [])
    return ([each for each in words if len(each) >= _TELLING] or words)[:_MOST_WORDS]
