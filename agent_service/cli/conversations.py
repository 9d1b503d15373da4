"""Reading conversations: JSON lines, plain or gzip, one conversation a line."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_service.cli.console import printable
from agent_service.cli.reading import Lines, open_lines

__all__ = ["Conversation", "read_conversations"]

TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Conversation:
    """One line of a file; ``line`` says which, for errors, and ``fraction`` how much of the files ends with it."""

    external_id: str
    agent_id: str | None
    title: str
    metadata: dict[str, Any]
    messages: list[dict[str, Any]]
    line: str
    fraction: float


def read_conversations(paths: Sequence[Path]) -> Generator[Conversation]:
    """Yield the conversations of the files in order, with one in memory at a time.

    :raises InputFileError: for a file that cannot be read, or a line that is not a conversation.
    """
    for position, path in enumerate(paths):
        with open_lines(path) as lines:
            for text in lines:
                yield _conversation(text, lines, (position + lines.fraction) / len(paths))


def _conversation(text: str, lines: Lines, fraction: float) -> Conversation:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise lines.error(f"not JSON ({exc}); one conversation a line is expected, correct or remove the line") from exc
    if not isinstance(found, dict) or not _is_conversation(found):
        raise lines.error('not a conversation; {"session_id": text, "messages": [object, ...]} is expected')
    agent = found.get("agent")
    return Conversation(
        external_id=found["session_id"],
        agent_id=agent if isinstance(agent, str) and agent else None,
        title=_title(found["messages"]) or found["session_id"],
        metadata={name: value for name, value in found.items() if name not in {"session_id", "messages"}},
        messages=found["messages"],
        line=f"{lines.path}: line {lines.line}",
        fraction=fraction,
    )


def _is_conversation(found: dict[str, Any]) -> bool:
    session_id, messages = found.get("session_id"), found.get("messages")
    return (
        isinstance(session_id, str)
        and session_id != ""
        and isinstance(messages, list)
        and all(isinstance(message, dict) for message in messages)
    )


def _title(messages: list[dict[str, Any]]) -> str:
    """Return the user's first question, on one line."""
    asked = (each.get("content") for each in messages if each.get("role") == "user")
    return printable(next((text for text in asked if isinstance(text, str)), ""), TITLE_LENGTH).strip()
