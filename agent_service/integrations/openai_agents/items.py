"""Items of the Responses API as the SDK stores them: whose they are, and which of them have an identity of their own.

Nothing here imports the SDK, so that importers can use it without.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

__all__ = ["client_id_of", "client_ids_of", "role_of"]

_PLACEHOLDER: Final = "__fake_id__"
"""What the SDK writes as the id of every item that comes from a provider without ids."""
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

    The identity is the item's ``id``, else the call that an output answers, or the request that an approval answers,
    together with the whole content. So the same item is not stored twice, and a changed item of the same id is.
    Messages of users have no id, and the placeholder that the SDK writes for providers without ids is none.
    """
    identity = _identity(item)
    if identity is None:
        return None
    try:
        content = json.dumps(item, sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        return None  # No JSON; storing it says what is wrong.
    digest = blake2b(content, digest_size=16).hexdigest()
    readable = identity.isascii() and identity.isprintable()
    return f"{identity[:_LONGEST]}#{digest}" if readable else f"#{digest}"


def client_ids_of(items: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Return the client id of each item that is appended together.

    An output whose call is among them and has no identity has none either: providers without ids may count calls from
    the beginning in every turn, and then an equal output is another one.
    """
    counted = [item["call_id"] for item in items if item.get("id") == _PLACEHOLDER and "call_id" in item]
    return [None if _is_output(item) and item.get("call_id") in counted else client_id_of(item) for item in items]


def _identity(item: Mapping[str, Any]) -> str | None:
    own = item.get("id")
    if isinstance(own, str) and own:
        return None if own == _PLACEHOLDER else own
    answered = item.get("call_id") if _is_output(item) else item.get("approval_request_id")
    return answered if isinstance(answered, str) and answered else None


def _is_output(item: Mapping[str, Any]) -> bool:
    kind = item.get("type")
    return isinstance(kind, str) and kind.endswith("_output")
