"""A message as it is handed in: checked, and brought into the forms it is stored in."""

from dataclasses import dataclass
from typing import Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.validation import require_count

__all__ = ["IncomingMessage", "accept_message"]

MAX_TOKEN_COUNT: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class IncomingMessage:
    """The stored forms of one message: ``text`` is its JSON, ``data`` what that reads back as."""

    role: str
    search_text: str | None
    text: str
    data: dict[str, Any]
    token_count: int | None


def accept_message(message: Any) -> IncomingMessage:
    """Check a message and encode it. The caller's dict is not changed and not kept.

    :raises SessionValueError: no ``role``; ``content`` that is neither text, None nor a list of parts; a
        ``token_count`` that is no count; anything JSON cannot keep exactly, named by its path.
    """
    text, data = encode_document(message, "message", nul=True)
    role = data.get("role")
    if not isinstance(role, str) or not role:
        raise SessionValueError(f"message.role must be a text such as 'user' or 'assistant', got {role!r:.80}")
    if "\x00" in role:
        raise SessionValueError(f"message.role holds U+0000; remove it: {role!a:.80}")
    token_count = data.get("token_count")
    if token_count is not None:
        require_count(token_count, "message.token_count", least=0, most=MAX_TOKEN_COUNT)
    return IncomingMessage(role, _searchable(data.get("content")), text, data, token_count)


def _searchable(content: Any) -> str | None:
    """Return the text that search looks through: without U+0000, which no engine's text can hold."""
    if content is None:
        return None
    if isinstance(content, list):
        content = "\n".join(filter(None, map(_text_of_part, content)))
    if not isinstance(content, str):
        raise SessionValueError(
            f"message.content must be text, None or a list of parts, not {type(content).__name__}: {content!r:.80}"
        )
    return content.replace("\x00", "")


def _text_of_part(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None
