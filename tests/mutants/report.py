"""The report: how many of each file's mutants were noticed, and every one that was not, with the reason."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.mutants.mutant import Mutant
from tests.mutants.results import Result

__all__ = ["THRESHOLD", "passes", "write_report"]

THRESHOLD = 0.9
"""The part of the mutants that has to be killed."""


def passes(results: Sequence[Result], explained: Mapping[str, str]) -> bool:
    """Whether enough were killed, and each survivor is explained."""
    dead = sum(result.is_dead for result in results)
    unexplained = [result for result in results if not result.is_dead and result.id not in explained]
    return not unexplained and dead >= THRESHOLD * len(results)


def write_report(found: Sequence[tuple[Mutant, Result]], explained: Mapping[str, str], *, asked_for: str) -> str:
    """Return the report as Markdown.

    :param asked_for: which files and which sample, in words.
    """
    lines = ["# Mutants", "", f"Written by `make mutants` ({asked_for}).", ""]
    lines += ["| file | mutants | killed | hung | survived | explained | dead |", "|---|---|---|---|---|---|---|"]
    rows: dict[str, list[Result]] = {}
    for mutant, result in found:
        rows.setdefault(mutant.path, []).append(result)
    for path, results in sorted(rows.items()):
        lines.append(_row(f"`{path}`", results, explained))
    lines += [_row("all", [result for _, result in found], explained), "", "## Survivors", ""]
    for mutant, result in found:
        if not result.is_dead:
            why = explained.get(mutant.id, "**not explained**")
            lines += [f"`{mutant.id}` {mutant.path}:{mutant.line}, {mutant.kind} ({result.outcome}): {why}", ""]
            lines += ["```diff", mutant.diff, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(name: str, results: Sequence[Result], explained: Mapping[str, str]) -> str:
    counted = Counter(result.outcome for result in results)
    dead = counted["killed"] + counted["hung"]
    survivors = [result for result in results if not result.is_dead]
    because = sum(result.id in explained for result in survivors)
    part = f"{100 * dead / len(results):.0f} %" if results else "-"
    return (
        f"| {name} | {len(results)} | {counted['killed']} | {counted['hung']} | {len(survivors)} | {because} | {part} |"
    )
