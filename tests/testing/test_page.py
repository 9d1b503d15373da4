"""docs/testing.md, followed by somebody who copies its blocks into a project."""

from pathlib import Path

import pytest

from tests.house.snippets import python_blocks
from tests.testing.test_plugin import ASYNCIO, needs_redis

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]


@needs_redis
def test_the_blocks_of_the_page_pass_in_a_project_of_their_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    conftest, *module = [block for _, block in python_blocks((ROOT / "docs/testing.md").read_text(encoding="utf-8"))]
    pytester.makeini(ASYNCIO)
    pytester.makeconftest(conftest)
    pytester.makepyfile("\n".join(module))

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:valkey")

    result.assert_outcomes(passed=5)
