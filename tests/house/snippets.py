"""Running documented code: fenced Python blocks, ``await`` at top level allowed, as in a REPL of asyncio."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def run_document(document: Path) -> dict[str, Any]:
    """Execute the blocks of a Markdown file from top to bottom in one namespace, and give it."""
    names: dict[str, Any] = {"__name__": "__main__"}  # as in the REPL; pydantic looks the module up
    for line, source in python_blocks(document.read_text(encoding="utf-8")):  # noqa: ASYNC240 - a small local file
        await run_block(source, names, filename=str(document), line=line)
    return names


def python_blocks(markdown: str) -> Iterator[tuple[int, str]]:
    """Return each fenced Python block with the line of the document that its first line is on."""
    for found in _FENCE.finditer(markdown):
        yield markdown.count("\n", 0, found.start(1)) + 1, found[1]


async def run_block(source: str, names: dict[str, Any], *, filename: str, line: int = 1) -> None:
    """Execute a block in ``names``, which it may read and change; tracebacks show the document's own lines."""
    code: CodeType = compile(
        "\n" * (line - 1) + source, filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    result = eval(code, names)
    if inspect.isawaitable(result):
        await result
