"""What a probe is given: a library to open, a Redis of its own, how much to do; and something to load from."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from benchmarks.conformance.adapter import Adapter, Feature, Function, Store
from tests.servers.redis import RedisServer

__all__ = ["FULL", "QUICK", "Sizes", "Source", "Stage"]

PATIENCE = 10.0
"""Seconds after which a probe stops waiting for what should have happened long ago."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many of each a probe uses."""

    callers: int
    failing_callers: int
    processes: int
    callers_per_process: int
    few_entries: int
    many_entries: int


FULL = Sizes(callers=50, failing_callers=20, processes=4, callers_per_process=100, few_entries=10, many_entries=10_000)
QUICK = Sizes(callers=50, failing_callers=20, processes=2, callers_per_process=10, few_entries=10, many_entries=200)


@dataclass(frozen=True, slots=True)
class Stage:
    """One library on one empty Redis, which the probe may kill."""

    kind: type[Adapter]
    server: RedisServer
    sizes: Sizes

    def has(self, feature: Feature) -> bool:
        """Whether the library has it at all."""
        return feature in self.kind.features

    def open(self, store: Store = Store.OWN, *, url: str | None = None) -> Adapter:
        """Open a cache: another handle, as another process would."""
        return self.kind(url or self.server.url, store)


@dataclass
class Source:
    """What a cached function reads: a load takes the value as it starts, waits at the gate, and gives it.

    An exception as the value is raised.
    """

    value: Any = "old"
    loads: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def load(self) -> Any:
        """Read it."""
        self.loads += 1
        value = self.value
        self.started.set()
        await self.gate.wait()
        await asyncio.sleep(0.01)
        if isinstance(value, Exception):
            raise value
        return value

    def reader(self) -> Function:
        """Return a function of one argument to decorate."""

        async def read(n: int) -> Any:  # noqa: ARG001 - it is part of the key
            return await self.load()

        return read
