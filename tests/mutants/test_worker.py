"""The machinery, on a package of one function with three tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant, mutants_from
from tests.mutants.pool import Worker, running_worker
from tests.mutants.python import python_changes
from tests.mutants.recorded import recorded
from tests.mutants.report import passes, write_report
from tests.mutants.results import Result, Results
from tests.mutants.selection import Selection
from tests.mutants.targets import find_tests

LIMIT = """
LONGEST = 5


def limited(text):
    if len(text) > LONGEST:
        return text[:LONGEST]
    return text


def unasked():
    return 1


def climb():
    step = 1
    height = 0
    while height < 3:
        height += step
    return height
"""
TESTS = """
from agent_service.limit import climb, limited


def test_short_text_stays():
    assert limited("abc") == "abc"


def test_long_text_is_cut():
    assert len(limited("abcdefgh")) == 5


def test_climbing_ends():
    assert climb() == 3
"""
PATH = "agent_service/limit.py"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("agent_service", "tests", "tests/toy"):
        (root / folder).mkdir()
        (root / folder / "__init__.py").touch()
    (root / "pytest.ini").write_text("[pytest]\n")
    (root / PATH).write_text(LIMIT)
    (root / "tests/toy/test_limit.py").write_text(TESTS)
    return root


@pytest.fixture(scope="module")
def worker(checkout: Path) -> Iterator[Worker]:
    with running_worker(checkout, with_servers=False, patience=60) as worker:
        yield worker


@pytest.fixture(scope="module")
def selection(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Selection:
    return Selection(checkout, recorded(checkout, tmp_path_factory.mktemp("kept"), ["tests/toy/test_limit.py"]))


def mutant_of(line: str) -> Mutant:
    found = [each for each in mutants_from(PATH, LIMIT, python_changes(LIMIT)) if each.after.strip() == line]
    return found[0]


def ask(worker: Worker, selection: Selection, mutant: Mutant) -> tuple[str, str]:
    tests = {name: selection.seconds(name) for name in selection.tests_of(mutant)}
    answer = worker.ask(mutant.path, mutant.text, tests)
    return answer["outcome"], answer["by"].rpartition("::")[2]


def test_a_mutant_that_a_test_notices_is_killed(worker: Worker, selection: Selection):
    assert ask(worker, selection, mutant_of("if False:")) == ("killed", "test_long_text_is_cut")


def test_a_mutant_of_a_constant_is_shown_to_the_tests_of_those_who_use_it(worker: Worker, selection: Selection):
    assert ask(worker, selection, mutant_of("LONGEST = (5 + 1)")) == ("killed", "test_long_text_is_cut")


def test_a_mutant_that_no_test_notices_survives_and_the_next_one_meets_the_file_as_it_was(
    worker: Worker, selection: Selection
):
    survivor = ask(worker, selection, mutant_of("if len(text) >= LONGEST:"))

    assert survivor == ("survived", "")
    assert ask(worker, selection, mutant_of("if len(text) >= LONGEST:")) == ("survived", "")


def test_a_mutant_that_never_ends_is_hung(checkout: Path, selection: Selection):
    with running_worker(checkout, with_servers=False, patience=1) as impatient:
        assert ask(impatient, selection, mutant_of("height -= step")) == ("hung", "test_climbing_ends")


def test_lines_that_no_test_runs_have_no_tests(selection: Selection):
    assert selection.tests_of(mutant_of("return (1 + 1)")) == []


def result_of(mutant: Mutant, outcome: str, *, source: str = "s", tests: str = "t") -> Result:
    return Result(mutant.id, source, tests, outcome, "", 1.0)


def test_a_death_is_remembered_until_the_file_changes_and_a_survival_until_a_test_does(tmp_path: Path):
    dead, alive = mutant_of("if False:"), mutant_of("if len(text) >= LONGEST:")
    Results(tmp_path / "r").add(result_of(dead, "killed"))
    Results(tmp_path / "r").add(result_of(alive, "survived"))

    again = Results(tmp_path / "r")

    assert again.get(dead, "s", "others") is not None
    assert again.get(dead, "another", "t") is None
    assert again.get(alive, "s", "t") is not None
    assert again.get(alive, "s", "others") is None


def test_a_report_shows_each_survivor_and_why():
    dead, alive = mutant_of("if False:"), mutant_of("if len(text) >= LONGEST:")
    found = [(dead, result_of(dead, "killed")), (alive, result_of(alive, "survived"))]

    report = write_report(found, {alive.id: "cutting five of five changes nothing"}, asked_for="a test")

    assert f"| `{PATH}` | 2 | 1 | 0 | 1 | 1 | 50 % |" in report
    assert "+    if len(text) >= LONGEST:" in report
    assert "cutting five of five changes nothing" in report
    assert "**not explained**" in write_report(found, {}, asked_for="a test")


def test_a_run_passes_with_nine_of_ten_dead_and_the_others_explained():
    dead, alive = mutant_of("if False:"), mutant_of("if len(text) >= LONGEST:")
    nine, one = [result_of(dead, "killed")] * 9, result_of(alive, "survived")

    assert passes([*nine, one], {alive.id: "because"})
    assert not passes([*nine, one], {})
    assert not passes([*nine, one, one], {alive.id: "because"})


def test_the_rooms_of_a_file_are_asked_or_else_the_named_files_of_tests(tmp_path: Path):
    for name in (
        "database/test_append.py",
        "database/faults/test_kills.py",
        "database/append/writer.py",
        "redis/test_ops.py",
    ):
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).touch()
    path = "agent_service/infrastructure/database/append/writer.py"
    assert find_tests(tmp_path, path, []) == {"tests/database/test_append.py", "tests/database/faults/test_kills.py"}
    assert find_tests(tmp_path, path, ["tests/redis/test_*.py"]) == {"tests/redis/test_ops.py"}
