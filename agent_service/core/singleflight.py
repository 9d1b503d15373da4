"""Single flight: many callers of one key, one load.

Invariants:

1. At most one flight per key is joinable. A flight whose lease broke (its key was invalidated while it ran) is not
   joinable: a caller who arrives later starts a new one, and only the callers who were there before get the old result.
2. The load belongs to nobody: each caller waits behind a shield. It is cancelled when its last waiter is cancelled, and
   only then; not even then when one of them wanted it to go on in the background.
3. A failure is shared by the waiters of that flight and remembered for nobody else. Each waiter raises its own copy.
4. A flight leaves the registry by identity, so that it can never remove its successor.
5. A load that asks for its own key, directly or through other loads that wait for each other, gets
   :class:`ReentrantLoadError` at once instead of waiting for ever.
6. The load runs in an empty :class:`contextvars.Context` that holds only the variables declared by the caller: what the
   first caller happened to carry cannot leak into a result that others share.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from agent_service.core.errors import ReentrantLoadError
from agent_service.core.exception_copies import copy_for_another
from agent_service.core.logging import logger
from agent_service.core.tracing import TRACING

__all__ = ["Breakable", "SingleFlight"]

T = TypeVar("T")


class Breakable(Protocol):
    """The lease of a load, which breaks when what it loads is invalidated."""

    @property
    def broken(self) -> bool:
        """Whether the result of the load must not be given to callers who arrive from now on."""
        ...


class _Flight(Generic[T]):
    __slots__ = ("goes_on", "key", "lease", "shared", "task", "waiters", "waits_for")

    def __init__(self, key: str, open_lease: Callable[[], Breakable]) -> None:
        self.key = key
        self.task: asyncio.Task[T]
        self.waiters = 0
        self.goes_on = False
        self.shared = False
        self.waits_for: list[_Flight[Any]] = []  # flights that this flight's own load is waiting for
        self.lease = open_lease()

    def reaches(self, other: "_Flight[Any]") -> bool:
        """Whether this flight is, or waits directly or indirectly for, the other one."""
        reached, seen = [self], {id(self)}
        for each in reached:
            if each is other:
                return True
            # A flight that several wait for is looked at once: paths may double with every level of a diamond.
            new = {id(flight): flight for flight in each.waits_for if id(flight) not in seen}
            seen.update(new)
            reached += new.values()
        return False


_current: contextvars.ContextVar[_Flight[Any] | None] = contextvars.ContextVar(
    "agent_service_current_load", default=None
)


class SingleFlight:
    """The running loads of one cache. Callers share those of their own event loop."""

    def __init__(self) -> None:
        self._flights: dict[tuple[asyncio.AbstractEventLoop, str], _Flight[Any]] = {}
        self.running: set[asyncio.Task[Any]] = set()
        """Of every event loop, those that nobody may join any more among them."""

    def __len__(self) -> int:
        return len(self.running)

    def joinable(self, key: str) -> Breakable | None:
        """Return the lease of the load that a caller for this key would join now; None: there is none to join."""
        flight = self._flights.get((asyncio.get_running_loop(), key))
        return None if flight is None or flight.lease.broken else flight.lease

    async def run(
        self,
        key: str,
        load: Callable[[Breakable], Coroutine[Any, Any, T]],
        open_lease: Callable[[], Breakable],
        *,
        context: Iterable[contextvars.ContextVar[Any]] = (),
        goes_on: bool = False,
    ) -> T:
        """Join the running load of ``key`` or start one, and wait for its result.

        :param load: called with the lease of its flight.
        :param open_lease: called synchronously before the load starts.
        :param context: the context variables that the load may see, with the values of the caller that starts it.
        :param goes_on: whether the load goes on when nobody waits for it any more.
        :raises ReentrantLoadError: when waiting could never end.
        """
        flight = self._join(key, load, open_lease, context, goes_on=goes_on)
        parent = _current.get()
        if parent is not None:
            if flight.reaches(parent):
                raise ReentrantLoadError(
                    f"the load of {parent.key!r} waits for the load of {flight.key!r}, which waits for it; "
                    "a loader must not ask the cache for its own key"
                )
            parent.waits_for.append(flight)
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except Exception as exc:  # noqa: BLE001 - raised below, outside the handler, so that no context is added
            failure = _own_copy(flight, exc)
        finally:
            flight.waiters -= 1
            if parent is not None:
                parent.waits_for.remove(flight)
            if not flight.waiters and not flight.goes_on and not flight.task.done():
                self._detach(flight)
                flight.task.cancel()
        raise failure

    def launch(
        self,
        key: str,
        load: Callable[[Breakable], Coroutine[Any, Any, Any]],
        open_lease: Callable[[], Breakable],
        *,
        context: Iterable[contextvars.ContextVar[Any]] = (),
    ) -> None:
        """:meth:`run`, without waiting: the load goes on in the background. What it raises is logged."""
        self._join(key, load, open_lease, context, goes_on=True)

    def _join(
        self,
        key: str,
        load: Callable[[Breakable], Coroutine[Any, Any, T]],
        open_lease: Callable[[], Breakable],
        context: Iterable[contextvars.ContextVar[Any]],
        *,
        goes_on: bool,
    ) -> _Flight[T]:
        here = asyncio.get_running_loop(), key
        flight: _Flight[T] | None = self._flights.get(here)
        if flight is None or flight.lease.broken:
            flight = self._start(here, load, open_lease, context)
        flight.goes_on = flight.goes_on or goes_on
        return flight

    def _start(
        self,
        here: tuple[asyncio.AbstractEventLoop, str],
        load: Callable[[Breakable], Coroutine[Any, Any, T]],
        open_lease: Callable[[], Breakable],
        context: Iterable[contextvars.ContextVar[Any]],
    ) -> _Flight[T]:
        loop, key = here
        flight: _Flight[T] = _Flight(key, open_lease)
        run_in = contextvars.Context()
        for variable in context:
            try:
                run_in.run(variable.set, variable.get())
            except LookupError:
                continue
        run_in.run(_current.set, flight)
        if TRACING.observer is not None:
            TRACING.observer.carry(run_in)
        flight.task = loop.create_task(load(flight.lease), context=run_in)
        self._flights[here] = flight
        self.running.add(flight.task)
        flight.task.add_done_callback(lambda _task: self._land(flight))
        return flight

    def _detach(self, flight: _Flight[Any]) -> None:
        here = flight.task.get_loop(), flight.key
        if self._flights.get(here) is flight:
            del self._flights[here]

    def _land(self, flight: _Flight[Any]) -> None:
        self._detach(flight)
        self.running.discard(flight.task)
        if not flight.task.cancelled() and flight.task.exception() is not None and not flight.waiters:
            logger.warning("a load failed and nobody waits for it", exc_info=flight.task.exception())

    @contextmanager
    def waiting_for(self, other: object) -> Iterator[None]:
        """Note that the load that calls this waits for another one, which does its work along with its own.

        :param other: what :meth:`current` gave inside that load.
        """
        me = _current.get()
        if me is None or me is other or not isinstance(other, _Flight):
            yield
            return
        me.waits_for.append(other)
        try:
            yield
        finally:
            me.waits_for.remove(other)

    @staticmethod
    def current() -> object:
        """Return a handle of the load that calls this, for :meth:`waiting_for`; None outside of loads."""
        return _current.get()

    async def aclose(self) -> None:
        """Cancel the running loads of this event loop and wait until they ended."""
        await asyncio.sleep(0)  # one that was cancelled before it began would not end what was opened for it
        loop = asyncio.get_running_loop()
        running = [task for task in self.running.copy() if task.get_loop() is loop]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _own_copy(flight: _Flight[Any], exc: Exception) -> Exception:
    """Return the exception itself for the first waiter and a copy for each other one: tracebacks stay apart."""
    if not flight.shared:
        flight.shared = True
        return exc
    return copy_for_another(exc)
