"""
Blocks that can be pasted into ``python -m asyncio``; ``python -m tests.house.pasting PAGE ...`` rewrites pages.

Up to Python 3.12 that prompt takes one line at a time. A blank line ends an indented block, so none may stand inside of
one, and one must stand after it. Blank lines in brackets and strings end nothing.

The formatter puts a blank line before each method, so a class on a page has attributes, or one method.
"""

import ast
import codeop
import sys
import tokenize
from io import StringIO
from pathlib import Path

from tests.house.snippets import python_blocks

__all__ = ["pasteable", "statements_pasted"]


def statements_pasted(source: str) -> list[str]:
    """
    Return the statements that the prompt makes of lines, one at a time, as ``ast.dump`` shows them.

    :raises SyntaxError: where the prompt would print one.
    """
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    found: list[str] = []
    waiting: list[str] = []
    for line in [*source.splitlines(), ""]:
        waiting.append(line)
        text = "\n".join(waiting)
        if compiler(text, "<pasted>", "single") is not None:
            found += [ast.dump(each) for each in ast.parse(text).body]
            waiting = []
    if any(line.strip() for line in waiting):
        raise SyntaxError(f"the prompt waits for more after: {waiting[0]}")
    return found


def pasteable(source: str) -> str:
    """Return a block with the same statements and other blank lines, so that it can be pasted."""
    lines = source.splitlines()
    kept_as_it_is = _lines_in_brackets_and_strings(source)
    blocks = [(each.lineno, each.end_lineno or 0) for each in ast.parse(source).body if hasattr(each, "body")]
    pasted: list[str] = []
    for number, line in enumerate(lines, 1):
        in_a_block = any(first <= number <= last for first, last in blocks)
        if line.strip() or not in_a_block or number in kept_as_it_is:
            pasted.append(line)
        if any(number == last for _, last in blocks) and number < len(lines) and lines[number].strip():
            pasted.append("")
    return "\n".join(pasted) + "\n"


def _lines_in_brackets_and_strings(source: str) -> set[int]:
    """Return the numbers of lines that begin inside of brackets or a string."""
    inside: set[int] = set()
    depth, opened = 0, 0
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.STRING:
            inside.update(range(token.start[0] + 1, token.end[0] + 1))
        elif token.type == tokenize.OP and token.string in "([{":
            depth, opened = depth + 1, opened if depth else token.start[0]
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
            if not depth:
                inside.update(range(opened + 1, token.end[0] + 1))
    return inside


def rewrite(page: Path) -> bool:
    """Make the blocks of a page pasteable; return whether anything changed."""
    text = before = page.read_text(encoding="utf-8")
    for _, source in python_blocks(before):
        text = text.replace(f"```python\n{source}```", f"```python\n{pasteable(source)}```")
    page.write_text(text, encoding="utf-8")
    return text != before


if __name__ == "__main__":
    for name in sys.argv[1:]:
        if rewrite(Path(name)):
            print("rewritten:", name)  # noqa: T201
