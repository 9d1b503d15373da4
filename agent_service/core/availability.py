"""Whether a server can be used, as the log tells it: one line when an outage begins, and one when it is over.

Whoever uses a server reports here what it learns about it, so that an outage is told once, however much hangs on it.
What a server refuses is no outage: whoever is refused logs that.
"""

import asyncio
import logging
import time
from weakref import WeakValueDictionary

__all__ = ["Availability", "availability_of"]


class Availability:
    """The outages of one server, for all who use it in this process.

    The end of an outage is logged when somebody was answered and nobody has failed for a while: while one node of a
    cluster is down, and while those who waited notice that their connections are lost, answers and failures alternate.

    :param server: what the log calls it; nothing secret.
    :param log: of the subsystem that connects to it.
    :param quiet: seconds without a failure after which an outage is over.
    """

    def __init__(self, server: str, log: logging.Logger, *, quiet: float) -> None:
        self.away = False
        """Whether an outage was logged that is not over."""
        self._server = server
        self._log = log
        self._quiet = quiet
        self._failed_at = self._answered_at = 0.0
        self._settles_at = 0.0
        """When a timer looks whether the outage is over; it may be lost with its event loop."""

    def failed(self, reason: object) -> None:
        """Note that the server could not be reached, or did not answer."""
        self._failed_at = time.monotonic()
        if not self.away:
            self.away = True
            self._log.warning(
                "%s does not serve; what needs it waits or does without until it does: %s", self._server, reason
            )

    def answered(self) -> None:
        """Note that the server answered, on an event loop. Only needed while it is :attr:`away`."""
        self._answered_at = now = time.monotonic()
        if self.away and now > self._settles_at:
            self._settle(asyncio.get_running_loop())

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self.away or self._answered_at < self._failed_at:
            return
        left = self._failed_at + self._quiet - time.monotonic()
        if left > 0:
            self._settles_at = self._failed_at + self._quiet
            loop.call_later(left, self._settle, loop)
        else:
            self.away = False
            self._log.info("%s serves again", self._server)


_known: WeakValueDictionary[tuple[str, str], Availability] = WeakValueDictionary()


def availability_of(server: str, log: logging.Logger, *, quiet: float) -> Availability:
    """Return the availability of a server, the same for all who ask while one of them keeps it."""
    found = _known.get((log.name, server))
    if found is None:
        found = _known[log.name, server] = Availability(server, log, quiet=quiet)
    return found
