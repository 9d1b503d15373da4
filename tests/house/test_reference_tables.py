"""The tables of settings and of errors say what the code says, no more and no less."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr

from agent_service.core import errors
from agent_service.core.settings import Settings
from benchmarks.conformance.table import ROWS

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """Yield the cells of the rows of the first table whose first cell is ``heading``."""
    lines = iter((DOCS / page).read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            next(lines)
            break
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def shown(default: object) -> str:
    if default is None:
        return "unset"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_table_of_settings_has_every_setting_with_its_default():
    table = {name.strip("`"): default for name, default, _ in rows("settings.md", "setting")}
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}

    assert table.keys() == defaults.keys(), "add a row to the table of docs/settings.md"
    in_words = {"DATABASE_URL": "a SQLite file", "DATABASE_REPLICA_URL": "none"}
    expected = {name: in_words.get(name) or shown(default) for name, default in defaults.items()}
    assert table == expected
    assert isinstance(defaults["DATABASE_URL"], SecretStr)
    assert "sqlite" in defaults["DATABASE_URL"].get_secret_value()


def test_the_table_of_errors_has_every_exception_with_what_it_is():
    table = {name.strip("`"): re.findall(r"`(\w+)`", parents) for name, parents, _, _ in rows("errors.md", "exception")}
    raised = {name: getattr(errors, name) for name in errors.__all__}

    assert table == {name: [parent.__name__ for parent in kind.__bases__] for name, kind in raised.items()}


def test_each_row_of_the_errors_says_when_and_what_to_do():
    assert [name for name, _, when, remedy in rows("errors.md", "exception") if not (when and remedy)] == []


def test_the_comparison_has_every_probe_in_order_for_others_and_for_us():
    text = (DOCS / "comparison.md").read_text(encoding="utf-8")
    others, ours = text.split("### agent_service")

    for part in (others, ours):
        tables = re.findall(r"(?m)^\| behaviour \|.*\n\|[-|]+\n((?:\|.*\n)+)", part)
        behaviours = [line.split(" | ")[0].removeprefix("| ") for table in tables for line in table.splitlines()]
        assert behaviours == [row.behaviour for row in ROWS], "run python -m benchmarks.conformance, and write it down"
