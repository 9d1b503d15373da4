"""ADK's session objects, as the service gives them: which stored session they are, and how far they know it."""

from typing import Any, Final
from uuid import UUID

from google.adk.sessions.session import Session
from pydantic import PrivateAttr

__all__ = ["StoredSession", "first_metadata", "id_of", "updated_at_first"]

_METADATA: Final = "google_adk"


class StoredSession(Session):
    """A session as it was read: the next append must come right after what it knows."""

    _row_id: UUID | None = PrivateAttr(default=None)
    _known_seq: int = PrivateAttr(default=0)

    @property
    def row_id(self) -> UUID | None:
        """The id of the stored session; None for one that was not read here."""
        return self._row_id

    @property
    def known_seq(self) -> int:
        """The number of the last event that this object knows, shown by it or not."""
        return self._known_seq

    def know(self, row_id: UUID, seq: int) -> None:
        """Note which stored session this is, and how far it is known."""
        self._row_id = row_id
        self._known_seq = seq


def first_metadata(session_id: str, created: float) -> dict[str, Any]:
    """Return the metadata of a new session: its id among the user's sessions, and when ADK says it was made."""
    return {_METADATA: {"id": session_id, "created": created}}


def id_of(row: Any) -> str:
    """Return a session's id as ADK knows it."""
    own = row.session_metadata.get(_METADATA)
    return str(own["id"]) if own else str(row.id)


def updated_at_first(row: Any) -> float:
    """Return the time of the last update of a session that has no events."""
    own = row.session_metadata.get(_METADATA)
    return float(own["created"]) if own else row.created_at.timestamp()
