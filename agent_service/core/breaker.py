"""A circuit breaker: pure state and time, no I/O.

::

    CLOSED --failure--> OPEN --wait is over--> HALF_OPEN --probe fails--> OPEN (longer wait)
      ^                                            |
      |                                      probe succeeds
      |                                            v
      +---------------- close() --------------- RECOVERING --failure--> OPEN (longer wait)

CLOSED is the only state in which the protected service serves. HALF_OPEN admits one probe. RECOVERING means that the
service answers but may not serve yet: the writes that it missed have to be replayed first.
"""

from enum import StrEnum
from typing import Final

from agent_service.core.backoff import Backoff
from agent_service.core.clock import SYSTEM_CLOCK, Clock

__all__ = ["BreakerState", "CircuitBreaker"]

_MANY: Final = 32
"""Attempts after which the wait is the longest, whatever the first wait is."""


class BreakerState(StrEnum):
    """The states of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    RECOVERING = "recovering"


class CircuitBreaker:
    """Opens on the first failure; waits ``open_seconds``, doubled by each failed attempt up to ``max_open_seconds``.

    Each wait is shortened at random by up to half, so that many processes do not probe in step. Not thread-safe: it
    belongs to one event loop.
    """

    def __init__(
        self, open_seconds: float = 0.5, *, max_open_seconds: float = 30.0, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._pauses = Backoff(open_seconds, max(max_open_seconds, open_seconds))
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._attempts = 0
        self._retry_at = 0.0
        self.closed = True
        """Whether the service may serve: one attribute, so that a hot path costs one lookup."""

    @property
    def state(self) -> BreakerState:
        """The present state."""
        return self._state

    def failed(self, *, again: bool = False) -> bool:
        """Record a failure; True when it changed CLOSED to OPEN.

        While OPEN or HALF_OPEN further failures of late operations change nothing; only :meth:`attempt_failed`
        ends a probe.

        :param again: whether the last recovery did not hold; then the wait is the longest at once.
        """
        if self._state is not BreakerState.CLOSED:
            return False
        self._attempts = _MANY if again else 0
        self._open()
        return True

    def try_probe(self, *, at_once: bool = False) -> bool:
        """Move from OPEN to HALF_OPEN when the wait is over. True for exactly one caller, who then must probe.

        :param at_once: do not wait.
        """
        if self._state is not BreakerState.OPEN or (not at_once and self._clock.monotonic() < self._retry_at):
            return False
        self._state = BreakerState.HALF_OPEN
        return True

    def probe_succeeded(self) -> None:
        """Move from HALF_OPEN to RECOVERING."""
        self._state = BreakerState.RECOVERING

    def attempt_failed(self) -> None:
        """Record that the probe or the recovery failed: OPEN again, for longer."""
        self._attempts += 1
        self._open()

    def close(self) -> None:
        """Record that the recovery is complete: the service serves again."""
        self._state = BreakerState.CLOSED
        self._attempts = 0
        self.closed = True

    def _open(self) -> None:
        self.closed = False
        self._state = BreakerState.OPEN
        self._retry_at = self._clock.monotonic() + self._pauses.pause(self._attempts)
