"""What a probe found."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Answer", "Verdict", "does_not_apply", "judge"]

Answer: TypeAlias = Literal["yes", "no", "n/a"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer, and the observation it rests on in a few words."""

    answer: Answer
    figure: str

    def __str__(self) -> str:
        return f"{self.answer} ({self.figure})"


def judge(holds: bool, figure: str) -> Verdict:
    """Yes or no."""
    return Verdict("yes" if holds else "no", figure)


def does_not_apply(reason: str) -> Verdict:
    """The row asks nothing of this cache, for this reason."""
    return Verdict("n/a", reason)
