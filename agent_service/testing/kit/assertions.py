"""Assertions about decorated functions."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from agent_service.core.errors import ConfigurationError

__all__ = ["assert_cached", "assert_not_called_again"]

P = ParamSpec("P")
R = TypeVar("R")


async def assert_cached(function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function decorated with ``@cached`` and return what it gives, if that came from the cache.

    :raises AssertionError: if the function was called for it.
    :raises ConfigurationError: for a function that is not decorated.
    """
    with assert_not_called_again(function):
        return await function(*args, **kwargs)


@contextmanager
def assert_not_called_again(function: Callable[..., Any]) -> Iterator[None]:
    """Assert that a function decorated with ``@cached`` is not called for a result in the block: the cache has all.

    :raises AssertionError: if it was called, with whatever arguments, and by whatever task of this process.
    :raises ConfigurationError: for a function that is not decorated.
    """
    before = _misses(function)
    yield
    calls = _misses(function) - before
    if calls:
        name = getattr(function, "__qualname__", repr(function))
        raise AssertionError(f"{name} was called {calls} times, because the cache did not have what was asked for")


def _misses(function: Callable[..., Any]) -> int:
    info = getattr(function, "cache_info", None)
    if info is None:
        raise ConfigurationError(f"function must be decorated with @cached, got {function!r:.80}")
    misses: int = info().misses
    return misses
