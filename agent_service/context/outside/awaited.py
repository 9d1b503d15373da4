"""Methods of other people's objects, awaited whatever they are."""

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from agent_service.core.calling_thread import run_plain, run_plain_to_its_end
from agent_service.core.plain_threads import PlainThreads

__all__ = ["AwaitedMethod"]

_WITHOUT_A_LOOP: Final = ("no running event loop", "There is no current event loop")
"""How asyncio's errors begin where it is called in a thread without a loop."""


class AwaitedMethod:
    """Calls a method and awaits what it returns.

    What a method *is* does not tell: a plain function may return the coroutine of another object, a partial or an
    instance may be called, a decorator may hide a coroutine function. So a function that is not known to be one of
    coroutines runs in a thread, and if what it returned can be awaited, it is. A method that asks for the running event
    loop, which a thread has not, is called again on the loop, from then on at once.

    :param threads: where functions run.
    :param writes: it changes something, so a cancelled caller waits for the end of a function that runs in a thread.
    """

    def __init__(self, method: Callable[..., Any], threads: PlainThreads, *, writes: bool) -> None:
        self._method = method
        self._on_loop = _returns_coroutines(method)
        self._threads = threads
        self._run = run_plain_to_its_end if writes else run_plain

    async def __call__(self, *arguments: Any, **options: Any) -> Any:
        result = self._method(*arguments, **options) if self._on_loop else await self._in_thread(arguments, options)
        if isinstance(result, Future):
            return await asyncio.wrap_future(result)
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        try:
            return await self._run(self._threads, self._method_with(options), *arguments)
        except RuntimeError as exc:
            if not str(exc).startswith(_WITHOUT_A_LOOP):
                raise
        self._on_loop = True
        return self._method(*arguments, **options)

    def _method_with(self, options: dict[str, Any]) -> Callable[..., Any]:
        return (lambda *arguments: self._method(*arguments, **options)) if options else self._method


def _returns_coroutines(method: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(getattr(method, "__call__", None))  # noqa: B004 - its code is wanted
