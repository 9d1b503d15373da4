"""What came of each mutant, kept: a run that was broken off goes on, and a repeated one asks only what changed."""

import json
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant

__all__ = ["Result", "Results", "explanations"]


@dataclass(frozen=True, slots=True)
class Result:
    """``killed`` or ``hung`` (which is as good), ``survived``, or ``untested`` where no test runs its lines."""

    id: str
    source: str
    tests: str
    outcome: str
    by: str
    seconds: float

    @property
    def is_dead(self) -> bool:
        return self.outcome in {"killed", "hung"}


class Results:
    """The results in a file, one line each; the last one of a mutant counts.

    A mutant that died is dead as long as its file stays the same. One that survived is asked about again when any test
    has changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Result] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                result = Result(**json.loads(line))
                self._known[result.id] = result

    def get(self, mutant: Mutant, source: str, tests: str) -> Result | None:
        """Return what is known of a mutant and still holds."""
        result = self._known.get(mutant.id)
        if result is None or result.source != source or not (result.is_dead or result.tests == tests):
            return None
        return result

    def add(self, result: Result) -> None:
        """Keep a result."""
        self._known[result.id] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


def explanations(path: Path, mutants: Iterable[Mutant]) -> dict[str, str]:
    """Return why mutants survive, by their ids; those of ids that are gone are left out."""
    given = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    ids = {mutant.id for mutant in mutants}
    return {name: str(why) for table in given.values() for name, why in table.items() if name in ids}
