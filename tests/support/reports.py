"""A pytest plugin: every report can be sent from one process to another."""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write lone surrogates of captured output as escapes; no encoding of a channel takes them as they are."""
    report = yield
    report.sections = [(title, encodable(text)) for title, text in report.sections]
    return report


def encodable(text: str) -> str:
    """Return a text with its lone surrogates as ``\\udXXX`` escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
