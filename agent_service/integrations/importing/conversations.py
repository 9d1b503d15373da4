"""Conversations as sources describe them, whatever framework wrote them."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

__all__ = ["Conversation", "Item", "Items", "Unreadable", "UnreadableError", "moment_of", "parse_object"]


class UnreadableError(ValueError):
    """What is stored cannot be read; the message says what is wrong without what it says."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a conversation.

    :param place: where it is in the source, for people.
    :param created_at: when it was stored there; None: not known.
    """

    place: str
    document: dict[str, Any]
    role: str
    client_id: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that cannot be read.

    :param reason: what is wrong with it, without what it says.
    """

    place: str
    reason: str


Items: TypeAlias = Callable[[], AsyncIterator[Item | Unreadable]]
"""Reads the entries of a conversation in the order in which its framework gives them, from the first one each time."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, without its entries.

    :param place: where it is in the source, for people.
    :param context: what the session's context is; None: the source has nothing of the kind.
    """

    place: str
    external_id: str
    user_id: str
    agent_id: str | None = None
    title: str | None = None
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    active_at: datetime | None = None


def parse_object(text: Any) -> dict[str, Any] | str:
    """Return the JSON object that a text is, or what is wrong with it, without repeating any of it."""
    if not isinstance(text, str):
        return f"holds {'nothing' if text is None else type(text).__name__}, not text"
    try:
        found = json.loads(text)
    except json.JSONDecodeError as exc:
        return f"is no JSON ({exc.msg} at character {exc.pos})"
    except (ValueError, RecursionError) as exc:
        return f"is no JSON that can be read ({type(exc).__name__})"
    return found if isinstance(found, dict) else f"is a JSON {type(found).__name__}, not an object"


def moment_of(stored: Any) -> datetime | None:
    """Return the moment that a database of another library stored, in UTC unless it says otherwise; None: none."""
    if isinstance(stored, str):
        try:
            stored = datetime.fromisoformat(stored)
        except ValueError:
            return None
    elif isinstance(stored, int | float) and not isinstance(stored, bool):
        try:
            return datetime.fromtimestamp(stored, UTC)
        except (ValueError, OverflowError, OSError):
            return None
    if not isinstance(stored, datetime):
        return None
    return stored.replace(tzinfo=UTC) if stored.tzinfo is None else stored.astimezone(UTC)
