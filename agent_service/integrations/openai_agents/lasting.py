"""Writes that end as they began, although their caller is cancelled meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["to_its_end"]

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Run some work to its end and return its result; a cancellation of the caller is raised after that.

    The Runner cancels what it no longer waits for, and what it has written by then must be whole. How long that takes
    is bounded by the timeouts of the database.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = cancelled or exc
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # Marks it as seen: the caller has left, and is told the cancellation.
    raise cancelled
