"""What triggers measure in this process."""

from collections import Counter
from collections.abc import Iterator
from typing import Final, Protocol

from agent_service.core.living import Living
from agent_service.core.measured import Sample, measured_by

__all__ = ["TRIGGERS", "TriggerMetrics"]


class _Runner(Protocol):
    """A runner that was started. What it knows of Redis is as old as its last look, 10 seconds at most."""

    @property
    def running(self) -> int: ...

    @property
    def pending(self) -> int: ...

    @property
    def late(self) -> int: ...

    @property
    def unhandled(self) -> int: ...


class TriggerMetrics:
    """Counts of all runners of the process, those that were stopped among them."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """``handled`` and ``failed`` attempts, and triggers that are ``dead``."""
        self.runners: Living[_Runner] = Living()

    def samples(self) -> Iterator[Sample]:
        """Yield what was counted, and what the runners know. Several know the same, so the largest number counts."""
        yield Sample("trigger_attempts", self.outcomes["handled"], ("ok",))
        yield Sample("trigger_attempts", self.outcomes["failed"], ("failed",))
        yield Sample("triggers_dead", self.outcomes["dead"])
        runners = self.runners.all()
        yield Sample("triggers_running", sum(each.running for each in runners))
        yield Sample("triggers_pending", max((each.pending for each in runners), default=0))
        yield Sample("triggers_late", max((each.late for each in runners), default=0))
        yield Sample("triggers_unhandled", max((each.unhandled for each in runners), default=0))


TRIGGERS: Final = TriggerMetrics()
measured_by("triggers", TRIGGERS.samples)
