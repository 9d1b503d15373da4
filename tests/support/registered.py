"""A pytest plugin: classes that a test registers with the codec are known in that test only."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_service.core.codec import register_type
from agent_service.core.values import registry


@pytest.fixture
def registered() -> Iterator[Callable[..., Any]]:
    """``register_type``, whose registrations end with the test."""
    classes, names = dict(registry.BY_CLASS), dict(registry.BY_NAME)
    yield register_type
    registry.BY_CLASS.clear()
    registry.BY_CLASS.update(classes)
    registry.BY_NAME.clear()
    registry.BY_NAME.update(names)
