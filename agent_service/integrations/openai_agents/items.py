"""Items of the Responses API as the SDK stores them: whose they are, and which of them have an identity of their own.

Nothing here imports the SDK, so that importers can use it without.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

__all__ = ["client_id_of", "client_ids_of", "role_of"]

_PLACEHOLDERS: Final = ("__fake_id__", "scripted-message")
"""What the SDK writes as the id of every item that comes from a provider without ids, or from its scripted model."""
_LONGEST: Final = 200
"""Characters of an item's own id that its client id repeats; the digest tells longer ones apart."""


def role_of(item: Mapping[str, Any]) -> str:
    """Return the role that an item is stored under: its own, or the one that its type means.

    Outputs of tools are ``tool``; the answer to an approval request is the ``user``'s; everything else without a role,
    such as reasoning and calls, is the ``assistant``'s.
    """
    role = item.get("role")
    if isinstance(role, str) and role:
        return role
    kind = item.get("type")
    if kind == "mcp_approval_response":
        return "user"
    return "tool" if isinstance(kind, str) and kind.endswith("_output") else "assistant"


def client_id_of(item: Mapping[str, Any]) -> str | None:
    """Return the id under which a repeated append of an item is noticed, or None: the item has no identity of its own.

    The identity is the item's ``id`` together with its whole content. So the same item is not stored twice, and a
    changed item of the same id is stored. A ``call_id`` is no identity, because a provider may use it again in the next
    run; nor is an ``id`` that repeats it, or a placeholder.
    """
    own = item.get("id")
    if not isinstance(own, str) or not own or own in _PLACEHOLDERS or own == item.get("call_id"):
        return None
    return _id_of(own, item)


def client_ids_of(items: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Return the client id of each item of those that are appended together.

    An output without an id takes its identity from its call, where that is among them and has one.
    """
    ids = [client_id_of(item) for item in items]
    calls = [(item["call_id"], id_) for item, id_ in zip(items, ids, strict=True) if id_ and "call_id" in item]
    for place, item in enumerate(items):
        if ids[place] is None and str(item.get("type")).endswith("_output"):
            call = next((id_ for call_id, id_ in calls if call_id == item.get("call_id")), None)
            ids[place] = None if call is None else _id_of(call, item)
    return ids


def _id_of(identity: str, item: Mapping[str, Any]) -> str | None:
    try:
        content = json.dumps([identity, item], sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        return None  # No JSON; storing it says what is wrong.
    digest = blake2b(content, digest_size=16).hexdigest()
    readable = identity.isascii() and identity.isprintable()
    return f"{identity[:_LONGEST]}#{digest}" if readable else f"#{digest}"
