"""A pytest plugin: the garbage collector never looks at the thousands of tests that were collected, which all stay."""

import gc

import pytest

gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Begin to collect garbage with what the tests themselves make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module")
def little_garbage() -> None:
    """To collect all garbage is cheap in this module: the collector looks only at what the module itself makes.

    Otherwise it would look at whatever the tests before have left in memory, for half a second each time.
    """
    gc.collect()
    gc.freeze()
