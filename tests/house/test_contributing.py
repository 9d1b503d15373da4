"""The pages for contributors are true: what they build keeps the contracts that it is said to keep."""

import asyncio
from pathlib import Path
from typing import Any

from tests.house.snippets import run_document

PAGES = Path(__file__).parents[2] / "docs" / "contributing"


def built_on(page: str) -> dict[str, Any]:
    """Return what a page defines. Its test classes are collected below as the page has them."""
    return asyncio.run(run_document(PAGES / page))


cache = built_on("add-a-cache-backend.md")
contexts = built_on("add-a-context-store.md")

TestTheCacheOfThePage = cache["TestShelf"]
TestTheStoreOfThePage = contexts["TestShelfContextStore"]
TestTheStoreOfFourMethods = contexts["TestFourMethodStore"]
TestTheStoreThatExpires = contexts["TestExpiringShelfContextStore"]


def test_no_test_class_of_a_page_is_left_out():
    built = {each for names in (cache, contexts) for each in names if each.startswith("Test")}

    assert built == {"TestShelf", "TestShelfContextStore", "TestFourMethodStore", "TestExpiringShelfContextStore"}
