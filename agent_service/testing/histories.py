"""Random histories of calls: what a store returns is compared with what a dictionary returns."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

__all__ = ["StoreHistory", "play"]

S = TypeVar("S")


class StoreHistory(RuleBasedStateMachine, Generic[S]):
    """Plays random calls on a store and on a dictionary; the store lives on the loop of the test.

    A subclass empties the store in ``__init__``, because all examples share it.
    """

    def __init__(self, store: S, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.store = store
        self.loop = loop

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of a call, made on the loop of the test."""
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(30)


async def play(history: type[StoreHistory[S]], store: S, *, examples: int, steps: int) -> None:
    """Play histories of up to ``steps`` calls on ``store``, in a thread, while this loop serves their calls."""
    machine = partial(history, store, asyncio.get_running_loop())
    options = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    # Any callable that makes a machine is documented to do; the annotation asks for a class.
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=options)  # type: ignore[arg-type]
