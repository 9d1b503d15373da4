"""A pytest plugin: the garbage collector never looks at the thousands of tests that were collected, which all stay."""

import gc

import pytest

gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Begin to collect garbage with what the tests themselves make."""
    gc.freeze()
    gc.enable()
