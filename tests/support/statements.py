"""
What the engines of one run have compiled, kept for those that come after them.

Each test has an engine of its own, and to compile a statement takes longer than to execute it. What is compiled depends
on the kind of an engine's dialect and the server's version, and not on the engine: names of tables are set afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import LRUCache

from agent_service.infrastructure.database.engine.creating import create_engine

SIZE = 2_000


class SharedStatements(LRUCache[Any, Any]):
    """SQLAlchemy's cache of compiled statements, for every dialect of one kind alike."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_alike(key), default)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_alike(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_alike(key), value)


def _alike(key: tuple[Any, ...]) -> tuple[Any, ...]:
    dialect, *statement = key
    return type(dialect), getattr(dialect, "server_version_info", None), *statement


@contextmanager
def shared() -> Iterator[None]:
    """Have the engines of managers share what they compile, for as long as the block runs."""
    statements = SharedStatements(SIZE)

    def make(*args: Any, **options: Any) -> AsyncEngine:
        engine = create_engine(*args, **options)
        engine.sync_engine._compiled_cache = statements
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent_service.infrastructure.database.engine.manager.create_engine", make)
        yield
