"""Pages can be read: no line of prose is longer than code may be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LONGEST = 120
"""The line length of ruff in pyproject.toml, too."""


def lines_too_long(text: str) -> Iterator[str]:
    """Yield long lines. A row of a table cannot be wrapped, nor an address that has a line to itself."""
    for number, line in enumerate(text.splitlines(), 1):
        can_be_wrapped = not line.startswith("|") and " " in line.strip().removeprefix("- ")
        if len(line) > LONGEST and can_be_wrapped:
            yield f"line {number} has {len(line)} characters: {line[:60]}..."


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_line_of_a_document_is_too_long(document: Path):
    assert list(lines_too_long(document.read_text(encoding="utf-8"))) == []


def test_a_long_line_is_found_and_a_row_or_an_address_is_not():
    words, address = "word " * 40, "https://example.org/" + "x" * 200

    found = list(lines_too_long(f"short\n{words}\n| {words} |\n{address}\n- {address}\n```\n{words}\n```\n"))

    assert [each.partition(" has")[0] for each in found] == ["line 2", "line 7"]
