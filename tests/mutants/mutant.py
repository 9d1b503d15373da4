"""One small change of one file."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import unified_diff

__all__ = ["Change", "Mutant", "mutants_from", "other_number", "sample"]


@dataclass(frozen=True, slots=True)
class Change:
    """Characters ``start`` to ``end`` become ``text``; ``kind`` names the operator."""

    start: int
    end: int
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed file, told apart from all others by what its lines say, so that a line that moves keeps its mutants."""

    id: str
    path: str
    line: int
    last_line: int
    kind: str
    before: str
    after: str
    text: str

    @property
    def diff(self) -> str:
        """The lines that differ, as a diff shows them."""
        return "\n".join(
            each
            for each in unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=0)
            if not each.startswith(("---", "+++", "@@"))
        )


def mutants_from(path: str, source: str, changes: Iterable[Change]) -> Iterator[Mutant]:
    """Return a mutant for each change that changes anything, each text once."""
    seen: set[str] = set()
    repeated: dict[tuple[str, str], int] = {}
    for change in sorted(changes, key=lambda each: (each.start, each.end, each.kind, each.text)):
        text = source[: change.start] + change.text + source[change.end :]
        if text == source or text in seen:
            continue
        seen.add(text)
        begin = source.rfind("\n", 0, change.start) + 1
        end = source.find("\n", change.end)
        end = len(source) if end < 0 else end
        before = source[begin:end]
        after = source[begin : change.start] + change.text + source[change.end : end]
        what = (re.sub(r"\s+", " ", before).strip(), re.sub(r"\s+", " ", after).strip())
        repeated[what] = repeated.get(what, 0) + 1
        name = hashlib.sha1("\0".join([path, *what, str(repeated[what])]).encode(), usedforsecurity=False).hexdigest()[
            :8
        ]
        line = source.count("\n", 0, change.start) + 1
        last = source.count("\n", 0, max(change.start, change.end - 1)) + 1
        yield Mutant(name, path, line, last, change.kind, before, after, text)


def other_number(text: str) -> str:
    """Return another number than this one: one more where that matters, else twice as much."""
    return str(int(text) + 1 if int(text) <= 10 else 2 * int(text))


def sample(mutants: list[Mutant], size: int | None, seed: int) -> list[Mutant]:
    """Return ``size`` of them; which ones depends on the seed and on their names alone. None: all."""
    if size is None:
        return mutants

    def drawn(mutant: Mutant) -> str:
        return hashlib.sha1(f"{seed} {mutant.id}".encode(), usedforsecurity=False).hexdigest()

    chosen = {mutant.id for mutant in sorted(mutants, key=drawn)[:size]}
    return [mutant for mutant in mutants if mutant.id in chosen]
