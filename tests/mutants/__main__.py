"""``make mutants``; see ``python -m tests.mutants --help``."""

import argparse
import queue
import signal
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.mutants.lua import lua_changes
from tests.mutants.mutant import Mutant, mutants_from, sample
from tests.mutants.pool import Worker, running_worker
from tests.mutants.python import python_changes
from tests.mutants.recorded import digest_of, recorded
from tests.mutants.report import passes, write_report
from tests.mutants.results import Result, Results, explanations
from tests.mutants.selection import Selection
from tests.mutants.targets import find_targets, find_tests

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".mutants"
EXPLAINED = Path(__file__).parent / "explained.toml"


def main() -> int:
    """Run, write the report, and give 1 where a survivor is not explained or too many survived."""
    options = _options()
    targets = find_targets(ROOT, options.files)
    of_file = {path: list(_mutants_of(path)) for path in targets}
    everything = [mutant for mutants in of_file.values() for mutant in mutants]
    chosen = [each for mutants in of_file.values() for each in sample(mutants, options.per_file, options.seed)]
    if options.only:
        chosen = [mutant for mutant in everything if mutant.id in options.only]
    if options.list:
        for mutant in chosen:
            _say(f"{mutant.id} {mutant.path}:{mutant.line} {mutant.kind}\n{mutant.diff}")
        return 0
    found = _ask_about(chosen, options)
    explained = explanations(EXPLAINED, everything)
    asked_for = f"{len(targets)} files, {_sample_in_words(options.per_file, options.seed)}"
    if options.tests:
        asked_for += f", only the tests of {' '.join(options.tests)}"
    report = write_report(found, explained, asked_for=asked_for)
    (options.report or KEPT / "report.md").write_text(report, encoding="utf-8")
    results = [result for _, result in found]
    _say(report if len(report) < 4000 else f"the report is in {options.report or KEPT / 'report.md'}")
    return 0 if passes(results, explained) else 1


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Break the code in small ways; see what no test notices."
    )
    parser.add_argument(
        "--files", nargs="+", default=[], metavar="GLOB", help="these files instead of the written list"
    )
    parser.add_argument("--per-file", type=int, metavar="N", help="a sample of N mutants of each file; else all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (1)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ID", help="these mutants, even if their fate is known"
    )
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="GLOB", help="ask only these files of tests, of whatever room"
    )
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="side by side (2), each with its own servers"
    )
    parser.add_argument(
        "--seconds", type=float, default=90.0, metavar="S", help="of tests that are asked about a survivor (90)"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the report goes (.mutants/report.md)")
    return parser.parse_args()


def _sample_in_words(per_file: int | None, seed: int) -> str:
    return "every mutant" if per_file is None else f"a sample of {per_file} mutants of each, seed {seed}"


def _mutants_of(path: str) -> Iterable[Mutant]:
    source = (ROOT / path).read_text(encoding="utf-8")
    return mutants_from(path, source, (lua_changes if path.endswith(".lua") else python_changes)(source))


def _ask_about(chosen: Sequence[Mutant], options: argparse.Namespace) -> list[tuple[Mutant, Result]]:
    KEPT.mkdir(exist_ok=True)
    results = Results(KEPT / "results.jsonl")
    tests = " ".join([digest_of(ROOT, (ROOT / "tests").rglob("*.py")), *options.tests])
    sources = {mutant.path: digest_of(ROOT, [ROOT / mutant.path]) for mutant in chosen}
    known: dict[str, Result] = {}
    for mutant in chosen:
        result = None if options.only else results.get(mutant, sources[mutant.path], tests)
        if result is not None:
            known[mutant.id] = result
    unknown = [mutant for mutant in chosen if mutant.id not in known]
    if unknown:
        files = {mutant.path: find_tests(ROOT, mutant.path, options.tests) for mutant in unknown}
        selection = Selection(ROOT, recorded(ROOT, KEPT, set().union(*files.values())), options.seconds)
        asked = [(mutant, _tests_of(mutant, selection, files[mutant.path])) for mutant in unknown]
        for number, (mutant, result) in enumerate(_answers(asked, options.workers, sources, tests), 1):
            results.add(result)
            known[mutant.id] = result
            mark = "" if result.is_dead else f"\n{mutant.diff}"
            where = f"{mutant.id} {mutant.path}:{mutant.line} {mutant.kind}"
            _say(f"[{number}/{len(unknown)}] {result.outcome} {result.seconds:.0f} s {where}{mark}")
    return [(mutant, known[mutant.id]) for mutant in chosen]


def _answers(
    asked: Sequence[tuple[Mutant, dict[str, float]]], workers: int, sources: dict[str, str], tests: str
) -> Iterable[tuple[Mutant, Result]]:
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()

    def ask(question: tuple[Mutant, dict[str, float]]) -> tuple[Mutant, Result]:
        mutant, chosen = question
        answer: dict[str, Any] = {"outcome": "untested", "by": "", "seconds": 0.0}
        if chosen:
            worker = idle.get()
            try:
                answer = worker.ask(mutant.path, mutant.text, chosen)
            finally:
                idle.put(worker)
        return mutant, Result(mutant.id, sources[mutant.path], tests, **answer)

    with ExitStack() as stack:
        for _ in range(workers):
            idle.put(stack.enter_context(running_worker(ROOT)))
        threads = ThreadPoolExecutor(workers)
        try:
            for done in as_completed([threads.submit(ask, question) for question in asked]):
                yield done.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _tests_of(mutant: Mutant, selection: Selection, files: set[str]) -> dict[str, float]:
    names = selection.tests_of(mutant)
    return {name: selection.seconds(name) for name in names if name.partition("::")[0] in files}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped
    sys.exit(main())
