"""Every block of a page can be pasted into ``python -m asyncio``, on Python 3.11 too."""

import ast
import os
import pty
import sys
import time
from pathlib import Path
from select import select

import pytest

from tests.house.pasting import pasteable, statements_pasted
from tests.house.snippets import python_blocks
from tests.support.forked import CHECKOUT

PAGES = sorted([CHECKOUT / "README.md", *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("docs/how-to/*.md")])
SECONDS = 100


def statements(source: str) -> list[str]:
    return [ast.dump(each) for each in ast.parse(source).body]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_prompt_makes_the_same_statements_of_each_block(page: Path):
    for line, source in python_blocks(page.read_text(encoding="utf-8")):
        try:
            pasted = statements_pasted(source)
        except SyntaxError as error:
            pasted = [f"{error.msg}: {error.text}"]

        remedy = f"line {line}: run python -m tests.house.pasting {page.relative_to(CHECKOUT)}"
        assert pasted == statements(source), remedy


def test_blank_lines_are_moved_and_nothing_else():
    source = (
        "@f\ndef a():\n    x = [\n\n        1,\n    ]\n\n    return '''\n\n'''\n"
        "if b:\n    c()\n\nelse:\n    d()\nawait e(\n\n)\n"
    )

    pasted = pasteable(source)

    assert statements(pasted) == statements(source) == statements_pasted(pasted)
    assert pasted == (
        "@f\ndef a():\n    x = [\n\n        1,\n    ]\n    return '''\n\n'''\n\n"
        "if b:\n    c()\nelse:\n    d()\n\nawait e(\n\n)\n"
    )


@pytest.mark.parametrize("source", ["def f():\n    a = 1\n\n    return a\n", "if a:\n    b()\nc()\n"])
def test_what_the_prompt_refuses_is_noticed(source: str):
    with pytest.raises(SyntaxError):
        statements_pasted(source)


def test_a_real_prompt_takes_the_first_block_of_the_readme(home: Path):
    _, source = next(python_blocks((CHECKOUT / "README.md").read_text(encoding="utf-8")))

    shown = typed(source + "\nprint('the', 'end')\n", until="the end", folder=home)

    assert "Error" not in shown
    assert [line for line in shown.splitlines() if line in {"Ada", "Grace", "asking the database"}] == [
        *("asking the database", "Ada", "Ada"),
        *("asking the database", "Grace"),
    ]


def typed(text: str, *, until: str, folder: Path) -> str:
    """Paste text into ``python -m asyncio`` on a terminal, and return what the terminal shows up to some words."""
    child, terminal = pty.fork()
    if not child:
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHON_BASIC_REPL": "1", "TERM": "dumb"}
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, "-m", "asyncio"], environment)
    try:
        shown = read_until(terminal, ">>> import asyncio\n>>> ")
        os.write(terminal, text.encode())
        return shown + read_until(terminal, f"\n{until}")
    finally:
        os.close(terminal)  # which ends the prompt: it reads the end of its input
        os.waitpid(child, 0)


def read_until(terminal: int, words: str) -> str:
    shown, deadline = "", time.monotonic() + SECONDS
    while words not in shown:
        ready, _, _ = select([terminal], [], [], 1)
        shown += os.read(terminal, 4096).decode() if ready else ""
        shown = shown.replace("\r", "")
        assert time.monotonic() < deadline, shown
    return shown
