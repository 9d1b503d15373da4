"""Programs of the system that some tests run, from packages of Debian."""

import os
import shutil
import sys
from typing import Final

import pytest

__all__ = ["program"]

_PACKAGES: Final = {"prometheus": "prometheus", "promtool": "prometheus", "chromium": "chromium"}


def program(name: str, *other_names: str) -> str:
    """Return the path of a program; without it the test is skipped, or fails under CI=true."""
    for each in (name, *other_names):
        if found := shutil.which(each):
            return found
    reason = f"{name} is not installed; on Debian and Ubuntu: apt install {_PACKAGES[name]}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    sys.stderr.write(f"\nSKIPPING a test: {reason}\n")
    pytest.skip(reason)
