"""Errors about one session that more than one room raises."""

from uuid import UUID

from agent_service.core.errors import SessionConflictError, SessionNotFoundError

__all__ = ["session_full", "session_not_found"]


def session_not_found(session_id: UUID, tenant_id: str) -> SessionNotFoundError:
    """Return the error for a session that its caller cannot see, whatever the reason."""
    tenant = f" of tenant {tenant_id!r}" if tenant_id else ""
    return SessionNotFoundError(f"there is no session {session_id}{tenant}; it never was, or it was deleted")


def session_full(session_id: object, last_seq: int, total_tokens: int) -> SessionConflictError:
    """Return the error for an append that a session's counters have no room for."""
    return SessionConflictError(
        f"could not append to session {session_id}: it is full, last_seq is {last_seq} and total_tokens is "
        f"{total_tokens}; go on in another session"
    )
