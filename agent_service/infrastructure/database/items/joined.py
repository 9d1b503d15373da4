"""Joining what the tasks of an event loop ask at the same time into one transaction.

A commit costs more than what is in it, and so does a round trip. Whatever one caller asked happens as a whole or not
at all. A caller that leaves before its turn is left out; one that leaves later changes nothing for the others.
Searches and listings, which may take long, count more than reads and writes of single items, so that few share one.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import count
from typing import Final

from agent_service.core.errors import AgentServiceError, DatabaseUnavailableError
from agent_service.core.exception_copies import copy_for_another
from agent_service.infrastructure.database.engine.manager import DatabaseManager
from agent_service.infrastructure.database.items.operations import Get, Operation, Put, Result
from agent_service.infrastructure.database.items.transactions import ItemTransactions

__all__ = ["JoinedItems"]

_MOST: Final = 200
"""Weight of the requests that share a transaction."""
_LONG: Final = 25
"""Weight of a search, or a listing; anything else weighs 1."""
_LANES: Final = 4
"""Transactions at a time on PostgreSQL; SQLite has one writer."""


@dataclass(slots=True)
class _Request:
    operations: Sequence[Operation]
    extension: str | None
    answer: "asyncio.Future[list[Result]]"

    @property
    def weight(self) -> int:
        return sum(1 if isinstance(each, Get | Put) else _LONG for each in self.operations)


class JoinedItems:
    """Does operations of many tasks of one event loop.

    :param transactions: whose items these are.
    :param find: returns the database to use now; it must belong to that loop.
    """

    def __init__(self, transactions: ItemTransactions, find: Callable[[], DatabaseManager]) -> None:
        self._transactions = transactions
        self._find = find
        self._waiting = deque[_Request]()
        self._lanes = set[asyncio.Task[None]]()
        self._working = 0
        """Lanes that look once more for requests before they end."""

    @property
    def database(self) -> DatabaseManager:
        """Where the items are."""
        return self._find()

    async def run(self, operations: Sequence[Operation], *, extension: str | None = None) -> list[Result]:
        """Do operations, all or none, and return what each gives; as :meth:`ItemTransactions.run`."""
        request = _Request(operations, extension, asyncio.get_running_loop().create_future())
        lanes = 1 if self.database.embedded else _LANES  # raises before anything waits
        self._waiting.append(request)
        if self._working < lanes:
            self._working += 1
            # A context of its own: what a lane does is not the work of the caller that happened to begin it.
            lane = asyncio.get_running_loop().create_task(self._work(), context=Context())
            self._lanes.add(lane)
            lane.add_done_callback(self._ended)
        return await request.answer

    async def aclose(self) -> None:
        """Wait until nothing is under way."""
        while self._lanes:
            await asyncio.wait(self._lanes)

    def _ended(self, lane: "asyncio.Task[None]") -> None:
        self._lanes.discard(lane)
        if not lane.cancelled() and (error := lane.exception()) is not None:
            raise error

    async def _work(self) -> None:
        try:
            while batch := list(self._take()):
                try:
                    await self._do(batch)
                finally:
                    for request in batch:
                        request.answer.cancel()  # only those without an answer: this lane was cancelled
        finally:
            self._working -= 1

    def _take(self) -> Iterator[_Request]:
        left = _MOST
        while self._waiting and left > 0:
            request = self._waiting.popleft()
            if not request.answer.done():
                left -= request.weight
                yield request

    async def _do(self, batch: Sequence[_Request]) -> None:
        try:
            results = await self._transactions.run(
                self.database,
                [operation for request in batch for operation in request.operations],
                extension=next((each.extension for each in batch if each.extension), None),
            )
        except DatabaseUnavailableError as exc:
            # For each alone it would be the same, one after the other.
            _refuse(batch, exc)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is the callers'
            if len(batch) == 1:
                _refuse(batch, exc)
                return
            for request in batch:
                if not request.answer.done():
                    await self._do([request])
        else:
            place = count()
            for request in batch:
                own = [results[next(place)] for _ in request.operations]
                if not request.answer.done():
                    request.answer.set_result(own)


def _refuse(batch: Sequence[_Request], error: Exception) -> None:
    for request in batch:
        if not request.answer.done():
            request.answer.set_exception(copy_for_another(error) if isinstance(error, AgentServiceError) else error)
