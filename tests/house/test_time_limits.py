"""A limit in seconds that only ends what hangs is long: a busy machine takes a hundred times as long as an idle one."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
SHORTEST = 30.0
"""Seconds. Below one second a limit is what a test is about: it cancels something."""
MEANT = {
    "database/test_url_parameters.py": "less than the 10 s that the driver would wait by itself",
}
WAITS = {"asyncio.timeout": 0, "asyncio.wait_for": 1, "asyncio.wait": 1, "until": 1}
"""Which argument holds the seconds."""


def short_limits(source: str) -> Iterator[str]:
    """Yield calls that give up after a few seconds."""
    if not any(f"{name}(" in source for name in WAITS):
        return
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name | ast.Attribute)
            and (place := WAITS.get(ast.unparse(node.func))) is not None
        ):
            given = [*node.args[place:], *(each.value for each in node.keywords)]
            seconds = [each.value for each in given if isinstance(each, ast.Constant)]
            if any(isinstance(each, int | float) and 1 <= each < SHORTEST for each in seconds):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def test_no_wait_gives_up_before_a_busy_machine_is_done():
    found = {
        path.relative_to(TESTS).as_posix(): limits
        for path in sorted(TESTS.rglob("*.py"))
        if (limits := list(short_limits(path.read_text(encoding="utf-8"))))
    }

    assert found.keys() == MEANT.keys(), found


def test_a_short_limit_is_found_and_one_that_cancels_is_not():
    source = "asyncio.timeout(5)\nasyncio.timeout(60)\nasyncio.wait_for(x, 0.05)\nuntil(x, seconds=10)\nuntil(x)\n"

    assert [each.partition(":")[0] for each in short_limits(source)] == ["line 1", "line 4"]
