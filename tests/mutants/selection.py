"""Which tests are asked about a mutant: those that run its lines, or that use what its lines define."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants.mutant import Mutant

__all__ = ["Selection"]

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Selection:
    """What was recorded (``recording``), and the sources it was recorded of."""

    root: Path
    recorded: list[dict[str, Any]]
    longest: float = 90.0
    """A mutant is asked about by so many seconds of tests at most, so that it has an end."""

    def __post_init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._sizes: Counter[str] = Counter()
        """How many lines each test runs."""
        self._lines: dict[str, dict[int, set[str]]] = {}
        for each in self.recorded:
            names = list(each["seconds"])
            self._seconds.update(each["seconds"])
            for path, lines in each["lines"].items():
                self._sizes.update(names[one] for ran in lines.values() for one in ran)
                for line, ran in lines.items():
                    self._lines.setdefault(path, {}).setdefault(int(line), set()).update(names[one] for one in ran)
        self._sources = {
            path.relative_to(self.root).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted((self.root / "agent_service").rglob("*.py"))
        }
        self._trees: dict[str, ast.Module] = {}

    def _tree(self, path: str) -> ast.Module:
        if path not in self._trees:
            self._trees[path] = ast.parse(self._sources[path])
        return self._trees[path]

    def seconds(self, test: str) -> float:
        """How long it took, unchanged."""
        return self._seconds[test]

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests to ask, in the order in which to ask them.

        Of each function one comes first, and of those the ones that are short and run little beside the mutant's file.
        """
        names = self._of_lua(mutant.path) if mutant.path.endswith(".lua") else self._of_lines(mutant)
        inside = Counter(name for ran in self._lines.get(mutant.path, {}).values() for name in ran if name in names)
        nth: Counter[str] = Counter()
        ranked = []
        for name in sorted(names, key=lambda each: (self._seconds[each], each)):
            function = name.partition("[")[0]
            nth[function] += 1
            ranked.append((nth[function], self._seconds[name] * self._sizes[name] / (1 + inside[name]), name))
        chosen: list[str] = []
        total = 0.0
        for _, _, name in sorted(ranked):
            seconds = self._seconds[name]
            if not chosen or total + seconds <= self.longest:
                chosen.append(name)
                total += seconds
        return chosen

    def _of_lines(self, mutant: Mutant) -> set[str]:
        ran = self._lines.get(mutant.path, {})
        direct = set().union(*(ran.get(line, set()) for line in range(mutant.line, mutant.last_line + 1)))
        if direct:
            return direct
        return self._of_definition(mutant.path, self._tree(mutant.path), mutant.line, set())

    def _of_definition(self, path: str, tree: ast.Module, line: int, seen: set[tuple[str, str]]) -> set[str]:
        """What runs at import only: ask whoever uses the name that it defines."""
        for statement in tree.body:
            first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))])
            if not first <= line <= (statement.end_lineno or first):
                continue
            ran = self._lines.get(path, {})
            if isinstance(statement, ast.ClassDef | _Function):
                inside = _body_lines(statement, line)
                found = set().union(*(ran.get(each, set()) for each in inside))
                return found or self._of_name(path, statement.name, seen)
            return set().union(*(self._of_name(path, name, seen) for name in _assigned(statement)))
        return set()

    def _of_name(self, path: str, name: str, seen: set[tuple[str, str]]) -> set[str]:
        if (path, name) in seen:
            return set()
        seen.add((path, name))
        word = re.compile(rf"\b{re.escape(name)}\b")
        found = set() if name.startswith("_") else self._naming(word)
        for other, source in self._sources.items():
            if not (other == path or (not name.startswith("_") and word.search(source))):
                continue
            ran, tree = self._lines.get(other, {}), self._tree(other)
            for number, text in enumerate(source.splitlines(), 1):
                if word.search(text) and not text.startswith(("from ", "import ")):
                    found |= ran.get(number) or self._of_definition(other, tree, number, seen)
        return found

    def _naming(self, word: re.Pattern[str]) -> set[str]:
        """The tests of those files that use the name themselves."""
        files = {test.partition("::")[0] for test in self._seconds}
        naming = {file for file in files if word.search((self.root / file).read_text(encoding="utf-8"))}
        return {test for test in self._seconds if test.partition("::")[0] in naming}

    def _of_lua(self, path: str) -> set[str]:
        found: set[str] = set()
        loads = re.compile(rf"""load_script\([^)]*["']{re.escape(Path(path).stem)}["']""")
        for other, source in self._sources.items():
            for number, text in enumerate(source.splitlines(), 1):
                if loads.search(text):
                    found |= self._of_definition(other, self._tree(other), number, set())
        return found


def _body_lines(statement: ast.ClassDef | _Function, line: int) -> Iterable[int]:
    """The lines of the innermost definition around a line."""
    innermost: ast.stmt = statement
    for each in ast.walk(statement):
        if isinstance(each, ast.ClassDef | _Function) and each.lineno <= line <= (each.end_lineno or 0):
            innermost = each
    return range(innermost.lineno, (innermost.end_lineno or innermost.lineno) + 1)


def _assigned(statement: ast.stmt) -> Iterator[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id
