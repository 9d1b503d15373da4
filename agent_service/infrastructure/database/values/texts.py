"""Where the text of a stored document is: what search looks through, and what a model is sent."""

from collections.abc import Iterator
from typing import Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.documents import dumps

__all__ = ["characters_in", "text_of_item", "text_of_message"]

_SENT: Final = (
    "content", "tool_calls", "function_call", "arguments", "output", "summary", "parts", "input", "action", "code",
    "outputs", "queries", "results",
)  # fmt: skip
"""Fields of messages and items that a model reads; the others are ids, states and settings."""
_SPOKEN: Final = (
    "text", "refusal", "content", "parts", "summary", "output", "outputs", "code", "name", "function_call",
    "function_response", "tool_name",
)  # fmt: skip
_FREE: Final = ("arguments", "args", "input", "action", "queries", "response")
"""Fields that hold text under any keys: what a tool is given, and what it gave."""


def text_of_message(content: Any, name: str = "message") -> str | None:
    """Return the searchable text of a message with a role of its own: its content.

    :param name: what errors call the message.
    :raises SessionValueError: ``content`` is neither text, None nor a list of parts.
    """
    if content is None:
        return None
    if isinstance(content, list):
        content = "\n".join(filter(None, map(_text_of_part, content)))
    if not isinstance(content, str):
        raise SessionValueError(f"{name}.content must be text, None or a list of parts, not {type(content).__name__}")
    return _storable(content)


def text_of_item(data: dict[str, Any]) -> str | None:
    """Return the searchable text of a document whose role is given beside it: an item or event of a framework.

    That is what is said in content, summary and parts, what tools are called with, and what they return.
    """
    text = "\n".join(each for each in _spoken(data) if each)
    return _storable(text) or None


def characters_in(data: dict[str, Any]) -> int:
    """Return how many characters of a document a model is sent, about."""
    values = [value for value in (data.get(name) for name in _SENT) if value is not None]
    return sum(len(each if isinstance(each, str) else dumps(each)) for each in values)


def _text_of_part(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def _spoken(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _spoken(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name in _SPOKEN:
                yield from _spoken(each)
            elif name in _FREE:
                yield from _strings(each)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _storable(text: str) -> str:
    """Return the text without U+0000, which no engine's text can hold."""
    return text.replace("\x00", "")
