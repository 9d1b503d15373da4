"""What a run found and did."""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from agent_service.core.errors import AgentServiceError

__all__ = [
    "Change",
    "ImportProblem",
    "ImportReport",
    "ImportStoppedError",
    "Outcome",
    "Problems",
    "RefusedError",
]

MOST_PROBLEMS: Final = 100
"""Problems that a report names; it counts all."""

Change: TypeAlias = Literal["added", "extended", "unchanged"]


class ImportProblem(NamedTuple):
    """What could not be brought over: where it is in the source, and why. Never what it says."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(slots=True)
class Problems:
    """Problems in their order; only the first hundred are kept."""

    first: list[ImportProblem] = field(default_factory=list)
    count: int = 0

    def add(self, problem: ImportProblem) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.count += 1
        if len(self.first) < MOST_PROBLEMS:
            self.first.append(problem)

    def add_all(self, others: "Problems") -> None:
        """Add what others have."""
        kept = MOST_PROBLEMS - len(self.first)
        self.first += others.first[:kept]
        self.count += others.count


@dataclass(slots=True)
class ImportReport:
    """Counts of one run, which may have gone on where an earlier one ended.

    A *conversation* is a session, or a thread of LangGraph; an *item* is one entry of it: an item of the Responses API,
    an event, or a checkpoint, value or write. The state of apps and users of ADK counts as conversations without items.

    :param source: the database, without user name and password.
    :param total: conversations that the source had when the run began.
    :param earlier: conversations that earlier runs had brought over, so that this one did not read them again.
    :param added: conversations that the target did not have.
    :param extended: conversations that had grown in the source.
    :param unchanged: conversations that the target had already, item by item.
    :param skipped: conversations that could not be brought over.
    :param items: items that were compared with the target, or written, read back and compared.
    :param items_added: those of them that were written.
    :param items_skipped: items that could not be brought over.
    :param problems: what was skipped, also by the interrupted runs that this one went on from.
    :param dry_run: nothing was written: the counts say what a run would do.
    """

    source: str
    total: int = 0
    earlier: int = 0
    added: int = 0
    extended: int = 0
    unchanged: int = 0
    skipped: int = 0
    items: int = 0
    items_added: int = 0
    items_skipped: int = 0
    dry_run: bool = False
    seconds: float = 0.0
    problems: Problems = field(default_factory=Problems)

    @property
    def conversations(self) -> int:
        """How many conversations this run has looked at."""
        return self.added + self.extended + self.unchanged + self.skipped

    @property
    def fraction(self) -> float:
        """The fraction of the source's conversations that is done, 0 to 1."""
        return min((self.earlier + self.conversations) / self.total, 1.0) if self.total else 1.0

    @property
    def changed(self) -> bool:
        """Whether the run has written anything, or would."""
        return bool(self.added or self.extended)

    def count(self, outcome: "Outcome") -> None:
        """Count a conversation."""
        setattr(self, outcome.change, getattr(self, outcome.change) + 1)
        self.items += outcome.items
        self.items_added += outcome.added
        self.items_skipped += outcome.problems.count
        self.problems.add_all(outcome.problems)

    def skip(self, problem: ImportProblem) -> None:
        """Count a conversation that could not be brought over."""
        self.skipped += 1
        self.problems.add(problem)


class Outcome(NamedTuple):
    """What became of one conversation.

    :param items: how many of its items are in the target as the source has them.
    :param added: how many of them were written.
    :param problems: the items that are not.
    """

    change: Change
    items: int
    added: int
    problems: Problems


class RefusedError(Exception):
    """A conversation, or one item of it, cannot be brought over."""

    def __init__(self, problem: ImportProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class ImportStoppedError(AgentServiceError):
    """A run came upon something that it cannot bring over; nothing of that conversation was written.

    ``problem`` says where and why, ``report`` what was done before. Another run goes on from there.
    """

    def __init__(self, problem: ImportProblem, report: ImportReport) -> None:
        super().__init__(
            f"stopped after {report.conversations} conversations at {problem}; mend it and run the import again, which "
            "goes on from there, or have it skip what it cannot bring over"
        )
        self.problem = problem
        self.report = report
