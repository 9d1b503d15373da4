"""Each test begins with the default settings and empty caches, and leaves nothing behind."""

import asyncio
import functools
import inspect
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from agent_service.core.errors import ConfigurationError
from agent_service.core.settings import Settings, get_settings, reset_settings
from agent_service.infrastructure.cache.factory import close_cache, forget_memory
from agent_service.infrastructure.database.connection import close_database, connections_in_use
from agent_service.runtime.runtime import AgentRuntime
from agent_service.testing.kit.clock import ServiceClock
from agent_service.testing.kit.invalidations import Invalidations

__all__ = ["ServiceKit"]

_PATIENCE: Final = 2.0
"""Seconds for connections to be gone after they were closed."""


class ServiceKit:
    """The service of one test: its settings, its clock, what it invalidated.

    :param set_variable: sets an environment variable and restores it later, like ``monkeypatch.setenv``.
    """

    def __init__(self, set_variable: Callable[[str, str], None]) -> None:
        self.clock = ServiceClock()
        self.invalidated = Invalidations()
        self._set_variable = set_variable
        self._connections: list[Callable[[], int]] = []

    def configure(self, **settings: object) -> Settings:
        """Set settings for the rest of the test, by name, and return all of them; None: the default.

        Caches and databases that are open keep theirs, so do it first.

        :raises ConfigurationError: for an unknown name or a value that cannot be used.
        """
        unknown = sorted(name for name in settings if name.lower() not in Settings.model_fields)
        if unknown:
            raise ConfigurationError(f"there is no setting {unknown[0]!r}; see .env.example for all of them")
        for name, value in settings.items():
            self._set_variable(name.upper(), "" if value is None else str(value))
        reset_settings()
        return get_settings()

    def isolate(self) -> None:
        """Begin: no setting of the machine or of ``.env`` counts, and nothing is cached."""
        for name in Settings.model_fields:
            if name in os.environ:
                self._set_variable(name, "")
            self._set_variable(name.upper(), "")  # an empty value wins over .env and means the default
        reset_settings()
        self.clock.take_over()
        forget_memory()

    def restore(self) -> None:
        """End: the machine's clock and no memory; settings are read again by whoever asks next."""
        self.clock.give_back()
        forget_memory()
        reset_settings()

    def count_connections(self, count: Callable[[], int]) -> None:
        """Have the test fail if ``count()`` is not 0 after everything was closed."""
        self._connections.append(count)

    def around(self, test: Callable[..., Any]) -> Callable[..., Any]:
        """Return a test that closes what it opened, on its own event loop, and fails for what it left behind."""
        if not inspect.iscoroutinefunction(test):
            return test

        @functools.wraps(test)
        async def closing(*args: Any, **kwargs: Any) -> Any:
            async with self._closing():
                return await test(*args, **kwargs)

        return closing

    @asynccontextmanager
    async def _closing(self) -> AsyncIterator[None]:
        before = asyncio.all_tasks()
        try:
            yield
        except BaseException:
            await _close_all()
            raise
        in_use = connections_in_use()
        await _close_all()
        await asyncio.sleep(0)  # what was cancelled ends
        left = asyncio.all_tasks() - before
        for each in left:
            each.cancel()
        problems = [f"a task that still runs: {each.get_coro()!r:.200}" for each in left]
        problems += [f"{in_use} database sessions that are not closed"] if in_use else []
        problems += [f"{number} connections to Redis" async for number in self._open_connections()]
        if problems:
            raise AssertionError(f"the test left behind {'; '.join(problems)}")

    async def _open_connections(self) -> AsyncIterator[int]:
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        for count in self._connections:
            # Of another thread, so there is no event to wait for.
            while (number := count()) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            if number:
                yield number


async def _close_all() -> None:
    async with AsyncExitStack() as closing:
        closing.push_async_callback(close_database)
        closing.push_async_callback(close_cache)
        closing.push_async_callback(AgentRuntime.shutdown)
