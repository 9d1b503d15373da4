"""How sessions and state of ADK are named among ours."""

from typing import Any, Final

from agent_service.core.errors import SessionValueError
from agent_service.infrastructure.database.repositories import external_id_of
from agent_service.infrastructure.database.values.validation import require_identifier

__all__ = ["app_key", "may_be", "own_id", "session_key", "user_key"]

_STATE: Final = "google-adk"


def session_key(app_name: str, user_id: str, session_id: str) -> str:
    """Return the external id of a session: ADK's sessions are told apart by app, user and id together.

    :raises SessionValueError: a part is no text.
    """
    return external_id_of(app_name, user_id, session_id)


def own_id(session_id: str) -> str:
    """Return a session's id as ADK keeps it: without white space around it.

    :raises SessionValueError: it is no text.
    """
    if not isinstance(session_id, str):
        raise SessionValueError(f"session_id must be a string, not {type(session_id).__name__}: {session_id!r:.80}")
    return session_id.strip()


def may_be(identifier: Any) -> bool:
    """Whether any session can have such an app or user."""
    try:
        require_identifier(identifier, "identifier")
    except SessionValueError:
        return False
    return isinstance(identifier, str)


def app_key(tenant_id: str, app_name: str) -> tuple[str, ...]:
    """Return the key of the context that holds an app's state."""
    return (_STATE, tenant_id, app_name)


def user_key(tenant_id: str, app_name: str, user_id: str) -> tuple[str, ...]:
    """Return the key of the context that holds the state of an app's user."""
    return (_STATE, tenant_id, app_name, user_id)
