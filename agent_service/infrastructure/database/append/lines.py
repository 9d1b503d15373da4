"""Requests that wait to be sent: a line for each tenant, and the lines take turns.

A tenant with many messages fills its own line only. The lanes (the writer's tasks, each with a connection) take one
line at a time, first come, first served, and a line that has more goes to the end. A line is in one lane at a time, so
the messages of a session stay in the order in which they were given.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["Line", "Lines", "Waiting"]

MAX_BATCH: Final = 1000
"""Messages in one transaction, unless one request has more: how long a statement may hold its sessions, and what a
repetition costs."""
MAX_BATCH_CHARACTERS: Final = 4_000_000
"""What requests hold together in one transaction, unless a single one is longer."""


class Waiting(Protocol):
    """What waits in a line: equal to itself only."""

    @property
    def size(self) -> int:
        """How large it is, in characters or bytes."""

    @property
    def count(self) -> int:
        """How many messages or changes it is."""

    @property
    def place(self) -> Hashable:
        """Where it writes, such as a session."""

    @property
    def alone(self) -> bool:
        """Whether no other request of its place may be in its batch."""


R = TypeVar("R", bound=Waiting)


class Line(Generic[R]):
    """What waits of one tenant.

    :param room: requests that it takes in; later ones wait before it, and are gone when their callers are.
    """

    def __init__(self, tenant_id: str, room: int) -> None:
        self.tenant_id = tenant_id
        self.callers = 0
        """Appends that are not over."""
        self.queued = False
        """Whether it waits for a lane, or is in one."""
        self._room = room
        self._requests: deque[R] = deque()
        self._before: OrderedDict[R, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: R) -> None:
        """Put a request at the end."""
        if len(self._requests) < self._room:
            self._requests.append(request)
        else:
            self._before[request] = None

    def take_back(self, request: R) -> None:
        """Take out a request for which there was no room yet."""
        self._before.pop(request, None)

    def take(self) -> list[R]:
        """Return the next batch. A request with conditions is the only one of its place in it."""
        batch: list[R] = []
        count = size = 0
        places: dict[Hashable, bool] = {}
        while self._requests and count < MAX_BATCH and size <= MAX_BATCH_CHARACTERS:
            place, alone = self._requests[0].place, self._requests[0].alone
            if place in places and (alone or places[place]):
                break
            places[place] = alone
            request = self._requests.popleft()
            batch.append(request)
            count += request.count
            size += request.size
        while self._before and len(self._requests) < self._room:
            self._requests.append(self._before.popitem(last=False)[0])
        return batch

    def take_all(self) -> list[R]:
        """Return whatever is left."""
        left = [*self._requests, *self._before]
        self._requests.clear()
        self._before.clear()
        return left


class Lines(Generic[R]):
    """The lines of all tenants that have callers.

    :param room: requests that each line holds.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._lines: dict[str, Line[R]] = {}
        self._ready: deque[Line[R]] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._closed = False

    def enter(self, tenant_id: str, request: R) -> Line[R]:
        """Put a request into the tenant's line, and return the line: the caller is to :meth:`leave` it."""
        line = self._lines.get(tenant_id)
        if line is None:
            line = self._lines[tenant_id] = Line(tenant_id, self._room)
        line.callers += 1
        line.put(request)
        if not line.queued:
            line.queued = True
            self._ready.append(line)
            self._wake()
        return line

    def leave(self, line: Line[R], request: R) -> None:
        """Forget the caller. A line that nobody uses is forgotten too, once what is left in it was taken."""
        line.take_back(request)
        line.callers -= 1
        self._forget(line)

    async def next(self) -> Line[R] | None:
        """Wait for a line that has requests, until :meth:`close`: then None. It is to be given back."""
        while not self._ready:
            if self._closed:
                return None
            # The lane that worked last is woken first: a lane opens its connection when it is needed.
            woken = asyncio.get_running_loop().create_future()
            self._idle.append(woken)
            try:
                await woken
            except asyncio.CancelledError:
                if woken in self._idle:
                    self._idle.remove(woken)
                elif not woken.cancelled():
                    self._wake()
                raise
        return self._ready.popleft()

    def give_back(self, line: Line[R]) -> None:
        """Let a line wait for its next turn, if it has requests. The lane asks for the next line itself."""
        if line:
            self._ready.append(line)
        else:
            line.queued = False
            self._forget(line)

    def close(self) -> None:
        """Let every lane end that has nothing to do."""
        self._closed = True
        while self._idle:
            self._wake()

    def abandon(self) -> list[R]:
        """Return all requests that still wait."""
        return [request for line in self._lines.values() for request in line.take_all()]

    def _wake(self) -> None:
        while self._idle:
            woken = self._idle.pop()
            if not woken.done():
                woken.set_result(None)
                return

    def _forget(self, line: Line[R]) -> None:
        if not line.callers and not line.queued:
            del self._lines[line.tenant_id]
