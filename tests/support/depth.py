"""How many examples a property gets: few in each run of the tests, more where somebody asks for depth."""

import os

__all__ = ["examples"]


def examples(quick: int, deep: int) -> int:
    """Return ``quick``, or ``deep`` where TEST_DEPTH is ``deep``, as ``make faults`` sets it.

    :param quick: enough to notice the faults that the test was written for, nearly each time.
    """
    return deep if os.environ.get("TEST_DEPTH") == "deep" else quick
