"""A caller of the writer, who waits for an answer."""

import asyncio
from dataclasses import dataclass, field

from agent_service.core.errors import AgentServiceError
from agent_service.core.exception_copies import bare_copy
from agent_service.infrastructure.database.append.message import PendingMessage
from agent_service.infrastructure.database.models.message import SessionMessage

__all__ = ["Request"]


@dataclass(slots=True, eq=False)
class Request:
    """A message, and the future of its answer.

    :param sent: whether the message was sent to the database, so that it may be stored.
    :param repetitions: requests of other callers for the same key, which are answered with this one.
    """

    message: PendingMessage
    future: "asyncio.Future[SessionMessage]"
    sent: bool = False
    repetitions: list["Request"] = field(default_factory=list)

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return any(not future.done() for future in self._futures())

    @property
    def size(self) -> int:
        """Characters of its message."""
        return len(self.message.text)

    def mark_sent(self) -> None:
        """Note that the message is about to be sent."""
        for request in (self, *self.repetitions):
            request.sent = True

    def succeed(self, stored: SessionMessage) -> None:
        """Answer everyone who waits with the stored message."""
        for future in self._futures():
            if not future.done():
                future.set_result(stored)

    def fail(self, error: AgentServiceError, cause: BaseException | None = None) -> None:
        """Answer everyone who waits with an error: each gets one of their own, for their own traceback."""
        for future in self._futures():
            if not future.done():
                own = bare_copy(error)
                own.__cause__ = cause
                future.set_exception(own)

    def leave(self) -> None:
        """Wait no longer: what was not sent yet never will be."""
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()  # Marks an error that came too late as seen, so that asyncio does not log it.

    def _futures(self) -> "list[asyncio.Future[SessionMessage]]":
        return [self.future, *(each.future for each in self.repetitions)]
