"""Cancelling a coroutine wherever it can be cancelled: each time it waits for something."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any


class _CancelledAt:
    """Awaits a coroutine, and cancels the task when that waits for the nth time, and at each of some waits after it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], wait: int, again: int) -> None:
        self._coroutine = coroutine
        self._waits = range(wait, wait + 1 + again)
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps, number, error = self._coroutine.__await__(), 0, None
        while True:
            try:
                future = steps.send(None) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            if number in self._waits:
                task = asyncio.current_task()
                assert task is not None
                self.cancelled = task.cancel()  # which it notices as soon as it waits
            number, error = number + 1, None
            try:
                yield future
            except BaseException as exc:  # noqa: BLE001 - handed on
                error = exc


async def cancelled_at_every_wait(
    work: Callable[[], Coroutine[Any, Any, Any]], *, again: int = 0
) -> AsyncIterator[int]:
    """Do the work again and again, cancelled at its first wait, its second, ...; at last it is not cancelled.

    Each time it has ended, its number is given.

    :param again: how often it is cancelled once more, at the waits that follow.
    """
    number, cancelled = 0, True
    while cancelled:
        attempt = _CancelledAt(work(), number, again)

        async def run(attempt: _CancelledAt = attempt) -> None:
            await attempt

        await asyncio.wait({task := asyncio.create_task(run())})
        cancelled = attempt.cancelled
        if not task.cancelled():
            task.result()
        yield number
        number += 1
