"""A message that is about to be appended: checked, and encoded as it is stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.values.documents import encode_document
from agent_service.infrastructure.database.values.texts import text_of_item, text_of_message
from agent_service.infrastructure.database.values.validation import (
    require_count,
    require_identifier,
    require_session_id,
)

__all__ = ["ClientKey", "PendingMessage", "accept_message", "accept_messages", "identity_of"]

MAX_TOKEN_COUNT: Final = 2**31 - 1

ClientKey: TypeAlias = tuple[UUID, str]
"""Session and client id: within a tenant, a second append under the same key is a repetition of the first."""


@dataclass(slots=True, eq=False)
class PendingMessage:
    """One message, the session it belongs to, and the forms it is stored in.

    :param text: the message as JSON.
    :param data: what that JSON reads back as.
    :param expected_seq: what the session's ``last_seq`` must be; None: anything. Only :class:`SessionWriter` sets it;
        the repository gives its expectations beside the message.
    :param context: a JSON object to merge into the session's context with the message; None: nothing.
    """

    session_id: UUID
    role: str
    search_text: str | None
    text: str
    data: dict[str, Any]
    token_count: int | None
    client_id: str | None = None
    expected_seq: int | None = None
    context: str | None = None

    @property
    def alone(self) -> bool:
        """Whether no other message of its session may be in its batch: its condition is about a number before it."""
        return self.expected_seq is not None or self.context is not None

    @property
    def key(self) -> ClientKey | None:
        """The message's identity, if it has a client id."""
        return None if self.client_id is None else (self.session_id, self.client_id)


def accept_message(
    session_id: Any, message: Any, client_id: Any = None, role: Any = None, *, name: str = "message"
) -> PendingMessage:
    """Check a message and encode it. The caller's dict is not changed and not kept.

    :param role: of a document that has none of its own; ``text_of_item`` says what is searched in such a document.
    :param name: what errors call the message.
    :raises SessionValueError: ``session_id`` is no UUID; no role in the message and none given; a message with a role
        of its own whose ``content`` is neither text, None nor a list of parts; a ``token_count`` that is no count;
        anything JSON cannot keep exactly, named by its path; a ``client_id`` that is no identifier.
    """
    session = require_session_id(session_id)
    text, data = encode_document(message, name, nul=True)
    beside = None if role is None else _require_role(role, "role")
    own = data.get("role")
    if own is not None or beside is None:
        role, search_text = _require_role(own, f"{name}.role"), text_of_message(data.get("content"), name)
    else:
        role, search_text = beside, text_of_item(data)
    token_count = data.get("token_count")
    if token_count is not None:
        require_count(token_count, f"{name}.token_count", least=0, most=MAX_TOKEN_COUNT)
    identifier = None if client_id is None else require_identifier(client_id, "client_id")
    return PendingMessage(session, role, search_text, text, data, token_count, identifier)


def accept_messages(key: UUID, messages: Any, role: Any, client_ids: Any) -> list[PendingMessage]:
    """Check messages for one session and encode them.

    :raises SessionValueError: one cannot be kept exactly, or there are not as many client ids or roles as messages.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise SessionValueError(f"messages must be a list of dicts, got {type(messages).__name__}")
    given = list(messages)
    roles = [role] * len(given) if role is None or isinstance(role, str) else _one_each(role, "role", len(given))
    ids = [None] * len(given) if client_ids is None else _one_each(client_ids, "client_ids", len(given))
    accepted = [
        accept_message(key, each, role=own, name=f"messages[{index}]")
        for index, (each, own) in enumerate(zip(given, roles, strict=True))
    ]
    for index, (message, client_id) in enumerate(zip(accepted, ids, strict=True)):
        if client_id is not None:
            message.client_id = require_identifier(client_id, f"client_ids[{index}]")
    return accepted


def _one_each(given: Any, name: str, count: int) -> Sequence[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence) or len(given) != count:
        kind = "an id" if name == "client_ids" else "a text"
        raise SessionValueError(
            f"{name} must be a list of {kind} or None for each of {count} messages, got {given!r:.80}"
        )
    return given


def identity_of(message: PendingMessage) -> Any:
    """Return what two appends of one message have in common: its key, else the object itself."""
    return message.key or id(message)


def _require_role(role: Any, name: str) -> str:
    if not isinstance(role, str) or not role:
        remedy = "; for a document without one, give role= beside it" if role is None else ""
        raise SessionValueError(f"{name} must be a text such as 'user' or 'assistant', got {role!r:.80}{remedy}")
    if "\x00" in role:
        raise SessionValueError(f"{name} holds U+0000; remove it: {role!a:.80}")
    return role
