"""A caller of the writer, who waits for an answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from agent_service.core.errors import AgentServiceError
from agent_service.core.exception_copies import bare_copy
from agent_service.infrastructure.database.append.message import PendingMessage
from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["Request"]


@dataclass(slots=True, eq=False)
class Request:
    """Messages of one session that are appended together, and the future of the answer.

    :param sent: whether they were sent to the database, so that they may be stored.
    """

    messages: Sequence[PendingMessage]
    future: "asyncio.Future[Sequence[SessionMessage]]"
    sent: bool = False

    @property
    def place(self) -> UUID:
        """The session of the messages."""
        return self.messages[0].session_id

    @property
    def count(self) -> int:
        """How many messages it has."""
        return len(self.messages)

    @property
    def size(self) -> int:
        """Characters of its messages."""
        return sum(len(message.text) for message in self.messages)

    @property
    def alone(self) -> bool:
        """Whether no other request of its session may be in its batch."""
        return any(message.alone for message in self.messages)

    @property
    def wanted(self) -> bool:
        """Whether the caller still waits for the answer."""
        return not self.future.done()

    @property
    def repeatable(self) -> bool:
        """Whether sending it again adds nothing that was added before."""
        return all(message.key is not None for message in self.messages)

    def succeed(self, stored: Sequence[SessionMessage]) -> None:
        """Answer the caller with the stored messages."""
        if not self.future.done():
            self.future.set_result(stored)

    def fail(self, error: AgentServiceError, cause: BaseException | None = None) -> None:
        """Answer the caller with an error: each gets one of their own, for their own traceback."""
        if not self.future.done():
            own = bare_copy(error)
            own.__cause__ = cause
            self.future.set_exception(own)

    def leave(self) -> None:
        """Wait no longer: what was not sent yet never will be."""
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()  # Marks an error that came too late as seen, so that asyncio does not log it.
