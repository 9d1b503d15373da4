"""Errors that are ADK's and ours at once, so that callers of either catch them."""

from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError as AdkNotFoundError

from agent_service.core.errors import SessionConflictError, SessionNotFoundError

__all__ = ["AdkSessionExistsError", "AdkSessionNotFoundError", "AdkStaleSessionError"]


class AdkStaleSessionError(StaleSessionError, SessionConflictError):
    """The session object does not have what others appended since it was read; nothing was stored. Read it again."""


class AdkSessionNotFoundError(AdkNotFoundError, SessionNotFoundError):
    """There is no such session of this app and user; nothing was stored."""


class AdkSessionExistsError(AlreadyExistsError, SessionConflictError):
    """A session of this app and user has the id already; nothing was stored."""
