"""What appending measures in this process: its outcomes and durations, and the writers' batches."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from time import perf_counter
from typing import Any, Final, Protocol

from agent_service.core.errors import DatabaseError, DatabaseUnavailableError, SessionError
from agent_service.core.histogram import SIZES, Histogram
from agent_service.core.living import Living
from agent_service.core.measured import Sample, measured_by

__all__ = ["APPENDS", "AppendMetrics", "commit", "counted"]


class _Writer(Protocol):
    """An open writer."""

    @property
    def pending(self) -> int: ...


class AppendMetrics:
    """Counts of a process: all its writers and repositories, those that were closed among them."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """Messages by who appended them (``writer`` or ``repository``) and what came of it: ``ok`` (also where it was
        appended before under its client id), ``refused``, ``unavailable``, ``failed`` or ``cancelled``."""
        self.durations = {"writer": Histogram(), "repository": Histogram()}
        """Seconds from the call to its answer, by the same names. A batch of a repository counts once."""
        self.commits = Histogram()
        """Seconds that a writer's transaction took, whether it was committed or failed."""
        self.batches = Histogram(SIZES)
        """Messages in such a transaction."""
        self.writers: Living[_Writer] = Living()

    def snapshot(self) -> dict[str, Any]:
        """Return what writers count: ``commits``, ``messages`` in them, ``outcomes``, durations in milliseconds."""
        commits = self.commits.snapshot()
        return {
            "commits": commits.pop("count"),
            "messages": int(self.batches.total),
            "outcomes": {name: count for (way, name), count in self.outcomes.copy().items() if way == "writer"},
            "commit": commits,
            "append": self.durations["writer"].snapshot(),
        }

    def samples(self) -> Iterator[Sample]:
        """Yield what was counted, and what waits in the writers that are open."""
        for labels, count in self.outcomes.copy().items():
            yield Sample("session_appends", count, labels)
        for way, durations in self.durations.items():
            yield Sample("session_append_duration_seconds", durations, (way,))
        yield Sample("writer_commit_duration_seconds", self.commits)
        yield Sample("writer_batch_size", self.batches)
        yield Sample("writer_pending", sum(each.pending for each in self.writers.all()))


APPENDS: Final = AppendMetrics()
measured_by("appends", APPENDS.samples)


class counted(AbstractContextManager["counted"]):  # noqa: N801 - reads as a statement
    """Counts the block as the append of some messages, and measures it.

    :param way: ``writer`` or ``repository``.
    :param messages: how many; what the block appends may be known at its end only.
    """

    __slots__ = ("messages", "started", "way")

    def __init__(self, way: str, messages: int = 1) -> None:
        self.way = way
        self.messages = messages
        self.started = perf_counter()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        APPENDS.durations[self.way].observe(perf_counter() - self.started)
        APPENDS.outcomes[self.way, "ok" if exc is None else _outcome(exc)] += self.messages


def _outcome(exc: BaseException) -> str:
    if isinstance(exc, DatabaseUnavailableError | TimeoutError):
        return "unavailable"
    if isinstance(exc, SessionError) and not isinstance(exc, DatabaseError):
        return "refused"
    return "cancelled" if isinstance(exc, asyncio.CancelledError) else "failed"


class commit(AbstractContextManager["commit"]):  # noqa: N801 - as above
    """Measures the block as a transaction of a writer.

    :param messages: how many it appends.
    """

    __slots__ = ("messages", "started")

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.started = perf_counter()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: object) -> None:
        APPENDS.commits.observe(perf_counter() - self.started)
        APPENDS.batches.observe(self.messages)
